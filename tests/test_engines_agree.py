"""The same bytes from one process, several, or a cluster; cut in whatever pieces, warm or cold."""

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from crews import (
    both,
    environment,
    marks,
    result,
    sizes,
    until,
    waits,
    write_recipe,
)

from monotreme import pipeline
from monotreme.engine import open_engine

STAGES = ("curate", "decontaminate")
# How work is cut: small and odd, so that nothing fits evenly.
CUT: dict[str, dict[str, Any]] = {
    "monotreme.curate.reading": {"ROWS_AT_ONCE": 41},
    "monotreme.curate.fates": {"WRITTEN_AT_ONCE": 31},
    "monotreme.mapped": {"BATCH_ROWS": 29},
    "monotreme.embed": {"SHARD_TEXTS": 37},
    "monotreme.neighbors.tiles": {"TILES": {"cpu": (64, 96), "cuda": (64, 96)}},
    "monotreme.neighbors.pairs": {"DECIDED_AT_ONCE": 100},
    "monotreme.decontaminate.views": {"QUESTIONS_AT_ONCE": 53},
    "monotreme.decontaminate.judging": {"PAIRS_AT_ONCE": 7},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("agree"), num=40)


@pytest.fixture(scope="module")
def whole(recipe: Path) -> dict[str, Any]:
    """What one process gives, in the usual pieces."""
    runs = recipe.with_name("whole")
    found = results_of(recipe, runs)
    curate, decontaminate = (found[stage]["counts"] for stage in STAGES)
    assert curate["by_reason"].keys() >= {"near_duplicate", "exact_duplicate", "bad_row"}
    assert decontaminate["dropped"] > 2  # there is something that engines could disagree on
    return found


def results_of(
    recipe: Path, runs: Path, engine: str = "local", workers: int | None = None
) -> dict[str, Any]:
    """Both stages anew, on one engine."""
    run = pipeline.find_run(recipe, runs)
    with open_engine(engine, workers, None) as opened:
        pipeline.execute(replace(run, engine=opened, force=True), STAGES)
    return {stage: result(runs, stage) for stage in STAGES}


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Let the workers of this test have constants and code of its own; constants here too."""

    def set_(constants: dict[str, dict[str, Any]], code: dict[str, str] | None = None) -> None:
        for module, names in constants.items():
            for name, value in names.items():
                monkeypatch.setattr(importlib.import_module(module), name, value)
        added = both(sizes(constants), code or {})
        for name, text in environment(tmp_path, added).items():
            monkeypatch.setenv(name, text)

    return set_


def tell_width(folder: Path) -> dict[str, str]:
    """Added to the comparison: each process leaves the width of its tiles."""
    code = (
        f"import os\nopen({str(folder)!r} + f'/{{os.getpid()}}-{{TILES[\"cpu\"][1]}}', 'w').close()"
    )
    return {"monotreme.neighbors.tiles": code}


def widths(folder: Path) -> set[str]:
    return {path.name.split("-")[1] for path in folder.glob("*-*")}


# ── on one machine ──────────────────────────────────────────────────────────────────────────────


def test_two_processes_and_other_pieces_change_no_byte(
    recipe: Path, whole: dict[str, Any], everywhere: Callable[..., None], tmp_path: Path
) -> None:
    """Cold, then with the vectors of the first time and Ray instead of processes."""
    pytest.importorskip("ray", reason="ray is not installed (pip install 'monotreme[ray]')")
    told = tmp_path / "told"
    told.mkdir()
    everywhere(CUT, tell_width(told))
    assert results_of(recipe, tmp_path / "runs", workers=2) == whole
    assert widths(told) == {"96"}  # the workers had the other pieces too
    assert results_of(recipe, tmp_path / "runs", "ray", 2) == whole


@pytest.mark.slow
def test_ray_on_one_node_changes_no_byte(
    recipe: Path, whole: dict[str, Any], everywhere: Callable[..., None], tmp_path: Path
) -> None:
    """Cold, then with the vectors of the first time and one process in small pieces."""
    pytest.importorskip("ray", reason="ray is not installed (pip install 'monotreme[ray]')")
    everywhere({})
    assert results_of(recipe, tmp_path / "runs", "ray", 2) == whole
    everywhere(CUT)
    assert results_of(recipe, tmp_path / "runs") == whole


# ── on two ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def two_nodes() -> Iterator[tuple[str, Any, Any]]:
    """A Ray cluster of a head and another node, a processor each: its address, and both."""
    pytest.importorskip("ray", reason="ray is not installed (pip install 'monotreme[ray]')")
    from ray.cluster_utils import Cluster

    has = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=has)
    try:
        node = cluster.add_node(**has)
        yield f"ray:{cluster.address}", cluster.head_node, node
    finally:
        cluster.shutdown()


def raylet(node: Any) -> psutil.Process:
    """The process that all workers of a node are children of."""
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def pull_the_plug(node: Any) -> None:
    """Every process of a node is killed at once."""
    first = raylet(node)
    for process in [first, *first.children(recursive=True)]:
        process.kill()


@pytest.mark.slow
def test_two_nodes_change_no_byte(
    recipe: Path, whole: dict[str, Any], everywhere: Callable[..., None], tmp_path: Path
) -> None:
    everywhere(CUT, waits(tmp_path))
    with two_nodes() as (address, head, node):
        assert results_of(recipe, tmp_path / "runs", address) == whole
        worked_on = {int(mark.name.split("-")[1]) for mark in marks(tmp_path)}
        assert worked_on == {raylet(head).pid, raylet(node).pid}
    assert results_of(recipe, tmp_path / "runs", workers=2) == whole


@pytest.mark.slow
def test_a_node_that_dies_in_the_middle_changes_no_byte(
    recipe: Path, whole: dict[str, Any], everywhere: Callable[..., None], tmp_path: Path
) -> None:
    """It dies while its worker has texts in hand; there is no room for another worker elsewhere."""
    everywhere(CUT, waits(tmp_path))
    with two_nodes() as (address, _, node):
        (tmp_path / "hold").touch()
        was_at_work = []

        def kill() -> None:
            pid = raylet(node).pid
            until(lambda: list(tmp_path.glob(f"begun-{pid}-*")))
            (mark,) = tmp_path.glob(f"begun-{pid}-*")
            was_at_work.append(psutil.pid_exists(int(mark.name.split("-")[2])))
            pull_the_plug(node)
            (tmp_path / "hold").unlink()

        killer = threading.Thread(target=kill)
        killer.start()
        assert results_of(recipe, tmp_path / "runs", address) == whole
        killer.join()
        assert was_at_work == [True]
