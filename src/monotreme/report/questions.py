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
    blocks: list[Any] = [Table(head, rows)]
    blocks += [Table(["stage", "reason", "dropped"], why, 2)] if why else []
    blocks += [f"Warning: {loss}." for one in told["stages"].values() for loss in one["facts"].get("heavy_losses", ())]  # fmt: skip
    yield "From what was read to what was kept", blocks
    if "curate" in told["stages"]:
        yield "What the exclusion guarantees", list(_guarantees(told["stages"]["curate"]["facts"]))


def _funnel(name: str, stages: Sequence[Mapping[str, Any] | None]) -> list[str]:
    read = f"{stages[0]['read']:,}" if stages[0] else ""
    return [name, read, *(f"{one['kept']:,}" if one else "" for one in stages)]


GUARANTEES = {
    "pairs_over_threshold_among_kept": "unprotected pairs over the threshold among the kept",
    "protected_pairs": "protected pairs over the threshold, of which both are kept",
    "dropped_without_kept_neighbour": "dropped without a kept neighbour",
    "dropped_although_more_verbose": "dropped although more verbose than its twin",
    "dropped_with_another_final_answer": "dropped although its final answer is another",
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
    rows += _recall(facts.get("join", {}))
    if rows:
        yield "Counted after the work was done, over all questions."
        yield Table(["what", "found"], rows)


def _recall(join: Facts) -> list[tuple[str, str]]:
    """What share of the near pairs was found, where not all pairs were compared."""
    if "recall_share" not in join:
        return []
    share, low, high = (f"{join[f'recall_{key}']:.4f}" for key in ("share", "low", "high"))
    drawn = f"{join['recall_num_pairs']:,} pairs of {join['recall_num_texts']:,} questions drawn"
    return [
        ("lists in which pairs were looked for", f"{join['lists']:,}"),
        ("lists a question is in", f"{join['lists_a_row']:,}"),
        (f"share of near pairs that was found, over {drawn}", f"{share} ({low} to {high})"),
    ]


KINDS: dict[
    str, tuple[str, ...]
] = {  # of pairs: under the threshold, over it, and over it but kept apart
    "curate": ("under the threshold", "at least one yields", "both stay: protected"),
    "decontaminate": ("judged where words agree", "judged"),
}


def _similarity(told: Facts) -> Parts:
    titles = {"curate": "Similar questions", "decontaminate": "Similar benchmark questions"}
    said = {
        "curate": "Of two over the threshold one yields, unless the recipe protects them; those under it stay.",
        "decontaminate": "Those over the threshold are judged, and so are those under it that share their words.",
    }  # fmt: skip
    for stage in reversed(QUESTIONS):
        found = told["similarity"].get(stage)
        if not found or not found["bars"]:
            continue
        bars = [(bar["low"], bar["high"], bar["pairs"]) for bar in found["bars"]]
        apart = [bar["protected"] for bar in found["bars"]]
        names, head = KINDS[stage], ["from", "to", "pairs", "of them protected"]
        if not any(apart):
            names, head, apart = names[:2], head[:3], []
        axes = ("cosine similarity", "pairs")
        svg = histogram(titles[stage], *axes, bars, found["threshold"], names, apart)
        cells = [[f"{low:.2f}", f"{high:.2f}", f"{num:,}"] for low, high, num in bars]
        for row, num in zip(cells, apart, strict=False):
            row.append(f"{num:,}")
        words = f"Pairs by similarity. {said[stage]}"
        yield titles[stage], [words, Figure(svg), Table(head, cells, 0, folded="The numbers")]


def _examples(told: Facts) -> Parts:
    titles = {"dropped": "What was dropped, beside its twin", "leaked": "Leaks, beside their twin"}
    for what, rows in told["examples"].items():
        cells = [(_which(row), row["dropped"], row["because"]) for row in rows]
        if cells:
            words = "Of each source and reason the one least like what it yields to, the most doubtful first. A long list is cut."
            yield titles[what], [words, Table(["which", "dropped", "because of"], cells, 3, True)]


def _words(code: str) -> str:
    return code.replace("_", " ")


NAMES = [_words(verdict) for verdict in VERDICTS]


def _which(row: Facts) -> str:
    """Source, verdict, whose verdict it is or why, and similarity, a line each."""
    why = row["reason"]
    if row["reviewers"]:
        why = f"said by {', '.join(row['reviewers'])}; proposed: {row['proposed']}"
    similarity = "" if row["similarity"] is None else f"{row['similarity']:.3f}"
    return "\n".join(filter(None, (row["source"], row["verdict"], why, similarity)))


def _leaks(told: Facts) -> Parts:
    if "leaks" not in told:
        return
    leaks = told["leaks"]
    checked = [
        (one["id"], one["split"], one["license"], f"{one['num_questions']:,}")
        for one in leaks["benchmarks"]
    ]
    rates = [
        (row["source"], f"{row['read']:,}", f"{row['leaked']:,}", share(row["rate"]), shares(row["interval"]))
        for row in leaks["rates"]
    ]  # fmt: skip
    blocks: list[Any] = [
        "Questions over the threshold, or word for word, like a benchmark's; each counts once for a "
        "benchmark, by its gravest verdict. In brackets the 95 % interval of the share of what was "
        "read.",
        Table(["source", "benchmark", *NAMES], [_matrix_row(row) for row in leaks["table"]], 2),
        *_review(leaks),
        *_judge(told["stages"]["decontaminate"]["facts"].get("llm_judge")),
        f"Dropped: {' and '.join(map(_words, leaks['drop'])) or 'none'}. With 95 % intervals:",
        Table(["source", "read", "leaked", "share", "95 % interval"], rates),
        "Checked against:",
        Table(["benchmark", "split", "licence", "questions"], checked, 3),
        *_self_test(told["self_test"]),
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
    head = ["benchmark", "split", "other split", *NAMES]
    return ["Questions of a benchmark that another of its splits holds too:", Table(head, cells, 3)]


def _matrix_row(row: Facts) -> list[str]:
    cells = [f"{row[verdict]:,}" for verdict in VERDICTS]
    if "intervals" in row:
        spans = (shares(row["intervals"][verdict]) for verdict in VERDICTS)
        cells = [f"{cell} ({span})" for cell, span in zip(cells, spans, strict=True)]
    return [row["source"], row["benchmark"], *cells]


def _review(leaks: Facts) -> Iterator[str | Table]:
    """What triage proposed beside what people said."""
    review = leaks["review"]
    if not review["judged"]:
        yield f"No person has judged any of the {review['pairs']:,} pairs: the verdicts are as proposed."
        return
    yield (
        f"People judged {review['judged']:,} of the {review['pairs']:,} pairs "
        f"({', '.join(review['reviewers'])}) and changed {review['changed']:,} verdicts. "
        "Pairs by the verdict that was proposed and the one that they gave:"
    )
    said = [
        (_words(row["proposed"]), *(f"{row['judged'][verdict]:,}" for verdict in VERDICTS))
        for row in review.get("verdicts", ())
    ]
    yield Table(["proposed", *(f"judged {name}" for name in NAMES)], said)
    before = [
        (
            row["source"],
            row["benchmark"],
            *(f"{row['proposed'][verdict]:,}" for verdict in VERDICTS),
        )
        for row in leaks["table"]
    ]
    yield "Questions as the first table would count them by the proposed verdicts:"
    yield Table(["source", "benchmark", *NAMES], before, 2)


JUDGE = {
    "undecided": "pairs that triage left undecided",
    "asked": "of them it was asked about",
    "llm_judged": "it decided",
    "llm_disagrees": "its two answers disagreed: gray area",
    "llm_failed": "it gave no usable answer: gray area",
}


def _judge(asked: Facts | None) -> list[str | Table]:
    if not asked:
        return []
    rows = [(words, f"{asked[key]:,}") for key, words in JUDGE.items() if key in asked]
    return [f"Undecided pairs went to the language model {asked['model']}:", Table(["what", "pairs"], rows)]  # fmt: skip


def _self_test(found: Sequence[Facts]) -> list[str | Table]:
    """How many planted copies the same check took for leaks."""
    rows = [
        (row["benchmark"], _words(row["kind"]), "yes" if row["is_leak"] else "no", f"{row['planted']:,}", f"{row['caught']:,}", shares(row["interval"]))
        for row in found
    ]  # fmt: skip
    head = ["benchmark", "copies, altered", "is a leak", "planted", "taken for a leak", "95 % interval of the share"]  # fmt: skip
    words = "How well this check works: copies of the benchmark's questions, altered in known ways, went the same way as the questions."
    return [words, Table(head, rows, 3)] if rows else []


def _licenses(told: Facts) -> Parts:
    rows = [
        (row["source"], row["license"], "permitted" if row["commercial"] else "not known to be permitted", f"{row['questions']:,}", f"{row['llm_written']:,}")
        for row in told.get("licenses", ())
    ]  # fmt: skip
    if rows:
        head = ["source", "licence", "commercial use", "questions", "written by a model"]
        yield "Licences", [Table(head, rows, 3)]
