"""The choice among candidates, on evidence: measured on benchmarks that nobody reports.

Every candidate is its target with all its adapters put on, no merge is written for it; those of one
target share one load. The best mean score wins. What cannot be told from the best (the 95 % interval of
the paired difference reaches zero) is level with it, and of those that are level the simplest is taken.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from monotreme.encoders import find_encoder
from monotreme.errors import InputError
from monotreme.merge.asked import Asked
from monotreme.records import digest, read_questions
from monotreme.rows import BadRow, read_file
from monotreme.run import Run
from monotreme.scoring.deltas import MEAN, delta_rows, score_rows
from monotreme.scoring.pieces import ask
from monotreme.scoring.results import Results, Row, results_of
from monotreme.scoring.sheets import Candidate
from monotreme.scoring.tasks import items_of, read_tasks, sheet_of
from monotreme.similar import Texts, similar_between
from monotreme.storage import sha256, storage_errors
from monotreme.work import StageWork

ALONE = " alone"  # after a target's name: the target without any adapter


def choose(run: Run, work: StageWork, candidates: Sequence[Asked]) -> Row:
    """Measure the candidates and leave candidates.parquet, choice.json and choice.md.

    Returns:
        What choice.json holds; `chosen` is the id.

    Raises:
        InputError, RecipeError, RemoteError: a model or a benchmark cannot be read.
    """
    tasks = read_tasks(run, run.recipe.merge.select)
    settings = run.recipe.evaluate
    with ExitStack() as stack:
        scored = list(_scored(candidates, work.folder / "parts", stack))
        found = ask(
            work,
            scored,
            list(map(sheet_of, tasks)),
            precision=settings.precision,
            batch_tokens=settings.batch_tokens,
            num_ranks=run.num_gpus,
        )
    items = pa.concat_tables(
        items_of(each.name, task, found[each.name, task.benchmark.id])
        for each in scored
        for task in tasks
    )
    choice = decide(results_of(items), candidates, run.recipe.seed)
    overlaps = {each.name: overlap(run, each) for each in candidates}
    for row in choice["candidates"]:
        row["overlap"] = overlaps[row["id"]]
    work.table("candidates.parquet", items)
    work.json("choice.json", choice)
    work.text("choice.md", markdown(choice))
    return choice


def _scored(asked: Sequence[Asked], where: Path, stack: ExitStack) -> Iterator[Candidate]:
    """Every target alone, as it is called then, and behind it the candidates that change it.

    Args:
        where: what is there only while the stack is open is made, for every process to find it.
    """
    with storage_errors(where):
        where.mkdir(parents=True, exist_ok=True)
    for target, alone in alone_names(asked).items():
        mine = [each for each in asked if each.target.folder == target]
        model, trust = sha256(target), mine[0].trust  # tokenizer and settings decide scores too
        yield Candidate(alone, target, None, model, trust)
        for each in mine:
            adapter = stack.enter_context(each.as_adapter(where))
            parts = [f"{sha256(folder)} {weight}" for folder, weight in each.adapters]
            yield Candidate(each.name, target, adapter, digest(model, *parts), trust)


def alone_names(candidates: Sequence[Asked]) -> dict[Path, str]:
    """What every target is called that has no adapter, by its folder; no two are called the same."""
    found: dict[Path, str] = {}
    for each in candidates:
        name = each.into.model.rstrip("/").rsplit("/", 1)[-1]
        name = f"{name} of {each.name}" if f"{name}{ALONE}" in found.values() else name
        found.setdefault(each.target.folder, f"{name}{ALONE}")
    return found


# ── the decision ─────────────────────────────────────────────────────────────────────────────────


def decide(results: Sequence[Results], candidates: Sequence[Asked], seed: int) -> Row:
    """The choice as plain JSON: a row a candidate, the chosen one's id, and the reason in words.

    Args:
        results: of every candidate, by its id, and of every target alone.
        seed: of the bootstrap.
    """
    means = {row["model"]: row for row in score_rows(results) if row["benchmark"] == MEAN}
    best = max(candidates, key=lambda each: means[each.name]["score"])  # the first of equals
    against_best = _against(results, best.name, seed)
    level = [
        each for each in candidates if each is best or against_best[each.name][MEAN]["high"] >= 0
    ]
    # of equally simple ones the better; of equals in that, too, the first
    chosen = min(level, key=lambda each: (simplicity(each), -means[each.name]["score"]))
    rows, names = [], alone_names(candidates)
    for each in candidates:
        alone = names[each.target.folder]
        gains = _against(results, alone, seed)[each.name]
        rows.append(
            {
                "id": each.name,
                "model": each.into.model,
                "adapters": [{"adapter": str(folder), "weight": w} for folder, w in each.adapters],
                **{key: means[each.name][key] for key in ("score", "stderr", "low", "high")},
                "gain": _difference(gains[MEAN]),
                "gain_by_domain": _domains(results, each.name, alone, seed),
                "against_best": None
                if each is best
                else _difference(against_best[each.name][MEAN]),
            }
        )
    reason = _reason(best, chosen, level)
    return {"candidates": rows, "best": best.name, "chosen": chosen.name, "reason": reason}


def simplicity(asked: Asked) -> tuple[int, bool, float]:
    """Smaller is simpler: fewer adapters, the base before another model, weights nearer to 1."""
    weights = sum(abs(weight - 1) for _, weight in asked.adapters)
    return len(asked.adapters), asked.into.model != "base", weights


def _against(results: Sequence[Results], base: str, seed: int) -> dict[str, dict[str, Row]]:
    """Model → benchmark → paired difference to one model; MEAN is over the benchmarks."""
    found: dict[str, dict[str, Row]] = {}
    for row in delta_rows(results, base, seed):
        found.setdefault(row["model"], {})[row["benchmark"]] = row
    return found


def _domains(results: Sequence[Results], name: str, base: str, seed: int) -> dict[str, Row]:
    """Differences of one model to another by benchmark, and by subject where there are several."""
    both = [result for result in results if result.model in (name, base)]
    parts = list(both)
    for result in both:
        subjects = dict(result.by_subject())
        if len(subjects) > 1:
            parts += [
                replace(own, benchmark=f"{result.benchmark}/{s}") for s, own in subjects.items()
            ]
    rows = _against(parts, base, seed)[name]
    return {domain: _difference(row) for domain, row in rows.items() if domain != MEAN}


def _difference(row: Row) -> Row:
    return {key: row[key] for key in ("delta", "stderr", "low", "high", "p_holm")}


def _reason(best: Asked, chosen: Asked, level: Sequence[Asked]) -> str:
    if len(level) == 1:
        return f"{best.name} scores best, and no other candidate is level with it"
    others = ", ".join(each.name for each in level if each is not best)
    told = f"{best.name} scores best; {others} cannot be told from it"
    if chosen is best:
        return f"{told}, and it is the simplest of them"
    return f"{told}, and {chosen.name} is the simplest of them"


def markdown(choice: Row) -> str:
    """choice.json as a table and a sentence."""
    header = "| candidate | model | adapters | score | gain over its model | against the best | overlap |"
    lines = [header, "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in choice["candidates"]:
        weights = " + ".join(f"{each['weight']:g}" for each in row["adapters"])
        overlaps = ", ".join(f"{100 * share:.1f} %" for share in row["overlap"]) or "not known"
        behind = row["against_best"]
        cells = (
            f"**{row['id']}**" if row["id"] == choice["chosen"] else row["id"],
            row["model"],
            f"{len(row['adapters'])} ({weights})",
            f"{row['score']:.2f} ± {row['stderr']:.2f}",
            _cell(row["gain"]),
            "best" if behind is None else _cell(behind),
            overlaps,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return (
        "# The merge that was chosen\n\n"
        "Scores in points on the benchmarks of `merge.select`, ± one standard error; differences are "
        "paired, with 95 % intervals. Overlap: share of the training questions with a neighbour in "
        "another adapter's.\n\n" + "\n".join(lines) + f"\n\n{choice['reason']}.\n"
    )


def _cell(row: Row) -> str:
    return f"{row['delta']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


# ── overlap of training sets ─────────────────────────────────────────────────────────────────────


def overlap(run: Run, asked: Asked) -> list[float]:
    """Of each further adapter whose questions are known: the share of ours with a neighbour there.

    Neighbours are what curation calls near-duplicates: the same encoder and threshold.

    Raises:
        InputError: a file of questions cannot be read.
    """
    known = [other.questions for other in asked.into.adapters if other.questions is not None]
    if not known:
        return []
    encoder, cache = find_encoder(*run.encoder()), run.cache("embeddings")
    ours = [q.text for q in read_questions(run.output("decontaminate", "questions.parquet"))]
    shares = []
    for path in known:
        theirs = _texts(run, path)
        blocks, _ = similar_between(
            Texts(ours, encoder, cache), Texts(theirs, encoder, cache), run.recipe.curate.threshold
        )
        shares.append(sum(len(np.unique(pairs.left)) for pairs in blocks) / len(ours))
    return shares


def _texts(run: Run, path: str) -> list[str]:
    rows = (row for row in read_file(run.locate(path)) if not isinstance(row, BadRow))
    parts = ((row.values.get("instruction"), row.values.get("input")) for row in rows)
    found = ["\n".join(str(part) for part in pair if part) for pair in parts if pair[0]]
    if not found:
        raise InputError(
            f"{path} has no row with an `instruction`",
            "Name the questions of that adapter, or none",
        )
    return found
