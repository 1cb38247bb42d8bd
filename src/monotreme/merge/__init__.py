"""merge: the adapter into its base and into other models of the same shape (paper, section 4).

A target is read one tensor at a time from its safetensors files; no model is built to merge. An
adapted weight becomes round(W + scale · B A), the sum in float32 and one rounding to the dtype that
the target is stored in: bit for bit what PEFT's `merge_and_unload()` gives. Everything else is
copied. Then the merged model is loaded and compared with the adapter on the target.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monotreme.merge.adapter import Factors, merged_weight, read_adapter
from monotreme.merge.files import DTYPES
from monotreme.merge.target import Target, check_fit, read_target
from monotreme.merge.verify import fits_memory, tolerance, verify
from monotreme.merge.write import Tally, copy_companions, shards, write_merged
from monotreme.recipe import IntoRef, ModelRef
from monotreme.records import Counts
from monotreme.run import Run
from monotreme.storage import sha256

__all__ = ["execute", "inputs", "merged_weight", "read_adapter", "shards", "tolerance"]

NAME = "merge"


def inputs(run: Run) -> dict[str, str]:
    """The adapter, its base and the models it goes into."""
    return {
        "adapter": sha256(run.output("train", "adapter")),
        "base": run.model_digest(run.recipe.train.base),
        **{
            f"into/{into.id}": run.model_digest(_target_ref(into, run.recipe.train.base))
            for into in run.recipe.merge.into
        },
    }


def _target_ref(into: IntoRef, base: ModelRef) -> ModelRef:
    return base if into.model == "base" else into


def merge_into(
    target: Target,
    adapter_folder: Path,
    folder: Path,
    *,
    shard_bytes: int = 5_000_000_000,
    trust: bool = False,
) -> dict[str, Any]:
    """Write `folder`: the adapter merged into a target that it fits, proven on the probe texts.

    Args:
        trust: whether code that comes with the target may run.

    Returns:
        What the record says of a merge, as plain JSON.
    """
    adapter = read_adapter(adapter_folder)
    folder.mkdir()
    copy_companions(target.folder, folder, with_code=trust)
    tally = write_merged(target, adapter, folder, shard_bytes)
    facts = _facts(target, adapter, tally)
    if fits_memory(facts["num_weights"]):
        dtype = max((DTYPES[name] for name in facts["dtypes"]), key=lambda d: torch.finfo(d).eps)
        proof: dict[str, Any] = verify(
            target.folder,
            adapter_folder,
            folder,
            dtype=dtype,
            num_adapted=len(adapter),
            trust=trust,
        )
    else:
        proof = {"skipped": "the model in float32 does not fit this machine's memory"}
    return {**facts, "verify": proof}


def _facts(target: Target, adapter: Mapping[str, Factors], tally: Tally) -> dict[str, Any]:
    return {
        "num_adapted": len(adapter),
        "num_copied": len(target.tensors) - len(adapter),
        "num_weights": sum(math.prod(tensor.shape) for tensor in target.tensors.values()),
        "dtypes": sorted({target.tensors[name].dtype for name in adapter}),
        "bytes": sum(tensor.num_bytes for tensor in target.tensors.values()),
        "delta_norm_ratio": _rounded(math.sqrt(tally.delta_square / tally.weight_square)),
        "unchanged_share": _rounded(tally.num_unchanged / tally.num_adapted),
    }


def _rounded(value: float) -> float:
    """Six figures: the last bits of a norm depend on the number of threads."""
    return float(f"{value:.6g}")


def execute(run: Run) -> None:
    """Merge the adapter into every model of the recipe; all are checked before any is written.

    Raises:
        InputError: a folder is not a model or an adapter.
        MismatchError: a target is not of the adapter's architecture, or a merge fails its proof.
        RefusedError: the adapter or a target has a feature that a merge cannot express.
    """
    recipe = run.recipe
    adapter_folder = run.output("train", "adapter")
    adapter = read_adapter(adapter_folder)
    base = read_target(run.model(recipe.train.base))
    refs = {into.id: _target_ref(into, recipe.train.base) for into in recipe.merge.into}
    targets = {name: read_target(run.model(ref)) for name, ref in refs.items()}
    for name, target in targets.items():
        check_fit(target, base, adapter, name)
    with run.stage(NAME, inputs(run)) as work:
        for name, target in targets.items():
            with work.file(name) as folder:
                work.facts[name] = merge_into(
                    target,
                    adapter_folder,
                    folder,
                    shard_bytes=recipe.merge.shard_bytes,
                    trust=refs[name].trust_remote_code,
                )
        read = [name for name, target in targets.items() for _ in target.tensors]
        work.counts = Counts.tally(read, [])
