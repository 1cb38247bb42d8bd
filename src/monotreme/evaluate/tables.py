"""`scores.json` and comparisons to read: Markdown tables, and a picture of the subjects."""

from collections.abc import Callable, Iterable, Sequence

from monotreme.plot import Cell, heat_map
from monotreme.recipe.differences import shown
from monotreme.scoring.results import EXPOSURES, Row
from monotreme.scoring.statistics import LEVEL
from monotreme.scoring.subjects import GROUP_OF, GROUPS

POWERED = 5.0  # points: a part of MMLU that could only show more than this is not a line of its own


def markdown(scores: Row) -> str:
    """`scores.json` as tables."""
    parts = [
        f"# Scores ({scores['protocol']})",
        "In points, ± one standard error.",
        score_table(scores["scores"]),
    ]
    if scores["deltas"]:
        parts += ["# Differences to the base", *delta_parts(scores["deltas"])]
    parts += _exposure_parts(scores["scores"])
    if scores["perplexity"]:
        parts += ["# Perplexity", _perplexity_table(scores["perplexity"])]
    if scores["truncated"]:
        parts.append(f"{scores['truncated']:,} choices had their context cut to fit the model.")
    return "\n\n".join(parts) + "\n"


def score_table(rows: Sequence[Row]) -> str:
    """Model × benchmark."""
    return _by_model(rows, lambda row: f"{row['score']:.2f} ± {row['stderr']:.2f}")


def setting_table(rows: Sequence[Row]) -> str:
    """Keys in which two recipes differ."""
    head = ["key of the recipe", "first", "second"]
    return _table(head, [[row["key"], shown(row["first"]), shown(row["second"])] for row in rows])


def delta_parts(rows: Sequence[Row]) -> list[str]:
    """Whole benchmarks, their clean subsets, groups and subjects, each under its own words."""
    parts = [
        "In points, paired, ± one standard error where the differences of the questions show one; "
        f"* where p < {LEVEL:g} after Holm's correction for the benchmarks of a row.",
        _by_model(rows, delta_cell),
    ]
    clean = [{**row, **row["clean"]} for row in rows if row.get("clean")]
    if clean:
        parts += ["## On the clean subset", "Questions of which no leak was found."]
        parts.append(_by_model(clean, _clean_cell))
    groups = [line for row in rows for line in _group_lines(row)]
    if groups:
        parts += [
            "## By group of subjects",
            f"Detectable: the difference found in 80 of 100 repeats. Groups and subjects that could "
            f"show only more than {POWERED:g} points have no line; they are in the JSON.",
            _table(["model", "group", "difference", "95 % interval", "detectable"], groups),
        ]
    return parts + [_subjects(row) for row in rows if row.get("by_subject")]


def delta_cell(row: Row) -> str:
    star = "*" if row["p_holm"] < LEVEL else ""
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.2f}"
    return f"{row['delta']:+.2f}{error}{star}"


def _clean_cell(row: Row) -> str:
    return f"{delta_cell(row)} ({row['num_questions']:,})"


def _group_lines(row: Row) -> Iterable[list[str]]:
    for group, delta in row.get("by_group", {}).items():
        if delta["detectable"] <= POWERED:
            interval = f"{delta['low']:+.2f} to {delta['high']:+.2f}"
            yield [
                row["model"], group, delta_cell(delta), interval, f"{delta['detectable']:.2f}",
            ]  # fmt: skip


def _subjects(row: Row) -> str:
    """What of the subjects is no noise, in a sentence."""
    subjects = row["by_subject"]
    sure = [f"{name} {delta_cell(one)}" for name, one in subjects.items() if one["p_holm"] < LEVEL]
    found = ", ".join(sure) or "none"
    return f"{row['model']}: of {len(subjects)} subjects, those that differ: {found}."


def subject_map(rows: Sequence[Row]) -> str | None:
    """Subject × model as SVG, each group's subjects under it; None without deltas of subjects."""
    models = [row for row in rows if row.get("by_subject")]
    if not models:
        return None
    known = {name for row in models for name in row["by_subject"]}
    lines: list[tuple[str, list[Cell | None]]] = []
    for group in (*GROUPS, None):
        names = sorted(name for name in known if GROUP_OF.get(name) == group)
        if group and names:
            lines.append((group, [_map_cell(row["by_group"], group) for row in models]))
        lines += [(name, [_map_cell(row["by_subject"], name) for row in models]) for name in names]
    against = " and ".join(dict.fromkeys(row["against"] for row in models))
    note = f"Grey: noise, p ≥ {LEVEL:g} after Holm's correction for the subjects, or the groups."
    title = f"Difference to {against} by subject, points"
    return heat_map(title, note, [row["model"] for row in models], lines, frozenset(GROUPS))


def _map_cell(parts: dict[str, Row], name: str) -> Cell | None:
    part = parts.get(name)
    return None if part is None else Cell(part["delta"], part["p_holm"] < LEVEL)


def _exposure_parts(rows: Sequence[Row]) -> list[str]:
    lines = [
        [row["model"], row["benchmark"], *(_exposed_cell(part) for part in _exposed(row))]
        for row in rows
        if "by_exposure" in row
    ]
    if not lines:
        return []
    return [
        "# Scores by exposure",
        "Of each benchmark that was checked for leaks: questions of which a training question was "
        "a duplicate (leaked) or might be one (gray), the others (clean); and the clean subset by "
        "the recipe's rule. In points, 95 % interval, number of questions.",
        _table(["model", "benchmark", *EXPOSURES, "clean subset"], lines),
    ]


def _exposed(row: Row) -> list[Row | None]:
    return [*(row["by_exposure"].get(level) for level in EXPOSURES), row["clean"]]


def _exposed_cell(part: Row | None) -> str:
    if part is None:
        return ""
    return f"{part['score']:.1f} [{part['low']:.1f}, {part['high']:.1f}] {part['num_questions']:,}"


def _by_model(rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    cells = {(row["model"], row["benchmark"]): cell(row) for row in rows}
    models = dict.fromkeys(row["model"] for row in rows)
    lines = [[model, *(cells.get((model, name), "") for name in benchmarks)] for model in models]
    return _table(["model", *benchmarks], lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    every = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in every)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _perplexity_table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        change = ""
        if row["delta_log_loss"] is not None:
            change = f"{row['delta_log_loss']:+.4f} ± {row['delta_stderr']:.4f}"
        log_loss = f"{row['log_loss']:.4f} ± {row['stderr']:.4f}"
        line = [row["model"], f"{row['perplexity']:.3f}", log_loss, change]
        lines.append([*line, f"{row['num_tokens']:,}"])
    return _table(["model", "perplexity", "log-loss", "change", "tokens"], lines)
