"""A run's records as tables on a terminal; every number comes from a record."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monotreme.errors import InputError, UsageError
from monotreme.printable import printable
from monotreme.recipe import STAGES
from monotreme.records import read_table
from monotreme.run import Run

ROWS = {"dropped": ("curate", "dropped.parquet"), "leaked": ("decontaminate", "leaked.parquet")}
_UNITS = (
    "counted are questions; by merge tensors, by evaluate the questions that each model is asked"
)
# The figures that a stage's end is announced with.
_OUTCOMES = dict.fromkeys(STAGES, "{counts[read]:,} questions read, {counts[kept]:,} kept") | {
    "train": "{facts[num_steps]:,} steps, loss {facts[first_loss]:.3f} → {facts[last_loss]:.3f} nats",
    "merge": "{counts[kept]:,} tensors written",
    "evaluate": "{counts[kept]:,} questions asked of each model",
    "release": "{counts[kept]:,} questions, {facts[num_files]:,} files",
}
_CELL = 200  # characters of a text that one row shows
_ID = 12  # characters of an id that are enough to name it
_WHICH = "source, id, state"
SIDES = ("left", "right")  # of a pair
_TWIN = ("source", "instruction", "input", "output")


def summary(run: Run) -> dict[str, Any]:
    """Everything the summary prints, as plain JSON: records of the finished stages and scores.

    Raises:
        InputError: no stage has finished.
    """
    done = [s for s in STAGES if (run.folder / s / "record.json").exists()]
    if not done:
        raise InputError(f"no stage has finished in {run.folder}", "Run `monotreme run` first")
    found: dict[str, Any] = {
        "run": str(run.folder),
        "stages": {s: _brief(run.record(s)) for s in done},
    }
    if "decontaminate" in done:
        found["leaks"] = _json(run, "decontaminate", "leaks.json")
    if "evaluate" in done:
        found["evaluation"] = _json(run, "evaluate", "scores.json")
    if "release" in done:
        outputs = run.record("release")["outputs"]
        found["cards"] = [
            str(run.folder / "release" / o) for o in outputs if o.endswith("README.md")
        ]
    return found


def outcome(stage: str, record: dict[str, Any]) -> str:
    """What a finished stage's record says in a few words."""
    return f"{_OUTCOMES[stage].format(**record)}, {record['seconds']:,.1f} s"


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("counts", "facts", "seconds", "peak_bytes")}


def _json(run: Run, stage: str, name: str) -> Any:
    return json.loads(run.output(stage, name).read_text(encoding="utf-8"))


def rows(run: Run, what: str, source: str | None, limit: int) -> list[dict[str, Any]]:
    """The first rows that a stage dropped, those nearest to their twin first.

    Raises:
        UsageError: there is no such source.
    """
    check_source(run, ROWS[what][0], source)
    table = read_table(run.output(*ROWS[what]))
    if source is not None:
        table = table.filter(pc.equal(table["source"], source))
    order = [("similarity", "descending"), ("id", "ascending")]
    found: list[dict[str, Any]] = table.sort_by(order).slice(0, limit).to_pylist()
    return beside_twins(run, found) if what == "dropped" else found


def check_source(run: Run, stage: str, source: str | None) -> None:
    """A name that no source has is a slip, where one of which nothing was dropped is an answer.

    Raises:
        UsageError: the stage read nothing of that name.
    """
    known = run.record(stage)["counts"]["by_source"]
    if source is not None and source not in known:
        raise UsageError(f"there is no source {source!r}", f"Known are {', '.join(sorted(known))}")


def beside_twins(run: Run, dropped: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of curate/dropped.parquet, each with the question that it yields to as `twin_*`.

    `twin_row` is that question's place in curate/questions.parquet: a copy to the letter has its id.
    """
    path = run.output("curate", "questions.parquet")
    names = pa.array([row["twin"] for row in dropped], pa.string())
    places = pc.index_in(names, read_table(path, columns=["id"])["id"]).to_pylist()
    kept = {row["id"]: row for row in read_table(path, filters=_is_one_of(names)).to_pylist()}
    return [
        {
            **row,
            "twin_row": place,
            **{f"twin_{key}": kept.get(row["twin"], {}).get(key) for key in _TWIN},
        }
        for row, place in zip(dropped, places, strict=True)
    ]


def similar_to(run: Run, wanted: str, limit: int) -> list[dict[str, Any]]:
    """A question, kept or dropped, and what curate found near it, the nearest first.

    Args:
        wanted: the beginning of the question's id.

    Raises:
        UsageError: no question's id begins so, or several do.
    """
    asked = _one_id(run, wanted)
    pairs = read_table(
        run.output("curate", "pairs.parquet"),
        filters=(pc.field("left") == asked) | (pc.field("right") == asked),
    )
    similarity = {
        (row["right"] if row["left"] == asked else row["left"]): row["similarity"]
        for row in pairs.to_pylist()
    }
    nearest = sorted(similarity, key=lambda other: (-similarity[other], other))[:limit]
    texts = questions_of(run, [asked, *nearest])
    return [{**texts[asked], "similarity": None}] + [
        {**texts[other], "similarity": similarity[other]} for other in nearest
    ]


def _is_one_of(ids: Iterable[str]) -> pc.Expression:
    return pc.field("id").isin(pa.array(ids, pa.string()))


def _one_id(run: Run, wanted: str) -> str:
    found: set[str] = set()
    for name in ("questions.parquet", "dropped.parquet"):
        ids = read_table(run.output("curate", name), columns=["id"])["id"]
        found.update(ids.filter(pc.starts_with(ids, wanted)).to_pylist())
    if len(found) == 1:
        return found.pop()
    what = "no question's id begins" if not found else f"{len(found)} questions' ids begin"
    raise UsageError(
        f"{what} with {wanted!r} in {run.folder}",
        "Ids are the `id` column of curate/questions.parquet and dropped.parquet",
    )


def questions_of(run: Run, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Id → the question and what became of it: `kept`, or why it was dropped."""
    wanted = _is_one_of(ids)
    dropped = read_table(run.output("curate", "dropped.parquet"), filters=wanted)
    kept = read_table(run.output("curate", "questions.parquet"), filters=wanted)
    found = {row["id"]: {**row, "state": row["reason"]} for row in dropped.to_pylist()}
    return found | {row["id"]: {**row, "state": "kept"} for row in kept.to_pylist()}


def print_rows(found: Iterable[dict[str, Any]]) -> None:
    """Dropped rows side by side with what they yield to."""
    table = Table(_WHICH, "dropped", "because of", show_lines=True)
    for row in found:
        reason = " ".join(filter(None, (row.get("verdict"), row["reason"])))
        cells = (_which(row, reason), asked_and_answered(row), because(row))
        table.add_row(*(escape(cell) for cell in cells))
    Console().print(table)


def print_pairs(found: Iterable[dict[str, Any]]) -> None:
    """Look-alikes that were both kept, side by side."""
    table = Table("similarity", "kept", "and kept", show_lines=True)
    for row in found:
        sides = (f"{_named(row[side])}\n{asked_and_answered(row[side])}" for side in SIDES)
        table.add_row(f"{row['similarity']:.3f}", *(escape(cell) for cell in sides))
    Console().print(table)


def print_similar(found: Iterable[dict[str, Any]]) -> None:
    """A question and those near it, with what became of each."""
    table = Table(_WHICH, "question", show_lines=True)
    for row in found:
        table.add_row(escape(_which(row, row["state"])), escape(asked_and_answered(row)))
    Console().print(table)


def _which(row: dict[str, Any], state: str) -> str:
    similarity = "" if row["similarity"] is None else f" {row['similarity']:.3f}"
    return f"{_named(row)}\n{state}{similarity}"


def _named(row: dict[str, Any]) -> str:
    return f"{row['source']}\n{row['id'][:_ID]}"


def because(row: dict[str, Any]) -> str:
    """What a dropped or leaked row yields to, as text: its twin, a benchmark's question, or a rule."""
    if "benchmark_stem" in row:
        stem, options, answers = (
            _cell(text)
            for text in (
                row["benchmark_stem"],
                " | ".join(row["benchmark_options"]),
                " | ".join(row["benchmark_answers"]),
            )
        )
        which = f"{row['benchmark']} {row['benchmark_id'][:_ID]}"
        return "\n".join(filter(None, (which, stem, options, f"→ {answers}")))
    if row["twin_instruction"] is None:
        return _cell(row["detail"])
    twin = {key: row[f"twin_{key}"] for key in _TWIN}
    which = f"{twin['source']}, kept as row {row['twin_row']:,}\n{row['twin'][:_ID]}"
    return f"{which}\n{asked_and_answered(twin)}\n({_cell(row['detail'])})"


def asked_and_answered(row: dict[str, Any]) -> str:
    """Question and answer on two lines, long texts cut."""
    question = " ".join(filter(None, (row["instruction"], row["input"])))
    return f"{_cell(question)}\n→ {_cell(row['output'])}"


def _cell(text: str) -> str:
    return printable(text if len(text) <= _CELL else f"{text[:_CELL]} …")


def print_summary(run: Run, console: Console | None = None) -> None:
    """Rows by reason, leaks, scores and deltas with error bars, where the cards are."""
    found = summary(run)
    console = console or Console()
    console.print(_stages_table(found["stages"]))
    if found.get("leaks", {}).get("table"):
        console.print(_leaks_table(found["leaks"]))
    if "evaluation" in found:
        console.print(_scores_table(found["evaluation"]))
        if found["evaluation"]["perplexity"]:
            console.print(_perplexity_line(found["evaluation"]["perplexity"]))
    for card in found.get("cards", []):
        console.print(f"card: {escape(card)}", soft_wrap=True)


def print_training_plan(
    plan: dict[str, Any], price_per_hour: float | None, console: Console | None = None
) -> None:
    """What a training will take (train.plan_of): counts, then estimates by GPU."""
    console = console or Console()
    memory = ", ".join(f"{k.replace('_', ' ')} {v:,.1f}" for k, v in plan["memory_gib"].items())
    lengths = ", ".join(f"{name}: {num:,}" for name, num in plan["histogram"].items())
    console.print(
        f"training: {plan['questions']:,} questions, {plan['tokens']:,} tokens "
        f"(mean {plan['mean_tokens']:,.0f}, longest {plan['longest']:,}), {plan['steps']:,} steps\n"
        f"questions by tokens: {lengths}\n"
        f"{plan['trainable_parameters']:,} of {plan['parameters']:,} parameters trained, "
        f"{plan['petaflop']:,.3g} PFLOP\n"
        f"memory in GiB, estimated: {memory}",
        highlight=False,
    )
    table = Table("GPU", "minutes at half its peak", "fits", *(["price"] if price_per_hour else []))
    table.title = "Estimates for one GPU, none of them measured"
    for name, one in plan["gpus"].items():
        price = [f"{one['minutes'] / 60 * price_per_hour:,.2f}"] if price_per_hour else []
        table.add_row(name, f"{one['minutes']:,.1f}", "yes" if one["fits"] else "no", *price)
    console.print(table)
    if "trial" in plan:
        console.print(_trial_line(plan["trial"], price_per_hour), highlight=False)


def _trial_line(trial: dict[str, Any], price_per_hour: float | None) -> str:
    peak = f", {trial['peak_gib']:,.1f} GiB at most" if "peak_gib" in trial else ""
    minutes = trial["minutes"]
    price = f", price {minutes / 60 * price_per_hour:,.2f}" if price_per_hour else ""
    return (
        f"tried here: the largest step ({trial['largest_step_tokens']:,} tokens) fits in rows of "
        f"{trial['row_tokens']:,}{peak}; {trial['tokens_per_second']:,.0f} tokens/s, "
        f"{minutes:,.1f} minutes for all steps{price}"
    )


def print_merge_preview(merges: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """What every merge would do (merge.preview): a paragraph each."""
    console = console or Console()
    for merge in merges:
        console.print("\n".join(_merge_lines(merge)), highlight=False, soft_wrap=True)


def _merge_lines(merge: dict[str, Any]) -> Iterator[str]:
    yield f"[bold]{escape(merge['id'])}[/bold] into {escape(merge['model'])}"
    yield (
        f"  {merge['num_adapted']} of {merge['num_tensors']} tensors change; "
        f"{merge['unchanged_share']:.1%} of their elements stay as they are (sampled)"
    )
    for each in merge["adapters"]:
        yield f"  {escape(each['adapter'])} × {each['weight']:g}: norm of its delta {each['norm']:.4g}"
    for pair in merge["pairs"]:
        yield (
            f"  adapters {pair['first']} and {pair['second']}: cosine {pair['cosine']:+.3f}, "
            f"{pair['sign_conflicts']:.1%} of the elements pulled in opposite directions (sampled)"
        )
    for name, sides in merge["differences"].items():
        base, target = (escape(" ".join(str(side).split())[:60]) for side in sides)
        verdict = "[red]refused[/red]" if name in merge["refused"] else "told"
        yield f"  {escape(name)}: {base} in the base, {target} here ({verdict})"
    yield (
        f"  {merge['bytes'] / 1e9:,.2f} GB to write, {merge['free_bytes'] / 1e9:,.2f} GB free, "
        f"about {merge['seconds']:,.0f} s and the proof"
    )


def _perplexity_line(rows: Sequence[dict[str, Any]]) -> str:
    each = ", ".join(f"{escape(row['model'])} {row['perplexity']:.2f}" for row in rows)
    return f"perplexity of a token on held-out text: {each}"


def _stages_table(stages: dict[str, Any]) -> Table:
    table = Table("stage", "read", "kept", "dropped", "why", "seconds", title="What each stage did")
    table.caption = _UNITS
    for name, record in stages.items():
        counts = record["counts"]
        why = ", ".join(f"{reason} {num}" for reason, num in sorted(counts["by_reason"].items()))
        numbers = (f"{counts[key]:,}" for key in ("read", "kept", "dropped"))
        table.add_row(name, *numbers, why, f"{record['seconds']:.1f}")
    return table


def _leaks_table(leaks: dict[str, Any]) -> Table:
    title = f"Questions like a benchmark question (over {leaks['threshold']}, or word for word)"
    columns: Sequence[str] = (
        "source",
        "benchmark",
        "duplicate",
        "gray_area",
        "similar_but_different",
    )
    table = Table(*columns, title=title)
    for row in leaks["table"]:
        table.add_row(*(escape(str(row[column])) for column in columns))
    return table


def _scores_table(evaluation: dict[str, Any]) -> Table:
    table = Table("model", "benchmark", "score", "against the base", "95 % interval", "p (Holm)")
    table.title = f"Scores in points ± standard error ({evaluation['protocol']})"
    several = len({row["benchmark"] for row in evaluation["scores"]} - {"mean"}) > 1
    deltas = {(d["model"], d["benchmark"]): d for d in evaluation["deltas"]}
    for row in evaluation["scores"]:
        if row["benchmark"] == "mean" and not several:
            continue
        delta = deltas.get((row["model"], row["benchmark"]))
        score = f"{row['score']:.1f} ± {row['stderr']:.1f}"
        cells = (escape(row["model"]), escape(row["benchmark"]), score)
        table.add_row(*cells, *(_delta_cells(delta) if delta else ()))
    return table


def _delta_cells(delta: dict[str, Any]) -> tuple[str, str, str]:
    error = "" if delta["stderr"] is None else f" ± {delta['stderr']:.1f}"
    return (
        f"{delta['delta']:+.1f}{error}",
        f"{delta['low']:+.1f} … {delta['high']:+.1f}",
        f"{delta['p_holm']:.2g}",
    )
