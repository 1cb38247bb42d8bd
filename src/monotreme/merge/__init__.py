"""merge: the adapter into its base and into other models of the same shape (paper, section 4).

A target's safetensors files are written again, block of rows by block of rows; no model is built to
merge. An adapted weight becomes round(W + scale · B A), the sum in float32 and one rounding to the
dtype that the target is stored in: bit for bit what PEFT's `merge_and_unload()` gives. Everything
else is copied. Then the merged model is loaded and compared with the adapter on the target.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monotreme.merge.adapter import Slot, read_adapter
from monotreme.merge.files import DTYPES
from monotreme.merge.target import Target, check_fit, read_target
from monotreme.merge.verify import fits_memory, tolerance, verify
from monotreme.merge.write import Tally, Written, copy_companions, write_merged
from monotreme.recipe import IntoRef, ModelRef
from monotreme.records import Counts, digest
from monotreme.run import Run, StageWork, versions
from monotreme.storage import resuming, sha256, writing

__all__ = ["execute", "inputs", "read_adapter", "read_target", "tolerance", "write_merged"]

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
    target: Target, adapter_folder: Path, folder: Path, *, trust: bool = False
) -> dict[str, Any]:
    """Fill `folder`: the adapter merged into a target that it fits, proven on the probe texts.

    Files that an earlier call finished there are kept.

    Args:
        trust: whether code that comes with the target may run.

    Returns:
        What the record says of a merge, as plain JSON, and under `sha256` the digest of each file.
    """
    adapter = read_adapter(adapter_folder)
    copy_companions(target.folder, folder, with_code=trust)
    written = write_merged(target, adapter, folder)
    facts = _facts(target, adapter, written)
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
    return {**facts, "verify": proof, "sha256": {name: w.sha256 for name, w in written.items()}}


def _facts(
    target: Target, adapter: Mapping[str, Slot], written: Mapping[str, Written]
) -> dict[str, Any]:
    tally = Tally()
    for file in written.values():
        tally.add(file.tally)
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
    """Six figures: the last bits of a norm depend on the machine."""
    return float(f"{value:.6g}")


def execute(run: Run) -> None:
    """Merge the adapter into every model of the recipe; all are checked before any is written.

    A run that was killed is taken up again: finished merges, and finished files of the one that
    was at work, are kept if they are of the same inputs and versions.

    Raises:
        InputError: a folder is not a model or an adapter.
        MismatchError: a target is not of the adapter's architecture, or a merge fails its proof.
        RefusedError: the adapter or a target has a feature that a merge cannot express.
    """
    recipe = run.recipe
    adapter = read_adapter(run.output("train", "adapter"))
    base = read_target(run.model(recipe.train.base))
    refs = {into.id: _target_ref(into, recipe.train.base) for into in recipe.merge.into}
    targets = {name: read_target(run.model(ref)) for name, ref in refs.items()}
    for name, target in targets.items():
        check_fit(target, base, adapter, name)
    digests = inputs(run)
    with run.stage(NAME, digests) as work:
        for name, target in targets.items():
            key = digest(digests["adapter"], digests[f"into/{name}"], json.dumps(versions()))
            adapter_folder, trust = run.output("train", "adapter"), refs[name].trust_remote_code
            facts = _merged_once(work, name, key, target, adapter_folder, trust)
            known = {f"{name}/{file}": sha for file, sha in facts.pop("sha256").items()}
            work.register(name, known=known)
            work.facts[name] = facts
        read = [name for name, target in targets.items() for _ in target.tensors]
        work.counts = Counts.tally(read, [])


def _merged_once(
    work: StageWork, name: str, key: str, target: Target, adapter_folder: Path, trust: bool
) -> dict[str, Any]:
    """The facts of a merge: made now, or by a run that was killed before its record.

    They stand beside the merge in a file that the stage's end takes away.
    """
    work.forget()
    note = work.folder / f".{name}.{key[:16]}.json"
    if note.is_file() and (work.folder / name).is_dir():
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return found
    with resuming(work.folder / name, key) as folder:
        facts = merge_into(target, adapter_folder, folder, trust=trust)
    with writing(note) as path:
        path.write_text(json.dumps(facts), encoding="utf-8")
    return facts
