"""What runs in a fresh process: curate and decontaminate, with the time of each of their steps.

python stages.py FOLDER ENGINE WORKERS
"""

import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Moment = tuple[float, float]  # the machine's monotonic clock, this process's processor seconds


class Clock:
    """Which step runs when; a step within another is not part of it.

    Attributes:
        slices: (step, start, end) one after the other.
    """

    def __init__(self) -> None:
        self.slices: list[tuple[str, Moment, Moment]] = []
        self.stage = ""  # before the names of steps
        self._open = ["start"]
        self._since = _now()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._turn()
        self._open.append(f"{self.stage}{name}")
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = _now()
        self.slices.append((self._open[-1], self._since, now))
        self._since = now

    def on(self, place: Any, name: str, step: str) -> None:
        """Let a function be a step; of a generator its pieces are, whenever they are asked for."""
        inner = getattr(place, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.step(step):
                found = inner(*arguments, **options)
            return self._pieces(found, step) if inspect.isgenerator(found) else found

        setattr(place, name, timed)

    def _pieces(self, found: Iterator[Any], step: str) -> Iterator[Any]:
        while True:
            with self.step(step):
                piece = next(found, self)
            if piece is self:
                return
            yield piece


def _now() -> Moment:
    return time.monotonic(), time.process_time()


def _mark(clock: Clock) -> None:
    """The steps, by the functions that do them where they are called."""
    from monotreme import curate, decontaminate, similar
    from monotreme.decontaminate import finding
    from monotreme.work import StageWork

    marks: list[tuple[Any, str, str]] = [
        (curate, "read_rows", "reading"),
        (curate, "drop_exact_duplicates", "exact duplicates"),
        (similar, "embed", "vectors"),
        (similar, "pairs_within", "join"),
        (similar, "pairs_between", "join"),
        (similar, "make_lists", "join"),
        (similar, "pairs_in_lists", "join"),
        (similar, "measure_recall", "join"),
        (curate, "similar_within", "pairs settled"),
        (curate, "apply_exclusion", "exclusion"),
        (decontaminate, "similar_pairs", "pairs settled"),
        (finding, "training_views", "views"),
        (finding, "verbatim_pairs", "n-grams"),
        (decontaminate, "judge", "triage"),
        (StageWork, "table", "writing"),
        (StageWork, "tables", "writing"),
    ]
    for mark in marks:
        clock.on(*mark)


def main() -> None:
    folder, engine, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    clock = Clock()
    from monotreme import curate, decontaminate
    from monotreme.engine import open_engine
    from monotreme.recipe import check_recipe
    from monotreme.run import Run

    source = {"id": "mine", "path": str(folder / "questions.jsonl"), "license": "CC0-1.0"}
    columns = {"stem": "question", "answer": "answer"}
    benchmark = {"id": "held_out", "path": str(folder / "benchmark.jsonl"), "columns": columns}
    recipe = check_recipe(
        {
            "name": "scale",
            "curate": {"sources": [source]},
            "decontaminate": {"benchmarks": [benchmark]},
            "train": {"base": "./none"},
        },
        "scale",
    )
    _mark(clock)
    stages: dict[str, Callable[[Run], None]] = {
        "": curate.execute,
        "leaks: ": decontaminate.execute,
    }
    with open_engine(engine, workers, None) as opened:
        run = Run(folder / "runs" / "scale", recipe, folder, engine=opened)
        for clock.stage, execute in stages.items():
            with clock.step("the rest"):
                execute(run)
    records = {name: run.record(name) for name in ("curate", "decontaminate")}
    print(
        json.dumps(
            {
                "slices": clock.slices,
                "dropped": {name: record["counts"]["dropped"] for name, record in records.items()},
                "digests": [
                    entry["sha256"]
                    for record in records.values()
                    for name, entry in sorted(record["outputs"].items())
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
