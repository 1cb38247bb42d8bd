"""Stage 2: questions × benchmarks → every pair over the threshold, its verdict, what is dropped.

All pairs are looked at, never only the most similar one; a benchmark question is compared as its
stem alone, with its options and with its passage, and the highest similarity counts. Leaves
questions.parquet (clean), leaked.parquet (dropped, with evidence), pairs.parquet (every pair) and
leaks.json (the table source × benchmark × verdict).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from monotreme.benchmarks import Benchmark, benchmark_of, read_benchmark
from monotreme.embed import Encoder, embed, encoder_identity, find_encoder
from monotreme.errors import InputError
from monotreme.neighbors import pairs_between
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
from monotreme.storage import sha256
from monotreme.triage import background, triage

EVIDENCE = (
    ("verdict", pa.string()), ("reason", pa.string()), ("confidence", pa.float64()),
    ("similarity", pa.float64()), ("view", pa.string()), ("benchmark", pa.string()),
    ("benchmark_id", pa.string()), ("benchmark_text", pa.string()), ("benchmark_answer", pa.string()),
)  # fmt: skip
PAIR_SCHEMA = pa.schema([("id", pa.string()), ("source", pa.string()), *EVIDENCE])
LEAKED_SCHEMA = pa.schema([*QUESTION_SCHEMA, *(pa.field(*column) for column in EVIDENCE)])


@dataclass(frozen=True, slots=True)
class Match:
    """A pair over the threshold: a question, a benchmark question, how alike, and the verdict."""

    question: Question
    benchmark: BenchmarkQuestion
    similarity: float
    view: str
    judgement: Judgement

    @property
    def evidence(self) -> dict[str, Any]:
        return {
            **asdict(self.judgement),
            "similarity": self.similarity,
            "view": self.view,
            "benchmark": self.benchmark.benchmark,
            "benchmark_id": self.benchmark.id,
            "benchmark_text": views(self.benchmark)[self.view],
            "benchmark_answer": " | ".join(self.benchmark.answers),
        }

    @property
    def gravity(self) -> tuple[int, float, float]:
        """Sorts the gravest first."""
        grave = VERDICTS.index(self.judgement.verdict)
        return (grave, -self.judgement.confidence, -self.similarity)


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
) -> dict[tuple[int, int], tuple[float, str]]:
    """(question, benchmark question) rows over the threshold → (highest similarity, its view)."""
    questions_ND = embed([q.text for q in questions], encoder, cache)
    best: dict[tuple[int, int], tuple[float, str]] = {}
    for view in ("stem", "stem and options", "passage and stem"):
        rows = [row for row, b in enumerate(benchmark) if view in views(b)]
        views_MD = embed([views(benchmark[row])[view] for row in rows], encoder, cache)
        for i, j, similarity in zip(*pairs_between(questions_ND, views_MD, threshold), strict=True):
            key = (int(i), rows[j])
            best[key] = max(best.get(key, (0.0, "")), (float(similarity), view))
    return dict(sorted(best.items()))


def judge(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    pairs: dict[tuple[int, int], tuple[float, str]],
) -> list[Match]:
    """Triage every pair, in the pairs' order."""
    known = background(benchmark)
    matches = []
    with progress("Judging pairs", len(pairs)) as done:
        for (i, j), (similarity, view) in pairs.items():
            judgement = triage(questions[i], benchmark[j], known)
            matches.append(Match(questions[i], benchmark[j], similarity, view, judgement))
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
        "encoder": encoder_identity(*_encoder(run)),
    }
    for ref in run.recipe.decontaminate.benchmarks:
        name = benchmark_of(ref).name
        digests[f"benchmarks/{ref.id}"] = run.dataset_digest(ref.path, name, ref.revision)
    return digests


def _encoder(run: Run) -> tuple[str, Path, Callable[[str], str]]:
    name = run.recipe.curate.encoder
    return name, run.locate(name), lambda hub: run.pin("model", hub, None)


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
        encoder = find_encoder(*_encoder(run))
        pairs = similar_pairs(questions, items, encoder, table.threshold, run.cache("embeddings"))
        matches = judge(questions, items, pairs)
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
        work.facts = {"pairs": len(matches), "benchmark_questions": len(items)}
