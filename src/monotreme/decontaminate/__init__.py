"""Stage 2: questions × benchmarks → every pair over the threshold, its verdict, what is dropped.

All pairs are looked at, never only the most similar one (finding.py, views.py). Triage proposes a
verdict (judging.py), people's verdicts go before it (verdicts.jsonl of the run). Leaves
questions.parquet (clean), leaked.parquet (dropped, with evidence), pairs.parquet (every pair),
splits.parquet (the same between the splits of a benchmark) and leaks.json (the figures, leaks.py).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from monotreme import verdicts
from monotreme.benchmarks import Benchmark, benchmark_of, read_benchmark
from monotreme.decontaminate.finding import VERBATIM, similar_pairs
from monotreme.decontaminate.judging import (
    EVIDENCE,
    Match,
    Matches,
    ask_about_undecided,
    gravest,
    judge,
)
from monotreme.decontaminate.leaks import leak_table, leaked_ids, rates, review
from monotreme.decontaminate.splits import split_matches, split_row
from monotreme.encoders import Encoder, encoder_identity, find_encoder
from monotreme.errors import InputError
from monotreme.llm_judge import find_service
from monotreme.mapped import BATCH_ROWS, MappedQuestions, open_questions
from monotreme.recipe import BenchmarkRef
from monotreme.records import (
    QUESTION_SCHEMA,
    BenchmarkQuestion,
    Counts,
    digest,
    question_row,
)
from monotreme.run import Run
from monotreme.storage import sha256
from monotreme.verbatim import RUN

PAIR_SCHEMA = pa.schema([("id", pa.string()), ("source", pa.string()), *EVIDENCE])
LEAKED_SCHEMA = pa.schema([*QUESTION_SCHEMA, *(pa.field(*column) for column in EVIDENCE)])


class Scored(NamedTuple):
    """A benchmark with the questions of its scored split."""

    benchmark: Benchmark
    ref: BenchmarkRef
    items: list[BenchmarkQuestion]


def against(run: Run) -> dict[str, str]:
    """What questions are compared with: digests of encoder and benchmarks."""
    digests = {"encoder": encoder_identity(*run.encoder())}
    for ref in run.recipe.decontaminate.benchmarks:
        name = benchmark_of(ref).name
        digests[f"benchmarks/{ref.id}"] = run.dataset_digest(ref.path, name, ref.revision)
    return digests


def inputs(run: Run) -> dict[str, str]:
    """Digests of the curated questions, of what they are compared with and of people's verdicts."""
    questions = sha256(run.output("curate", "questions.parquet"))
    digests = {"curate/questions.parquet": questions, **against(run)}
    settled = _settled(run)
    if settled:
        digests[verdicts.FILE] = digest(json.dumps(sorted(settled.items())))
    return digests


def _settled(run: Run) -> dict[verdicts.Pair, verdicts.Settled]:
    """What people said of the run's pairs."""
    return verdicts.settle(verdicts.read(run.folder / verdicts.FILE))


def read_scored(run: Run, ref: BenchmarkRef) -> Scored:
    """A benchmark of the recipe.

    Raises:
        InputError, RemoteError: it cannot be read.
    """
    benchmark = benchmark_of(ref)
    path, revision = run.dataset(ref.path, benchmark.name, ref.revision)
    return Scored(benchmark, ref, read_benchmark(benchmark, benchmark.split, path, revision))


def execute(run: Run) -> None:
    """Check every question against every benchmark, and drop by the recipe's policy.

    Raises:
        InputError: a benchmark cannot be read, or nothing is left.
    """
    table = run.recipe.decontaminate
    service = find_service(table.judge) if table.judge else None
    with run.stage("decontaminate", inputs(run)) as work:
        path = run.output("curate", "questions.parquet")
        questions = open_questions(path, run.cache("rows"))
        scored = [read_scored(run, ref) for ref in table.benchmarks]
        items = [item for one in scored for item in one.items]
        encoder, cache = find_encoder(*run.encoder()), run.cache("embeddings")
        pairs, precision = similar_pairs(
            questions, items, encoder, table.threshold, cache, run.engine
        )
        matches = judge(questions, items, pairs, table.threshold, cache, _settled(run), run.engine)
        asked: dict[str, Any] | None = None
        if service:
            matches, asked = ask_about_undecided(matches, service, run.cache("llm_judge"))
        leaked, kept = _drop(questions, matches, table.drop)
        splits = [found for one in scored for found in _between_splits(run, one, encoder)]
        work.tables("questions.parquet", QUESTION_SCHEMA, questions.tables(kept))
        work.tables("leaked.parquet", LEAKED_SCHEMA, _leaked_tables(leaked))
        work.tables("pairs.parquet", PAIR_SCHEMA, _pair_tables(matches))
        of_splits = chain.from_iterable(found for *_, found in splits)
        work.tables("splits.parquet", PAIR_SCHEMA, _pair_tables(of_splits))
        work.counts = Counts.tally(
            questions.column("source")[kept], ((m.question.source, m.verdict) for m in leaked)
        )
        summary = _summary(run, scored, matches, leaked, work.counts)
        summary["between_splits"] = [split_row(*found) for found in splits]
        work.json("leaks.json", summary)
        work.facts = {
            "pairs": len(matches),
            "benchmark_questions": len(items),
            "similarity": asdict(precision),
            "verbatim": {"share": VERBATIM, "run": RUN},
            "llm_judge": asked,
        }


class Leaked:
    """The gravest match of each question that goes, by its id; read as often as wanted."""

    def __init__(self, matches: Matches, places: Sequence[int]) -> None:
        self._matches, self._places = matches, places

    def __iter__(self) -> Iterator[Match]:
        return (self._matches[place] for place in self._places)


def _drop(
    questions: MappedQuestions, matches: Matches, drop: Sequence[str]
) -> tuple[Leaked, np.ndarray]:
    """The gravest match of each question that goes, and the rows that stay."""
    worst = sorted(gravest(matches).items())
    gone = {name: place for name, place in worst if matches[place].verdict in drop}
    kept = np.flatnonzero([name not in gone for name in questions.column("id")])
    if not len(kept):
        raise InputError(
            "decontaminate: no question is left", "Drop fewer verdicts, or check the benchmarks"
        )
    return Leaked(matches, list(gone.values())), kept


def _leaked_tables(leaked: Leaked) -> Iterator[pa.Table]:
    rows = ({**question_row(m.question), **m.evidence} for m in leaked)
    return _tables(rows, LEAKED_SCHEMA)


def _pair_tables(matches: Iterable[Match]) -> Iterator[pa.Table]:
    rows = ({"id": m.question.id, "source": m.question.source, **m.evidence} for m in matches)
    return _tables(rows, PAIR_SCHEMA)


def _tables(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Some thousands of rows at a time."""
    while part := list(islice(rows, BATCH_ROWS)):
        yield pa.Table.from_pylist(part, schema)


def _between_splits(
    run: Run, one: Scored, encoder: Encoder
) -> list[tuple[Benchmark, str, Matches]]:
    where = run.dataset(one.ref.path, one.benchmark.name, one.ref.revision)
    threshold, cache = run.recipe.decontaminate.threshold, run.cache("embeddings")
    found = split_matches(one.benchmark, one.items, where, encoder, threshold, cache)
    return [(one.benchmark, split, matches) for split, matches in found]


def _summary(
    run: Run, scored: Sequence[Scored], matches: Matches, leaked: Leaked, counts: Counts
) -> dict[str, Any]:
    table = run.recipe.decontaminate
    sources = [ref.id for ref in run.recipe.curate.sources]
    gone = Counter(match.question.source for match in leaked)
    read = {source: num["read"] for source, num in counts.by_source.items()}
    return {
        "threshold": table.threshold,
        "drop": list(table.drop),
        "encoder": run.recipe.curate.encoder,
        "benchmarks": [
            {
                "id": b.id,
                "split": b.split,
                "license": b.license,
                "num_questions": len(items),
                "questions_digest": digest(*(item.id for item in items)),
            }
            for b, _, items in scored
        ],
        "table": leak_table(matches, {s: read[s] for s in sources if s in read}),
        "dropped_by_source": {source: gone[source] for source in sources},
        "rates": rates(read, gone, sources),
        "review": review(matches),
        "leaked_benchmark_ids": leaked_ids(matches, table.drop),
    }
