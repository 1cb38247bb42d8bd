"""The models of a run, laid out: training, merges, the choice, and scores against the base."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from monotreme.plot import line_chart
from monotreme.recipe.differences import shown
from monotreme.report.facts import Facts
from monotreme.report.layout import (
    Figure,
    Parts,
    Table,
    delta_text,
    figure,
    interval,
    measured,
    share,
)

MEAN = "mean"  # the row of scores.json that is no benchmark
MANY = 20  # rows of a table that is folded


def parts(told: Facts) -> Parts:
    """Titles and blocks, of the stages that have run."""
    for make in (_training, _merges, _choice, _scores, _by_subject):
        yield from make(told)


def whole(told: Facts) -> list[Facts]:
    """The difference of each model on everything: the mean of the benchmarks, or the only one."""
    deltas = told.get("evaluation", {}).get("deltas", [])
    several = len({row["benchmark"] for row in deltas} - {MEAN}) > 1
    return [row for row in deltas if (row["benchmark"] == MEAN) == several]


TRAINING = {
    "num_steps": "steps",
    "num_tokens": "tokens",
    "num_answer_tokens": "tokens of answers",
    "num_trainable_parameters": "trained parameters",
    "mean_length": "tokens of a question, mean",
    "tokens_per_second": "tokens/s",
    "teraflop_per_second": "TFLOP/s",
    "share_of_peak": "share of the GPUs' peak",
    "first_loss": "loss of the first steps",
    "last_loss": "loss of the last steps",
    "validation_loss": "validation loss at the end",
    "best_validation_loss": "best validation loss",
    "best_validation_step": "at step",
    "num_ranks": "processes",
}


def _training(told: Facts) -> Parts:
    if "train" not in told["stages"]:
        return
    facts = told["stages"]["train"]["facts"]
    rows = [
        (words, share(facts[key]) if key.startswith("share") else figure(facts[key]))
        for key, words in TRAINING.items()
        if key in facts
    ]
    speed = line_chart("Speed", "step", "tokens/s", {"tokens/s": told["speed"]})
    yield "Training", [*_picture(told, "train/loss.svg"), Figure(speed), Table(["what", "value"], rows)]  # fmt: skip


def _picture(told: Facts, name: str) -> Iterator[str | Figure]:
    if name in told["figures"]:
        svg = told["figures"][name]
        yield (
            f"The picture is {name}; it is too large for this page." if svg is None else Figure(svg)
        )


def _merges(told: Facts) -> Parts:
    if "merge" not in told["stages"]:
        return
    rows = [
        (
            name,
            f"{one['num_adapted']:,}",
            f"{one['num_copied']:,}",
            f"{one['num_weights']:,}",
            f"{one['delta_norm_ratio']:.4g}",
            share(one["unchanged_share"]),
            *_proof(one["verify"]),
        )
        for name, one in told["stages"]["merge"]["facts"].items()
    ]
    head = ["merge", "tensors changed", "copied", "weights", "change / weights (norms)"]
    head += ["elements unchanged", "largest difference to the adapter", "allowed"]
    yield "Merges", [Table(head, rows), *_ingredients(told["stages"]["merge"]["facts"])]


def _ingredients(merges: Facts) -> Iterator[str | Table]:
    """What goes into each merge: the adapters, how they agree, and how the target differs."""
    adapters = [
        (name, each["adapter"], f"{each['weight']:g}", figure(each["norm"]))
        for name, one in merges.items()
        for each in one.get("adapters", ())
    ]
    if adapters:
        yield Table(["merge", "adapter", "weight", "norm of its delta"], adapters, 2)
    pairs = [
        (name, *(one["adapters"][pair[side]]["adapter"] for side in ("first", "second")), f"{pair['cosine']:+.3f}", share(pair["sign_conflicts"]))
        for name, one in merges.items()
        for pair in one.get("pairs", ())
    ]  # fmt: skip
    if pairs:
        yield (
            "Adapters of one merge beside each other, in the weights that both change; the share of "
            "elements that they move in opposite directions is of a sample of rows."
        )
        head = ["merge", "adapter", "and adapter", "cosine of deltas", "opposite directions"]
        yield Table(head, pairs, 3)
    differences = [
        (name, setting, *map(shown, sides))
        for name, one in merges.items()
        for setting, sides in one.get("differences", {}).items()
    ]
    if differences:
        yield "Settings in which the model that was merged into is not the base, as the recipe accepts:"
        yield Table(["merge", "setting", "of the base", "of the model"], differences, 4)


def _proof(verify: Facts) -> tuple[str, str]:
    if "bound" not in verify:
        return (str(verify.get("skipped", "")), "")
    return (f"{verify['max_difference']:.4g}", f"{verify['bound']:.4g}")


def _choice(told: Facts) -> Parts:
    if "choice" not in told:
        return
    choice = told["choice"]
    rows = [
        (
            row["id"] + (" (chosen)" if row["id"] == choice["chosen"] else ""),
            row["model"],
            " + ".join(f"{each['weight']:g}" for each in row["adapters"]),
            measured(row, "score"),
            delta_text(row["gain"]),
            "best" if row["against_best"] is None else delta_text(row["against_best"]),
            ", ".join(map(share, row["overlap"])),
        )
        for row in choice["candidates"]
    ]
    head = ["candidate", "model", "weights", "score", "gain over its model", "against the best"]
    yield "The choice of the merge", [f"{choice['reason']}.", Table([*head, "overlap"], rows, 2)]


def _scores(told: Facts) -> Parts:
    if "evaluation" not in told:
        return
    found = told["evaluation"]
    several = len({row["benchmark"] for row in found["scores"]} - {MEAN}) > 1
    scores = [row for row in found["scores"] if several or row["benchmark"] != MEAN]
    deltas = {(row["model"], row["benchmark"]): row for row in found["deltas"]}
    head = ["model", "benchmark", "questions", "score", "difference", "95 % interval", "p (Holm)"]
    blocks: list[Any] = [
        *(told["asked"] if "asked" in told else [f"Protocol {found['protocol']}."]),
        *_settings(found.get("settings", ())),
        "In points, ± one standard error where the questions show one; differences are paired, p is "
        "corrected for the benchmarks of a model (Holm).",
        Table(head, [_score_row(row, deltas) for row in scores], 2),
    ]
    clean = [row for row in scores if row.get("clean")]
    if clean:
        blocks += [
            "The same on the clean subset, the questions of which no leak was found:",
            Table(head, [_score_row(row, deltas, "clean") for row in clean], 2),
        ]
    against = dict.fromkeys(row["against"] for row in found["deltas"])
    yield " ".join(["Scores", *(f"against {name}" for name in against)]), blocks
    yield "Scores by exposure", list(_exposure(scores))


def _settings(rows: Iterable[Facts]) -> Iterator[str | Table]:
    """What differs between the recipes of two runs that are compared."""
    cells = [(row["key"], shown(row["first"]), shown(row["second"])) for row in rows]
    if cells:
        yield "The recipes differ in:"
        yield Table(["key", "first", "second"], cells, 3)


def _score_row(row: Facts, deltas: Mapping[tuple[str, str], Facts], part: str = "") -> list[str]:
    score, delta = row, deltas.get((row["model"], row["benchmark"]))
    if part:
        score, delta = row[part], (delta or {}).get(part)
    against = ["", "", ""]
    if delta:
        against = [measured(delta, "delta", "+"), interval(delta), f"{delta['p_holm']:.2g}"]
    questions = f"{score['num_questions']:,}"
    return [row["model"], row["benchmark"], questions, measured(score, "score"), *against]


def _exposure(scores: Iterable[Facts]) -> Iterator[str | Table]:
    rows = [
        (row["model"], row["benchmark"], level, f"{one['num_questions']:,}", f"{one['score']:.2f}", interval(one, ""))
        for row in scores
        for level, one in (row.get("by_exposure") or {}).items()
    ]  # fmt: skip
    if rows:
        yield "Questions with a duplicate among the training questions before they were dropped (leaked), perhaps one (gray), and none (clean). In points, with 95 % intervals."
        head = ["model", "benchmark", "questions were", "number", "score", "95 % interval"]
        yield Table(head, rows, 3, folded="Scores of all models" if len(rows) > MANY else "")


def _by_subject(told: Facts) -> Parts:
    found = told.get("evaluation", {})
    groups = [
        (row["model"], row["benchmark"], name, measured(one, "delta", "+"), interval(one))
        for row in found.get("deltas", ())
        for name, one in row.get("by_group", {}).items()
    ]
    head = ["model", "benchmark", "group", "difference", "95 % interval"]
    blocks: list[Any] = [*_picture(told, "evaluate/heatmap.svg")]
    blocks += [Table(head, groups, 3)] if groups else []
    blocks += _subjects(found.get("scores", ()))
    yield "By subject", blocks
    lines = [
        (row["model"], f"{row['perplexity']:.3f}", f"{row['log_loss']:.4f} ± {row['stderr']:.4f}", _change(row), f"{row['num_tokens']:,}")
        for row in found.get("perplexity", ())
    ]  # fmt: skip
    if lines:
        yield "Perplexity on held-out text", [Table(["model", "perplexity", "log-loss", "change of it", "tokens"], lines)]  # fmt: skip


def _change(row: Facts) -> str:
    if row["delta_log_loss"] is None:
        return ""
    return f"{row['delta_log_loss']:+.4f} ± {row['delta_stderr']:.4f}"


def _subjects(scores: Sequence[Facts]) -> Iterator[Table]:
    """Subject × model, a row a subject of every benchmark."""
    models = dict.fromkeys(row["model"] for row in scores)
    cells = {
        (row["benchmark"], subject, row["model"]): measured(one, "score")
        for row in scores
        for subject, one in (row.get("by_subject") or {}).items()
    }
    rows = [
        (*key, *(cells.get((*key, model), "") for model in models))
        for key in dict.fromkeys(key[:2] for key in cells)
    ]
    if rows:
        folded = "Scores of all subjects" if len(rows) > MANY else ""
        yield Table(["benchmark", "subject", *models], rows, 2, folded=folded)
