"""Judged pairs → the figures that a person and the cards read."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from monotreme.decontaminate.judging import Match, count_verdicts, gravest_verdicts
from monotreme.records import VERDICTS, Verdict


def leak_table(matches: Iterable[Match], read: Mapping[str, int]) -> list[dict[str, Any]]:
    """Distinct questions by source, benchmark and gravest verdict towards that benchmark.

    Each row has the counts by the verdict that holds, the 95 % interval of each as a share of what
    was read of the source, and under `proposed` the counts by triage's verdict.

    Args:
        matches: read twice.
        read: source → its questions, in the order of the rows.
    """
    found = _cells(matches, lambda match: match.verdict)
    proposed = _cells(matches, lambda match: match.proposed.verdict)
    benchmarks = sorted({benchmark for benchmark, _ in found})
    return [
        _leak_row(
            source, benchmark, num, *(cells[benchmark, source] for cells in (found, proposed))
        )
        for benchmark in benchmarks
        for source, num in read.items()
        if (benchmark, source) in found
    ]


def _cells(
    matches: Iterable[Match], verdict: Callable[[Match], Verdict]
) -> dict[tuple[str, str], dict[str, int]]:
    """(benchmark, source) → how many distinct questions there are of each verdict."""
    worst = gravest_verdicts(
        ((m.benchmark.benchmark, m.question.source, m.question.id), verdict(m)) for m in matches
    )
    cells: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for (benchmark, source, _), gravest in worst.items():
        cells[benchmark, source].append(gravest)
    return {cell: count_verdicts(said) for cell, said in cells.items()}


def _leak_row(
    source: str, benchmark: str, num: int, found: dict[str, int], proposed: dict[str, int]
) -> dict[str, Any]:
    return {
        "source": source,
        "benchmark": benchmark,
        "read": num,
        **found,
        "intervals": {verdict: share_interval(count, num) for verdict, count in found.items()},
        "proposed": proposed,
    }


def rates(
    read: Mapping[str, int], leaked: Mapping[str, int], sources: Sequence[str]
) -> list[dict[str, Any]]:
    """The share of each source that was dropped as a leak, with its 95 % interval."""
    return [
        {
            "source": source,
            "read": read[source],
            "leaked": leaked.get(source, 0),
            "rate": leaked.get(source, 0) / read[source],
            "interval": share_interval(leaked.get(source, 0), read[source]),
        }
        for source in sources
        if read.get(source)
    ]


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (E. B. Wilson, JASA 1927), as scipy has it."""
    found = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return round(float(found.low), 6), round(float(found.high), 6)


def leaked_ids(matches: Iterable[Match], drop: Collection[Verdict]) -> dict[str, list[str]]:
    """Benchmark → ids of its questions of which a leak was found: not of its clean subset."""
    ids: dict[str, set[str]] = defaultdict(set)
    for match in matches:
        if match.verdict in drop:
            ids[match.benchmark.benchmark].add(match.benchmark.id)
    return {name: sorted(found) for name, found in sorted(ids.items())}


def review(matches: Sequence[Match]) -> dict[str, Any]:
    """What people did: pairs judged, verdicts of triage's that they changed, and who they are.

    `verdicts` counts the judged pairs by what was proposed and what people then said.
    """
    judged = [match for match in matches if match.settled]
    said = Counter((match.proposed.verdict, match.verdict) for match in judged)
    return {
        "pairs": len(matches),
        "judged": len(judged),
        "changed": sum(num for (proposed, verdict), num in said.items() if proposed != verdict),
        "verdicts": [
            {
                "proposed": proposed,
                "judged": {verdict: said[proposed, verdict] for verdict in VERDICTS},
            }
            for proposed in VERDICTS
            if any(said[proposed, verdict] for verdict in VERDICTS)
        ],
        "reviewers": sorted({name for m in judged if m.settled for name in m.settled.reviewers}),
    }
