"""The benchmarks: whether a question is left whose verdict the policy drops.

The very functions of decontaminate look again. Benchmarks that can be read are looked at together,
since what many of their questions share counts as a template.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monotreme import verdicts
from monotreme.benchmarks import benchmark_of, read_benchmark
from monotreme.decontaminate.finding import VERBATIM, similar_pairs
from monotreme.decontaminate.judging import Match, judge
from monotreme.encoders import Encoder
from monotreme.errors import InputError, RecipeError, RefusedError, RemoteError
from monotreme.recipe import Decontaminate
from monotreme.records import BenchmarkQuestion, Question, digest
from monotreme.release.record import BenchmarkClaim, FolderRecord, VerbatimClaim
from monotreme.verbatim import RUN
from monotreme.verify.check import Check, left_open
from monotreme.verify.origins import commit_of, here
from monotreme.verify.questions import ROUNDING, Sample


class Setting(NamedTuple):
    """What the questions are looked at with.

    Attributes:
        given: benchmark id → file or folder that the user names.
        settled: verdicts that came with the questions.
        encoder: gives it, or raises RefusedError or RemoteError.
        cache: folder for vectors.
    """

    folder: Path
    record: FolderRecord
    recipe: Decontaminate
    given: Mapping[str, Path]
    settled: Mapping[verdicts.Pair, verdicts.Settled]
    encoder: Callable[[], Encoder]
    cache: Path


def check_leaks(questions: Sequence[Question], sample: Sample, setting: Setting) -> list[Check]:
    """A check a recorded benchmark: the sampled questions against all of its own."""
    claims = setting.record.decontaminate.benchmarks
    if setting.record.decontaminate.verbatim != VerbatimClaim(share=VERBATIM, run=RUN):
        why = f"copies word for word are found otherwise here (share {VERBATIM}, run {RUN})"
        return [left_open(_name(claim), why) for claim in claims]
    items: dict[str, list[BenchmarkQuestion]] = {}
    checks: dict[str, Check] = {}
    for claim in claims:
        try:
            items[claim.id] = _read(claim, setting)
        except (InputError, RecipeError, RemoteError) as error:
            checks[claim.id] = left_open(_name(claim), error.problem)
    every = [item for found in items.values() for item in found]
    try:
        matches = _matches([questions[i] for i in sample.rows], every, setting) if every else []
    except (RefusedError, RemoteError) as error:
        return [left_open(_name(claim), error.problem) for claim in claims]
    for claim in claims:
        if claim.id in items:
            mine = [match for match in matches if match.benchmark.benchmark == claim.id]
            checks[claim.id] = _check(claim, mine, setting.recipe.drop, sample)
    return [checks[claim.id] for claim in claims]


def _name(claim: BenchmarkClaim) -> str:
    return f"leaks of {claim.id}"


def _read(claim: BenchmarkClaim, setting: Setting) -> list[BenchmarkQuestion]:
    """The questions that were checked.

    Raises:
        InputError, RecipeError, RemoteError: they cannot be had, or are others by now.
    """
    ref = next((ref for ref in setting.recipe.benchmarks if ref.id == claim.id), None)
    if ref is None:
        raise RecipeError(f"recipe.yaml does not name {claim.id}", "Get the folder again")
    benchmark = benchmark_of(ref)
    path, commit = setting.given.get(claim.id), None
    if path is None and ref.path is not None:
        path = here(ref.path, setting.folder)
        if path is None:
            problem = f"{ref.path} is a local file of its maker's"
            raise InputError(problem, f"Give it with --benchmark {claim.id}=PATH")
    if path is None:
        origin = setting.record.origins.get(f"benchmarks/{claim.id}", "")
        commit = commit_of(origin, benchmark.name)
    items = read_benchmark(benchmark, benchmark.split, path, commit)
    if digest(*(item.id for item in items)) != claim.questions_digest:
        problem = (
            f"the {len(items):,} questions of {path or benchmark.name} are not the recorded ones"
        )
        raise InputError(problem, f"Give the right file with --benchmark {claim.id}=PATH")
    return items


def _matches(
    questions: Sequence[Question], items: Sequence[BenchmarkQuestion], setting: Setting
) -> Sequence[Match]:
    threshold = setting.recipe.threshold
    pairs, _ = similar_pairs(questions, items, setting.encoder(), threshold, setting.cache)
    near = {
        key: one
        for key, one in pairs.items()
        if one.verbatim or one.similarity > threshold + ROUNDING
    }
    return judge(questions, items, near, threshold, setting.cache, setting.settled)


def _check(
    claim: BenchmarkClaim, matches: Sequence[Match], drop: Sequence[str], sample: Sample
) -> Check:
    leaks = [match for match in matches if match.verdict in drop]
    spared = sum(m.verdict not in drop and m.proposed.verdict in drop for m in matches)
    num = len({match.question.id for match in leaks})
    what = f"a pair that is {' or '.join(drop)}" if drop else "a pair that is dropped"
    detail = (
        f"{sample.says(what, num)}; "
        f"{claim.num_questions:,} questions of {claim.split}; "
        f"{spared:,} pairs kept by {verdicts.FILE} alone"
    )
    return Check(_name(claim), "failed" if leaks else "ok", detail, tuple(map(_evidence, leaks)))


def _evidence(match: Match) -> dict[str, Any]:
    return {
        "question": match.question.id,
        "benchmark_question": match.benchmark.id,
        "verdict": match.verdict,
        "reason": match.proposed.reason,
        "similarity": round(match.likeness.similarity, 6),
        "verbatim": round(match.likeness.verbatim, 6),
    }
