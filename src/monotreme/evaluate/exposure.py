"""What decontaminate found of the benchmarks that are scored."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from monotreme.recipe import BenchmarkRef
from monotreme.records import VERDICTS, digest, read_table
from monotreme.run import Run
from monotreme.scoring.results import Exposure

LEVELS = {"duplicate": "leaked", "gray_area": "gray"}  # the gravest verdict of a question's pairs


def read_exposures(
    run: Run, scored: Sequence[tuple[BenchmarkRef, str]], digests: Mapping[str, str]
) -> dict[str, Exposure]:
    """Benchmark → its exposed questions, for those that decontaminate checked as they are scored.

    Args:
        scored: each benchmark with the split that is scored.
        digests: benchmark → what identifies its data. Where decontaminate read other data, another
            split or other columns, questions have other ids, and nothing is said.
    """
    if not (run.folder / "decontaminate" / "leaks.json").is_file():
        return {}
    checked = run.record("decontaminate")
    leaks = json.loads(run.output("decontaminate", "leaks.json").read_text(encoding="utf-8"))
    splits = {one["id"]: one["split"] for one in leaks["benchmarks"]}
    columns = {ref.id: ref.columns for ref in run.recipe.decontaminate.benchmarks}
    same = [
        ref.id
        for ref, split in scored
        if splits.get(ref.id) == split
        and columns.get(ref.id) == ref.columns
        and checked["inputs"].get(f"benchmarks/{ref.id}") == digests[ref.id]
    ]
    levels = _levels(run) if same else {}
    return {
        name: Exposure(frozenset(leaks["leaked_benchmark_ids"].get(name, ())), levels.get(name, {}))
        for name in same
    }


def _levels(run: Run) -> dict[str, dict[str, str]]:
    """Benchmark → id of a question → "leaked" or "gray", by the gravest verdict of its pairs."""
    names = ["benchmark", "benchmark_id", "verdict"]
    pairs = read_table(run.output("decontaminate", "pairs.parquet"), names).to_pylist()
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for verdict in reversed(VERDICTS):  # the gravest last
        for pair in pairs:
            if pair["verdict"] == verdict and verdict in LEVELS:
                found[pair["benchmark"]][pair["benchmark_id"]] = LEVELS[verdict]
    return found


def exposure_digest(exposure: Exposure) -> str:
    """Changes when, and only when, a question's exposure does."""
    plain: list[Any] = [sorted(exposure.listed), sorted(exposure.levels.items())]
    return digest(json.dumps(plain))
