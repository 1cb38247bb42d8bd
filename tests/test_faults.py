"""Whatever dies, fills up or is poisoned: nothing is lost, and the next command ends with the same bytes.

Commands are real ones, in process groups of their own, and what they meet is real too.
"""

import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from crews import (
    DIES_EMBEDDING,
    DIES_READING,
    POISON,
    add_question,
    bad_rows,
    both,
    done,
    marks,
    monotreme,
    result,
    sizes,
    started,
    until,
    waits,
    write_recipe,
)

LOCAL, RAY = ("--workers", 2), ("--engine", "ray", "--workers", 2)
on_both = pytest.mark.parametrize(
    "engine",
    [pytest.param(LOCAL, id="local"), pytest.param(RAY, id="ray", marks=pytest.mark.slow)],
)
# Many small pieces: something is always under way, and something finished before it.
SMALL = sizes(
    {"monotreme.embed": {"SHARD_TEXTS": 4}, "monotreme.curate.reading": {"ROWS_AT_ONCE": 4}}
)
POISONED = f"How many legs has the {POISON} of a spider?"
BEGUN = "curate ...\nsource absent is optional and cannot be read: going on without\n"
FIGURES = r"[\d,]+ questions read, [\d,]+ kept, [\d.,]+ s"
ORDINARY = re.compile(rf"reading \S+\n{re.escape(BEGUN)}curate done: {FIGURES}\n")
STOPPED = f"{BEGUN}stopped; what was finished is kept, the same command goes on from there\n"


@pytest.fixture(autouse=True)
def _has_ray(request: pytest.FixtureRequest) -> None:
    if "ray" in request.node.name:
        pytest.importorskip("ray", reason="ray is not installed (pip install 'monotreme[ray]')")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("faults"), num=30)


@pytest.fixture(scope="module")
def whole(recipe: Path) -> dict[str, Any]:
    """What a curate leaves that nothing disturbs."""
    monotreme("curate", recipe, "--runs", recipe.with_name("whole"))
    return result(recipe.with_name("whole"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """While this file is there, workers that have begun on texts wait."""
    (tmp_path / "hold").touch()
    return tmp_path / "hold"


def error_in(said: str) -> str:
    """The one line that a command ended with; beside it there is only what it always says."""
    before, _, error = said.rpartition("error: ")
    first, _, rest = before.partition("\n")
    assert (first.partition(" ")[0], rest in ("curate ...\n", BEGUN)) == ("reading", True), said
    assert error.count("\n") == 1, said
    return error


def goes_on(recipe: Path, runs: Path) -> dict[str, Any]:
    """What the next command leaves, whatever the last one met."""
    monotreme("curate", recipe, "--runs", runs)
    return result(runs)


# ── killed ──────────────────────────────────────────────────────────────────────────────────────


@on_both
def test_a_killed_command_takes_its_workers_with_it(
    recipe: Path, whole: dict[str, Any], runs: Path, hold: Path, engine: tuple[object, ...]
) -> None:
    """All of them were at work on texts."""
    added = both(SMALL, waits(hold.parent))
    with started(hold.parent, added, "curate", recipe, "--runs", runs, *engine) as command:
        until(lambda: len(marks(hold.parent)) == 2)
        assert len(command.others()) >= 2
        command.process.kill()
        until(lambda: not command.others())
    assert goes_on(recipe, runs) == whole


@pytest.mark.slow
def test_a_command_that_is_killed_at_any_moment_loses_nothing(
    recipe: Path, whole: dict[str, Any], runs: Path
) -> None:
    """Other moments in every execution of the test."""
    draw = random.Random(seed := random.SystemRandom().getrandbits(32))
    begun = time.monotonic()
    assert done(runs.parent, SMALL, "curate", recipe, "--runs", runs, *LOCAL)[0] == 0
    span = time.monotonic() - begun
    for _ in range(6):
        shutil.rmtree(runs)
        with started(runs.parent, SMALL, "curate", recipe, "--runs", runs, *LOCAL) as command:
            time.sleep(draw.uniform(0, span))
            command.process.kill()
            until(lambda: not command.others())
        assert goes_on(recipe, runs) == whole, f"seed {seed}"
        assert not list(runs.rglob("*.tmp")), f"seed {seed}"


@pytest.mark.slow
@on_both
def test_a_killed_worker_is_no_matter(
    recipe: Path, whole: dict[str, Any], runs: Path, hold: Path, engine: tuple[object, ...]
) -> None:
    added = both(SMALL, waits(hold.parent))
    with started(hold.parent, added, "curate", recipe, "--runs", runs, *engine) as command:
        until(lambda: len(marks(hold.parent)) == 2)
        command.workers(hold.parent)[0].kill()
        hold.unlink()
        status, said = command.end()
    assert (status, bool(ORDINARY.fullmatch(said))) == (0, True), said
    assert result(runs) == whole


@on_both
def test_ctrl_c_ends_it_at_once_and_quietly(
    recipe: Path, whole: dict[str, Any], runs: Path, hold: Path, engine: tuple[object, ...]
) -> None:
    added = both(SMALL, waits(hold.parent))
    with started(hold.parent, added, "curate", recipe, "--runs", runs, *engine) as command:
        until(lambda: len(marks(hold.parent)) == 2)
        begun = time.monotonic()
        command.interrupt()
        assert command.end() == (130, f"reading {recipe}\n{STOPPED}")
        until(lambda: not command.others())
        assert time.monotonic() - begun < 60  # a second or two, where nothing else is done
    assert goes_on(recipe, runs) == whole


# ── poisoned ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@on_both
@pytest.mark.parametrize(
    ("added", "doing"),
    [
        pytest.param(DIES_READING, "reads", id="read"),
        pytest.param(DIES_EMBEDDING, "embeds", id="embed", marks=pytest.mark.slow),
    ],
)
def test_a_row_that_kills_its_worker_is_set_aside(
    tmp_path: Path,
    whole: dict[str, Any],
    runs: Path,
    engine: tuple[object, ...],
    added: dict[str, str],
    doing: str,
) -> None:
    """Whatever the others of its piece are, they stay."""
    recipe = write_recipe(tmp_path / "poisoned", num=30)
    add_question(recipe, "arithmetic", POISONED)
    command = ("curate", recipe, "--runs", runs, *engine)
    status, said = done(tmp_path, both(SMALL, added), *command)
    assert (status, bool(ORDINARY.fullmatch(said))) == (0, True), said
    (row,) = bad_rows(runs)
    assert row["source"] == "arithmetic"
    assert f"kills every worker that {doing} it" in row["detail"]
    found = result(runs)
    assert found["outputs"]["questions.parquet"] == whole["outputs"]["questions.parquet"]
    counts = found["counts"]["by_reason"]
    assert counts == {**whole["counts"]["by_reason"], "bad_row": 2}


@pytest.mark.slow
@on_both
@pytest.mark.parametrize(
    ("added", "named"),
    [
        (DIES_READING, r"arithmetic\.jsonl, line 16 kills every worker that reads it"),
        (DIES_EMBEDDING, rf"source arithmetic: the question '{re.escape(POISONED)}' kills every"),
    ],
    ids=["read", "embed"],
)
def test_a_row_that_kills_its_worker_is_named_and_the_run_goes_on_without_it(
    tmp_path: Path, runs: Path, engine: tuple[object, ...], added: dict[str, str], named: str
) -> None:
    recipe = write_recipe(tmp_path / "poisoned", num=30, on_bad_row="fail")
    clean = (tmp_path / "poisoned" / "arithmetic.jsonl").read_text()
    add_question(recipe, "arithmetic", POISONED)
    added = both(SMALL, added)
    status, said = done(tmp_path, added, "curate", recipe, "--runs", runs, *engine)
    assert (status, bool(re.search(named, error_in(said)))) == (3, True), said
    (tmp_path / "poisoned" / "arithmetic.jsonl").write_text(clean)
    assert goes_on(recipe, runs)["counts"]["by_reason"].keys() == {
        "exact_duplicate",
        "near_duplicate",
    }


# ── full ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "free",
    [
        pytest.param(30_000, id="reading"),
        pytest.param(150_000, id="embedding", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_loses_nothing_that_was_finished(
    recipe: Path, whole: dict[str, Any], small_disk: Path, tmp_path: Path, free: int
) -> None:
    ballast, runs = small_disk / "ballast", small_disk / "runs"
    ballast.write_bytes(bytes(2 * 1024**2 - free))
    status, said = done(tmp_path, SMALL, "curate", recipe, "--runs", runs, *LOCAL)
    full = r"cannot write .*No space left on device, [\d,]+ bytes free"
    assert (status, bool(re.match(full, error_in(said)))) == (7, True), said
    finished = {path: path.stat().st_mtime_ns for path in runs.rglob("*.safetensors")}
    assert bool(finished) == (free == 150_000)
    ballast.unlink()
    assert goes_on(recipe, runs) == whole
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
