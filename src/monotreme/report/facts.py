"""What a run's records say, gathered as one plain dict: all that a page can show."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from monotreme.licenses import COMMERCIAL, permits
from monotreme.recall import self_tested
from monotreme.recipe import dump_recipe
from monotreme.records import read_table
from monotreme.report import terminal
from monotreme.report.protected import protected_pairs
from monotreme.run import Run

Facts = dict[str, Any]

ALL = "all"  # the row that sums up the others
BARS = 50  # of a histogram, from 0 to 1
EXAMPLES = 24  # rows of a table of examples
POINTS = 300  # of the curve of speed
PICTURE_BYTES = 400_000  # a picture over it stays a file beside the page
FIGURES = {"train": ("loss.svg",), "evaluate": ("heatmap.svg",)}
QUESTIONS = ("decontaminate", "curate")  # who holds the set as it stands, the later stage first
ORIGIN = ("seed", "settings_digest", "inputs", "outputs", "versions")


def facts(run: Run, price_per_hour: float | None = None) -> Facts:
    """All that the finished stages left, as plain JSON; a stage that has not run has no part.

    The same records give the same dict; no time of day is in it.

    Args:
        price_per_hour: of a GPU, or of the machine where there is none; None where nobody said it.

    Raises:
        InputError: no stage has finished, or a file of one is missing.
    """
    found = terminal.summary(run)
    done = found["stages"]
    settings = {stage: run.record(stage)["settings"] for stage in done}
    about = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    told: Facts = {
        "name": run.recipe.name,
        "stages": done,
        "time": _time(done, price_per_hour),
        "similarity": {s: _similarity(run, s, settings[s]) for s in QUESTIONS if s in done},
        "examples": {
            what: _examples(run, what)
            for what, (stage, _) in terminal.ROWS.items()
            if stage in done
        },
        "figures": {
            f"{stage}/{name}": _picture(run.folder / stage / name)
            for stage, names in FIGURES.items()
            for name in names
            if stage in done and name in run.record(stage)["outputs"]
        },
        "origin": {s: {key: run.record(s)[key] for key in ORIGIN} for s in done},
        "machine": about["machine"],
        "revisions": about["revisions"],
        "recipe": dump_recipe(run.recipe),
    }
    if holder := next((stage for stage in QUESTIONS if stage in done), None):
        told["licenses"] = _licenses(run, holder)
    if "decontaminate" in done:
        told["self_test"] = self_tested(run)
    if "leaks" in found:
        told["leaks"] = {k: v for k, v in found["leaks"].items() if k != "leaked_benchmark_ids"}
    if "train" in done:
        told["speed"] = _speed(run)
    if "merge" in done and "choice.json" in run.record("merge")["outputs"]:
        told["choice"] = json.loads(run.output("merge", "choice.json").read_text("utf-8"))
    if "evaluation" in found:
        told["evaluation"] = found["evaluation"]
    return told


def comparison_facts(found: Facts, counts: list[str], picture: str | None) -> Facts:
    """The same form for two models that were compared: all but their scores is left out.

    Args:
        found: as evaluate/compare.py has it.
        counts: lines that say how many questions were compared.
        picture: the subjects as SVG, None where there are none.
    """
    return {
        "name": f"{found['second']} against {found['first']}",
        "stages": {},
        "similarity": {},
        "examples": {},
        "figures": {"evaluate/heatmap.svg": picture} if picture else {},
        "asked": [line.removeprefix("- ") for line in counts],
        "evaluation": found,
    }


def _time(stages: Facts, price_per_hour: float | None) -> list[Facts]:
    """A row a stage and one of all: hours are seconds × processes; a price where one was stated."""
    rows = []
    for stage, one in stages.items():
        processes = one["facts"].get("num_ranks", 1)
        hours = one["seconds"] * processes / 3600
        gib = one["peak_bytes"] / 2**30
        rows.append({"stage": stage, "seconds": one["seconds"], "processes": processes, "hours": hours, "peak_gib": gib})  # fmt: skip
    sums = {key: sum(row[key] for row in rows) for key in ("seconds", "hours")}
    rows.append({"stage": ALL, **sums, "processes": None, "peak_gib": None})
    if price_per_hour is None:
        return rows
    return [{**row, "price": row["hours"] * price_per_hour} for row in rows]


def _similarity(run: Run, stage: str, settings: Facts) -> Facts:
    """Pairs by similarity in bars of 1/BARS, from the first bar that holds any."""
    pairs = read_table(run.output(stage, "pairs.parquet"), columns=["similarity"])
    counts = _bars(pairs)
    apart = _bars(protected_pairs(run)) if stage == "curate" else [0] * BARS
    first = next((i for i, count in enumerate(counts) if count), BARS)
    return {
        "threshold": settings["threshold"],
        "bars": [
            {"low": i / BARS, "high": (i + 1) / BARS, "pairs": counts[i], "protected": apart[i]}
            for i in range(first, BARS)
        ],
    }


def _bars(pairs: pa.Table) -> list[int]:
    """(BARS,) how many of the pairs have a similarity in each bar."""
    values = np.asarray(pairs["similarity"], np.float64)
    bars = np.clip(np.floor(values * BARS + 1e-9), 0, BARS - 1).astype(np.int64)
    return [int(num) for num in np.bincount(bars, minlength=BARS)]


def _examples(run: Run, what: str) -> list[Facts]:
    """Of each source and reason the row least like what it yields to, the one to doubt first."""
    table = read_table(run.output(*terminal.ROWS[what]))
    kind = "verdict" if what == "leaked" else "reason"
    table = table.sort_by([("similarity", "ascending"), ("id", "ascending")])
    first: dict[tuple[str, str], int] = {}
    for number, row in enumerate(table.select(["source", kind]).to_pylist()):
        first.setdefault((row["source"], row[kind]), number)
    wanted = sorted(first.values())[:EXAMPLES]
    rows = table.take(pa.array(wanted, pa.int64())).to_pylist()
    return [
        {
            **{key: row[key] for key in ("id", "source", "reason", "similarity")},
            "verdict": row.get("verdict"),
            "proposed": row.get("proposed"),
            "reviewers": row.get("reviewers", []),
            "dropped": terminal.asked_and_answered(row),
            "because": terminal.because(row),
        }
        for row in (terminal.beside_twins(run, rows) if what == "dropped" else rows)
    ]


def _licenses(run: Run, stage: str) -> list[Facts]:
    """Questions of the set by source and licence, and how many of them a model wrote."""
    columns = ["source", "license", "llm_written"]
    table = read_table(run.output(stage, "questions.parquet"), columns=columns)
    rows = table.to_pylist()
    questions = Counter((row["source"], row["license"]) for row in rows)
    written = Counter((row["source"], row["license"]) for row in rows if row["llm_written"])
    return [
        {
            "source": source,
            "license": name,
            "questions": num,
            "llm_written": written[source, name],
            "commercial": permits(name, COMMERCIAL),
        }
        for (source, name), num in sorted(questions.items())
    ]


def _speed(run: Run) -> list[tuple[int, float]]:
    """(last step, tokens per second) of at most POINTS equal stretches of the training."""
    text = run.output("train", "log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    size = -(-len(lines) // POINTS) or 1
    stretches = [lines[i : i + size] for i in range(0, len(lines), size)]
    return [
        (part[-1]["step"], round(sum(x["num_tokens"] for x in part) / sum(x["seconds"] for x in part), 1))
        for part in stretches
    ]  # fmt: skip


def _picture(path: Path) -> str | None:
    """The SVG, None where it would make the page too heavy."""
    return path.read_text(encoding="utf-8") if path.stat().st_size <= PICTURE_BYTES else None
