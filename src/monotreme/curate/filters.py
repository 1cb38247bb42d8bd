"""What the recipe's switches leave out: licences, authorship, replaced problems, keywords."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from monotreme.keywords import has_keyword
from monotreme.licenses import COMMERCIAL, permits
from monotreme.recipe import Curate, SourceRef
from monotreme.records import Counts, Dropped, Question
from monotreme.sources import source_of
from monotreme.wording import normalize

HEAVY_LOSS = 0.8  # share of a source's rows: a larger loss is said aloud


def drop_unless(
    questions: Iterable[Question], keep: Callable[[Question], bool], reason: str, detail: str
) -> tuple[list[Question], list[Dropped]]:
    """Split questions by a rule."""
    kept, dropped = [], []
    for question in questions:
        if keep(question):
            kept.append(question)
        else:
            dropped.append(Dropped(question, reason, detail))
    return kept, dropped


def drop_unfree(
    questions: Sequence[Question], licenses: str | Collection[str]
) -> tuple[list[Question], list[Dropped]]:
    """Drop what the licences do not permit: `any`, `commercial`, or SPDX identifiers."""
    if licenses == "any":
        return list(questions), []
    allowed = COMMERCIAL if licenses == "commercial" else licenses
    permitted = {name: permits(name, allowed) for name in {q.license for q in questions}}
    kept = [question for question in questions if permitted[question.license]]
    dropped = [
        Dropped(question, "license", f"{question.license} is not among the licences allowed")
        for question in questions
        if not permitted[question.license]
    ]
    return kept, dropped


def drop_replaced(
    questions: Sequence[Question], better: str, worse: str
) -> tuple[list[Question], list[Dropped]]:
    """Drop questions of source `worse` that source `better` has too (PRM800K's MATH problems)."""
    there = {normalize(q.text): q.id for q in questions if q.source == better}
    kept, dropped = [], []
    for question in questions:
        twin = there.get(normalize(question.text)) if question.source == worse else None
        if twin is None:
            kept.append(question)
        else:
            dropped.append(Dropped(question, "replaced", f"{better} has this problem", twin, 1.0))
    return kept, dropped


def apply_switches(
    table: Curate, refs: Sequence[SourceRef], questions: list[Question]
) -> tuple[list[Question], list[Dropped]]:
    """Licences, authorship, replaced problems and the keyword search, by the recipe's switches."""
    questions, dropped = drop_unfree(questions, table.licenses)
    questions, gone = drop_unless(
        questions,
        lambda q: table.llm_written == "keep" or not q.llm_written,
        "llm_written",
        "a language model wrote the answer",
    )
    dropped += gone
    for ref in refs:
        worse = source_of(ref).replaces
        if worse:
            questions, gone = drop_replaced(questions, ref.id, worse)
            dropped += gone
    searched = {ref.id for ref in refs if source_of(ref).keywords}
    questions, gone = drop_unless(
        questions,
        lambda q: q.source not in searched or has_keyword(f"{q.text}\n{q.output}"),
        "no_keyword",
        "no STEM or logic keyword in question or answer",
    )
    return questions, dropped + gone


def heavy_losses(counts: Counts, dropped: Iterable[Dropped]) -> list[str]:
    """A line for each source that lost more than 80 % of its rows, with the commonest reason."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for row in dropped:
        reasons[row.question.source][row.reason] += 1
    lines = []
    for source, rows in counts.by_source.items():
        if rows["dropped"] > HEAVY_LOSS * rows["read"]:
            reason, num = reasons[source].most_common(1)[0]
            share = rows["dropped"] / rows["read"]
            lines.append(
                f"{source} lost {share:.0%} of its {rows['read']:,} rows, most of them ({num:,}) "
                f"as {reason}"
            )
    return lines
