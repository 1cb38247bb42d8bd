"""merge: the adapter into its base and into other models of the same shape (paper, section 4).

A target's safetensors files are written again, block of rows by block of rows; no model is built to
merge. An adapted weight becomes round(W + Σ scale · B A), the sum in float32 and one rounding to the
dtype that the target is stored in: bit for bit what PEFT's `merge_and_unload()` gives. Everything
else is copied. Then the merged model is loaded and compared with the adapter on the target. Of
candidates the best is made (choose.py).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from monotreme.merge.adapter import Slot, read_adapter
from monotreme.merge.asked import Asked, check, digests_of, read_asked
from monotreme.merge.choose import choose
from monotreme.merge.files import DTYPES
from monotreme.merge.preview import ingredients, preview_of, rounded
from monotreme.merge.target import Target, read_target
from monotreme.merge.verify import fits_memory, smoke, tolerance, verify
from monotreme.merge.write import Tally, Written, copy_companions, write_merged
from monotreme.records import Counts, digest
from monotreme.run import Run, versions
from monotreme.scoring.tasks import benchmark_digests
from monotreme.storage import resuming, sha256, writing
from monotreme.work import StageWork

__all__ = [
    "execute",
    "inputs",
    "preview",
    "read_adapter",
    "read_target",
    "tolerance",
    "write_merged",
]

NAME = "merge"


def inputs(run: Run) -> dict[str, str]:
    """The adapter, its base, the models and adapters of every merge, and what chooses."""
    settings = run.recipe.merge
    found = {
        "adapter": sha256(run.output("train", "adapter")),
        "base": run.model_digest(run.recipe.train.base),
    }
    for into in settings.every:
        found |= digests_of(run, into)
    if settings.candidates:
        scoring = run.recipe.evaluate
        found |= {f"select/{k}": v for k, v in benchmark_digests(run, settings.select).items()}
        found["select/scoring"] = digest(scoring.precision, str(scoring.batch_tokens))
    return found


def merge_into(asked: Asked, folder: Path) -> dict[str, Any]:
    """Fill `folder`: the adapters merged into a target that they fit, proven on the probe texts.

    Files that an earlier call finished there are kept.

    Returns:
        What the record says of a merge, as plain JSON, and under `sha256` the digest of each file.
    """
    target, slots = asked.target, asked.slots
    copy_companions(target.folder, folder, with_code=asked.trust)
    written = write_merged(target, slots, folder)
    facts = _facts(target, slots, written)
    if not asked.is_sum:
        proof: dict[str, Any] = smoke(target.folder, folder, trust=asked.trust)
    elif fits_memory(facts["num_weights"]):
        dtype = max((DTYPES[name] for name in facts["dtypes"]), key=lambda d: torch.finfo(d).eps)
        with asked.as_adapter() as adapter:
            proof = verify(
                target.folder,
                adapter,
                folder,
                dtype=dtype,
                num_adapted=len(slots),
                trust=asked.trust,
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
        "delta_norm_ratio": rounded(math.sqrt(tally.delta_square / tally.weight_square)),
        "unchanged_share": rounded(tally.num_unchanged / tally.num_adapted),
    }


def _all_asked(run: Run, base: Target) -> list[Asked]:
    """Every merge and candidate of the recipe; each fits, or differs as the recipe accepts.

    Raises:
        InputError, MismatchError, RefusedError: as `execute`.
    """
    found = [read_asked(run, into) for into in run.recipe.merge.every]
    for asked in found:
        check(asked, base)
    return found


def preview(run: Run) -> list[dict[str, Any]]:
    """What every merge of the recipe would do, before a byte is written (preview.py).

    Raises:
        InputError, MismatchError, RefusedError: as `execute`, but for differences that only
            `accept` is missing for: these are told under `refused`.
    """
    settings = run.recipe.merge
    base = read_target(run.model(run.recipe.train.base))
    return [preview_of(read_asked(run, into), base, run.folder) for into in settings.every]


def execute(run: Run) -> None:
    """Merge the adapter into every model of the recipe; all are checked before any is written.

    A run that was killed is taken up again: finished merges, and finished files of the one that
    was at work, are kept if they are of the same inputs and versions.

    Raises:
        InputError: a folder is not a model or an adapter.
        MismatchError: a target is not of the adapter's architecture, or a merge fails its proof.
        RefusedError: the adapter or a target has a feature that a merge cannot express, or a target
            differs from the base in what the recipe does not accept.
    """
    base = read_target(run.model(run.recipe.train.base))
    asked = {each.name: each for each in _all_asked(run, base)}
    digests = inputs(run)
    candidates = [asked[into.id] for into in run.recipe.merge.candidates]
    with run.stage(NAME, digests) as work:
        made = [into.id for into in run.recipe.merge.into]
        if candidates:
            made.append(choose(run, work, candidates)["chosen"])
        for name in made:
            facts = _merged_once(work, asked[name], digests)
            known = {f"{name}/{file}": sha for file, sha in facts.pop("sha256").items()}
            work.register(name, known=known)
            work.facts[name] = {**facts, **ingredients(asked[name], base)}
        read = [name for name, each in asked.items() for _ in each.target.tensors]
        dropped = [(name, "not_chosen") for name in read if name not in made]
        work.counts = Counts.tally([name for name in read if name in made], dropped)


def _merged_once(work: StageWork, asked: Asked, digests: Mapping[str, str]) -> dict[str, Any]:
    """The facts of a merge: made now, or by a run that was killed before its record.

    They stand beside the merge in a file that the stage's end takes away.
    """
    mine = [value for key, value in digests.items() if key.startswith(f"into/{asked.name}")]
    weights = asked.into.model_dump_json()
    key = digest(digests["adapter"], *mine, weights, json.dumps(versions()))
    work.forget()
    note = work.folder / f".{asked.name}.{key[:16]}.json"
    if note.is_file() and (work.folder / asked.name).is_dir():
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return found
    with resuming(work.folder / asked.name, key) as folder:
        facts = merge_into(asked, folder)
    with writing(note) as path:
        path.write_text(json.dumps(facts), encoding="utf-8")
    return facts
