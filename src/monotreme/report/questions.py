"""The questions of a run, laid out: from what was read to what was kept, and why."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monotreme.plot import histogram
from monotreme.records import VERDICTS
from monotreme.report.facts import QUESTIONS, Facts
from monotreme.report.layout import Figure, Parts, Table, share, shares

FUNNEL = ("curate", "decontaminate", "train")  # the stages that questions pass through


def parts(told: Facts) -> Parts:
    """Titles and blocks, of the stages that have run."""
    for make in (_questions, _similarity, _examples, _leaks, _licenses):
        yield from make(told)


def _questions(told: Facts) -> Parts:
    done = [stage for stage in FUNNEL if stage in told["stages"]]
    if not done:
        return
    counts = [told["stages"][stage]["counts"] for stage in done]
    head = ["source", "read", *(f"kept by {stage}" for stage in done)]
    sources = dict.fromkeys(source for one in counts for source in one["by_source"])
    rows = [_funnel(source, [one["by_source"].get(source) for one in counts]) for source in sources]
    if len(rows) > 1:
        rows.append(_funnel("all", counts))
    why = [
        (stage, reason, f"{num:,}")
        for stage, one in zip(done, counts, strict=True)
        for reason, num in sorted(one["by_reason"].items())
    ]
    tables = [Table(head, rows), *([Table(["stage", "reason", "dropped"], why, 2)] if why else [])]
    yield "From what was read to what was kept", tables
    if "curate" in told["stages"]:
        yield "What the exclusion guarantees", list(_guarantees(told["stages"]["curate"]["facts"]))


def _funnel(name: str, stages: Sequence[Mapping[str, Any] | None]) -> list[str]:
    read = f"{stages[0]['read']:,}" if stages[0] else ""
    return [name, read, *(f"{one['kept']:,}" if one else "" for one in stages)]


GUARANTEES = {
    "pairs_over_threshold_among_kept": "pairs over the threshold among the kept",
    "dropped_without_kept_neighbour": "dropped without a kept neighbour",
    "dropped_although_more_verbose": "dropped although more verbose than its twin",
    "dropped_with_another_final_answer": "dropped although its final answer is another",
    "protected_pairs": "pairs over the threshold kept because their answers differ",
}


def _guarantees(facts: Facts) -> Iterator[str | Table]:
    rows = [(words, f"{facts[key]:,}") for key, words in GUARANTEES.items() if key in facts]
    measured = facts.get("similarity", {})
    words = {
        "bound": "similarity is exact to within",
        "largest_error": "largest error seen",
        "embedded_again": "texts embedded again to be sure",
    }
    rows += [(text, f"{measured[key]:,.3g}" if isinstance(measured[key], float) else f"{measured[key]:,}") for key, text in words.items() if key in measured]  # fmt: skip
    if rows:
        yield "Counted after the work was done, over all questions."
        yield Table(["what", "found"], rows)


def _similarity(told: Facts) -> Parts:
    titles = {"curate": "Similar questions", "decontaminate": "Similar benchmark questions"}
    under = {"curate": "are looked at and kept", "decontaminate": "share their words"}
    for stage in reversed(QUESTIONS):
        found = told["similarity"].get(stage)
        if not found or not found["bars"]:
            continue
        bars = [(bar["low"], bar["high"], bar["pairs"]) for bar in found["bars"]]
        svg = histogram(titles[stage], "cosine similarity", "pairs", bars, found["threshold"])
        rows = [(f"{low:.2f}", f"{high:.2f}", f"{num:,}") for low, high, num in bars]
        words = f"Pairs by similarity. Those from the threshold on are judged; those under it {under[stage]}."
        yield (
            titles[stage],
            [words, Figure(svg), Table(["from", "to", "pairs"], rows, 0, folded="the numbers")],
        )


def _examples(told: Facts) -> Parts:
    titles = {"dropped": "What was dropped, beside its twin", "leaked": "Leaks, beside their twin"}
    for what, rows in told["examples"].items():
        cells = [
            (
                "\n".join(filter(None, (r["source"], r["verdict"], r["reason"], _plain(r["similarity"])))),
                r["dropped"],
                r["because"],
            )
            for r in rows
        ]  # fmt: skip
        if cells:
            words = "Of each source and reason the one least like what it yields to."
            yield titles[what], [words, Table(["which", "dropped", "because of"], cells, 3, True)]


def _plain(similarity: float | None) -> str:
    return "" if similarity is None else f"{similarity:.3f}"


def _leaks(told: Facts) -> Parts:
    if "leaks" not in told:
        return
    leaks = told["leaks"]
    checked = [
        (one["id"], one["split"], one["license"], f"{one['num_questions']:,}")
        for one in leaks["benchmarks"]
    ]
    matrix = [
        (row["source"], row["benchmark"], *(f"{row[v]:,} of {row['proposed'][v]:,}" for v in VERDICTS))
        for row in leaks["table"]
    ]  # fmt: skip
    rates = [
        (row["source"], f"{row['read']:,}", f"{row['leaked']:,}", share(row["rate"]), shares(row["interval"]))
        for row in leaks["rates"]
    ]  # fmt: skip
    blocks: list[Any] = [
        "Questions over the threshold, or word for word, like a benchmark's; each counts once for a "
        "benchmark, by its gravest verdict: as it holds now, of as many as were proposed.",
        Table(["source", "benchmark", *(v.replace("_", " ") for v in VERDICTS)], matrix, 2),
        f"Dropped: {' and '.join(leaks['drop'])}. With 95 % intervals:",
        Table(["source", "read", "leaked", "share", "95 % interval"], rates),
        "Checked against:",
        Table(["benchmark", "split", "licence", "questions"], checked, 3),
        *_review(leaks["review"]),
        *_between_splits(leaks["between_splits"]),
    ]
    yield "Leaks of benchmarks", blocks


def _between_splits(rows: Sequence[Facts]) -> list[str | Table]:
    cells = [
        (row["benchmark"], row["split"], row["other_split"], *(f"{row[v]:,}" for v in VERDICTS))
        for row in rows
    ]
    if not cells:
        return []
    head = ["benchmark", "split", "other split", *(v.replace("_", " ") for v in VERDICTS)]
    return ["Questions of a benchmark that another of its splits holds too:", Table(head, cells, 3)]


def _review(review: Facts) -> list[Table]:
    head = ["pairs", "judged by people", "verdicts changed"]
    return [Table(head, [[f"{review[key]:,}" for key in ("pairs", "judged", "changed")]], 0)]


def _licenses(told: Facts) -> Parts:
    rows = [
        (row["source"], row["license"], f"{row['questions']:,}", f"{row['llm_written']:,}")
        for row in told.get("licenses", ())
    ]
    if rows:
        head = ["source", "licence", "questions", "written by a model"]
        yield "Licences", [Table(head, rows, 2)]
