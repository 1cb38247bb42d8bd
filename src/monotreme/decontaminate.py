"""Stage 2: questions × benchmarks → every pair over the threshold, its verdict, what is dropped.

All pairs are looked at, never only the most similar one; a benchmark question is compared as its
stem alone, with its options and with its passage, and the highest similarity counts. What stands
word for word inside a long text is found by its words (verbatim.py). Leaves
questions.parquet (clean), leaked.parquet (dropped, with evidence), pairs.parquet (every pair) and
leaks.json (the table source × benchmark × verdict).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from monotreme.benchmarks import Benchmark, benchmark_of, read_benchmark
from monotreme.encoders import Encoder, encoder_identity, find_encoder
from monotreme.errors import InputError
from monotreme.progress import progress
from monotreme.recipe import BenchmarkRef
from monotreme.records import (
    QUESTION_SCHEMA,
    VERDICTS,
    BenchmarkQuestion,
    Counts,
    Judgement,
    Question,
    Verdict,
    question_row,
    question_table,
    read_questions,
)
from monotreme.run import Run
from monotreme.similar import Precision, Texts, similar_between, similarity_of
from monotreme.storage import sha256
from monotreme.triage import CERTAIN, background, triage
from monotreme.verbatim import RUN, find_verbatim
from monotreme.wording import words

VERBATIM = 0.8  # share of a stem's runs of words; one changed word in forty costs a quarter of them
EVIDENCE = (
    ("verdict", pa.string()), ("reason", pa.string()), ("confidence", pa.float64()),
    ("similarity", pa.float64()), ("view", pa.string()), ("verbatim", pa.float64()),
    ("benchmark", pa.string()),
    ("benchmark_id", pa.string()), ("benchmark_text", pa.string()), ("benchmark_answer", pa.string()),
)  # fmt: skip
PAIR_SCHEMA = pa.schema([("id", pa.string()), ("source", pa.string()), *EVIDENCE])
LEAKED_SCHEMA = pa.schema([*QUESTION_SCHEMA, *(pa.field(*column) for column in EVIDENCE)])


class Likeness(NamedTuple):
    """How alike a question and a benchmark question are.

    Attributes:
        similarity: the highest cosine of any view of the benchmark question.
        view: which one that is.
        verbatim: share of the stem that stands word for word in question or answer, as far as
            looked for: 0 where less than `VERBATIM`.
    """

    similarity: float
    view: str
    verbatim: float = 0.0


@dataclass(frozen=True, slots=True)
class Match:
    """A pair that was judged: a question, a benchmark question, how alike, and the verdict."""

    question: Question
    benchmark: BenchmarkQuestion
    likeness: Likeness
    judgement: Judgement

    @property
    def evidence(self) -> dict[str, Any]:
        return {
            **asdict(self.judgement),
            **self.likeness._asdict(),
            "benchmark": self.benchmark.benchmark,
            "benchmark_id": self.benchmark.id,
            "benchmark_text": views(self.benchmark)[self.likeness.view],
            "benchmark_answer": " | ".join(self.benchmark.answers),
        }

    @property
    def gravity(self) -> tuple[int, float, float]:
        """Sorts the gravest first."""
        grave = VERDICTS.index(self.judgement.verdict)
        return (grave, -self.judgement.confidence, -self.likeness.similarity)


def views(question: BenchmarkQuestion) -> dict[str, str]:
    """The texts as which a benchmark question may have leaked, by name; the stem is always one.

    Options dilute the cosine of a copied stem, and a stem alone may say nothing without them.
    """
    texts = {"stem": question.stem}
    if question.options:
        texts["stem and options"] = "\n".join((question.stem, *question.options))
    if question.passage:
        texts["passage and stem"] = f"{question.passage}\n{question.stem}"
    return texts


def similar_pairs(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    encoder: Encoder,
    threshold: float,
    cache: Path,
) -> tuple[dict[tuple[int, int], Likeness], Precision]:
    """(question, benchmark question) rows over the threshold or holding a copy → how alike."""
    shown = [(row, *view) for row, item in enumerate(benchmark) for view in views(item).items()]
    ours = Texts([question.text for question in questions], encoder, cache)
    theirs = Texts([text for _, _, text in shown], encoder, cache)
    pairs, precision = similar_between(ours, theirs, threshold)
    best: dict[tuple[int, int], Likeness] = {}
    for i, j, similarity in zip(*pairs, strict=True):
        row, view, _ = shown[j]
        key = (int(i), row)
        best[key] = max(best.get(key, Likeness(0.0, "")), Likeness(float(similarity), view))
    copies = verbatim_pairs(questions, benchmark)
    missed = sorted(copies.keys() - best.keys())
    rows = np.array(missed, np.int64).reshape(-1, 2)
    stems = Texts([item.stem for item in benchmark], encoder, cache)
    cosines = similarity_of(ours, stems, rows[:, 0], rows[:, 1])
    best |= {
        key: Likeness(float(cosine), "stem") for key, cosine in zip(missed, cosines, strict=True)
    }
    found = {key: best[key]._replace(verbatim=copies.get(key, 0.0)) for key in sorted(best)}
    return found, precision


def verbatim_pairs(
    questions: Sequence[Question], benchmark: Sequence[BenchmarkQuestion]
) -> dict[tuple[int, int], float]:
    """(question, benchmark question) rows → share of the stem in question or answer, if most of it.

    A stem of a few words is common property ("Which statement is true?"): it must come with its
    options.
    """
    texts = [words(f"{q.text}\n\n{q.output}") for q in questions]
    stems = [words(item.stem) for item in benchmark]
    return {
        (text, stem): share
        for text, stem, share in find_verbatim(texts, stems, VERBATIM)
        if len(stems[stem]) >= RUN or _holds_options(texts[text], benchmark[stem])
    }


def _holds_options(text: Sequence[str], item: BenchmarkQuestion) -> bool:
    whole = f" {' '.join(text)} "
    return bool(item.options) and all(f" {' '.join(words(o))} " in whole for o in item.options)


def judge(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    pairs: dict[tuple[int, int], Likeness],
    threshold: float,
) -> list[Match]:
    """Triage every pair, in the pairs' order.

    A whole stem within a text that is otherwise unlike it (under the threshold) is a copy: what
    else the text says, triage would take for differences.
    """
    known = background(benchmark)
    matches = []
    with progress("Judging pairs", len(pairs)) as done:
        for (i, j), likeness in pairs.items():
            judgement = triage(questions[i], benchmark[j], known)
            if likeness.verbatim == 1 and likeness.similarity <= threshold:
                judgement = Judgement("duplicate", "contains_text", CERTAIN["contains_text"])
            matches.append(Match(questions[i], benchmark[j], likeness, judgement))
            done(1)
    return matches


def gravest(matches: Iterable[Match]) -> dict[str, Match]:
    """Question id → its gravest match."""
    worst: dict[str, Match] = {}
    for match in matches:
        held = worst.get(match.question.id)
        if held is None or match.gravity < held.gravity:
            worst[match.question.id] = match
    return worst


def leak_table(matches: Iterable[Match], sources: Sequence[str]) -> list[dict[str, Any]]:
    """Distinct questions by source, benchmark and gravest verdict towards that benchmark."""
    by_benchmark: dict[str, list[Match]] = defaultdict(list)
    for match in matches:
        by_benchmark[match.benchmark.benchmark].append(match)
    table = []
    for benchmark, found in sorted(by_benchmark.items()):
        worst = gravest(found).values()
        for source in sources:
            verdicts = [m.judgement.verdict for m in worst if m.question.source == source]
            if verdicts:
                counts: dict[str, int] = {v: verdicts.count(v) for v in VERDICTS}
                table.append({"source": source, "benchmark": benchmark, **counts})
    return table


# ── the stage ───────────────────────────────────────────────────────────────────────────────────


def inputs(run: Run) -> dict[str, str]:
    """Digests of the curated questions and of each benchmark, and the encoder."""
    digests = {
        "curate/questions.parquet": sha256(run.output("curate", "questions.parquet")),
        "encoder": encoder_identity(*run.encoder()),
    }
    for ref in run.recipe.decontaminate.benchmarks:
        name = benchmark_of(ref).name
        digests[f"benchmarks/{ref.id}"] = run.dataset_digest(ref.path, name, ref.revision)
    return digests


def _read(run: Run, ref: BenchmarkRef) -> tuple[Benchmark, list[BenchmarkQuestion]]:
    benchmark = benchmark_of(ref)
    path, revision = run.dataset(ref.path, benchmark.name, ref.revision)
    return benchmark, read_benchmark(benchmark, benchmark.split, path, revision)


def _summary(
    run: Run, benchmarks: Sequence[tuple[Benchmark, int]], matches: list[Match], leaked: list[Match]
) -> dict[str, Any]:
    table = run.recipe.decontaminate
    sources = [ref.id for ref in run.recipe.curate.sources]
    gone = [match.question.source for match in leaked]
    ids: dict[str, set[str]] = defaultdict(set)
    for match in matches:
        if match.judgement.verdict in table.drop:
            ids[match.benchmark.benchmark].add(match.benchmark.id)
    return {
        "threshold": table.threshold,
        "drop": list(table.drop),
        "encoder": run.recipe.curate.encoder,
        "benchmarks": [
            {"id": b.id, "split": b.split, "license": b.license, "num_questions": num}
            for b, num in benchmarks
        ],
        "table": leak_table(matches, sources),
        "dropped_by_source": {source: gone.count(source) for source in sources},
        "leaked_benchmark_ids": {name: sorted(found) for name, found in sorted(ids.items())},
    }


def execute(run: Run) -> None:
    """Check every question against every benchmark, and drop by the recipe's policy.

    Raises:
        InputError: a benchmark cannot be read, or nothing is left.
    """
    table = run.recipe.decontaminate
    with run.stage("decontaminate", inputs(run)) as work:
        questions = read_questions(run.output("curate", "questions.parquet"))
        read = [_read(run, ref) for ref in table.benchmarks]
        items = [item for _, found in read for item in found]
        encoder, cache = find_encoder(*run.encoder()), run.cache("embeddings")
        pairs, precision = similar_pairs(questions, items, encoder, table.threshold, cache)
        matches = judge(questions, items, pairs, table.threshold)
        worst = gravest(matches)
        drop: set[Verdict] = set(table.drop)
        leaked = [m for _, m in sorted(worst.items()) if m.judgement.verdict in drop]
        gone = {match.question.id for match in leaked}
        kept = [question for question in questions if question.id not in gone]
        if not kept:
            raise InputError(
                "decontaminate: no question is left", "Look at decontaminate/leaked.parquet"
            )
        work.table("questions.parquet", question_table(kept))
        rows = [{**question_row(m.question), **m.evidence} for m in leaked]
        work.table("leaked.parquet", pa.Table.from_pylist(rows, LEAKED_SCHEMA))
        rows = [{"id": m.question.id, "source": m.question.source, **m.evidence} for m in matches]
        work.table("pairs.parquet", pa.Table.from_pylist(rows, PAIR_SCHEMA))
        sizes = [(benchmark, len(found)) for benchmark, found in read]
        work.json("leaks.json", _summary(run, sizes, matches, leaked))
        work.counts = Counts.tally(
            (q.source for q in kept), ((m.question.source, m.judgement.verdict) for m in leaked)
        )
        work.facts = {
            "pairs": len(matches),
            "benchmark_questions": len(items),
            "similarity": asdict(precision),
        }
