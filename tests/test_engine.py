"""An engine gives what one process gives, whatever becomes of its workers."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from monotreme.engine import Died, Engine, Given, InProcess, Shared, open_engine
from monotreme.engine.processes import _InFile
from monotreme.errors import EngineError, InputError, UsageError

# ── work for the workers: they import it from here ───────────────────────────────────────────────


def times(factor: int, number: int) -> int:
    return factor * number


def slow_first(_: None, number: int) -> int:
    time.sleep(0.2 * (number == 0))
    return number


def total_with(shared: Shared[np.ndarray], number: int) -> int:
    return int(shared.value.sum()) + number


def upper(_: object, rows: Sequence[str]) -> list[str]:
    if "poison" in rows:
        os.kill(os.getpid(), signal.SIGKILL)
    return [row.upper() for row in rows]


def die_once(mark: Path, number: int) -> int:
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(_: None, number: int) -> int:
    if number == 2:
        raise InputError("number 2 is not wanted", "Give another")
    return number


class OddError(ValueError):
    """Made of more than its text, and so not made again of it in another process."""

    def __init__(self, row: int, limit: int) -> None:
        super().__init__(f"row {row} is over\nthe limit of {limit}.")


def fail_oddly(_: None, number: int) -> int:
    raise OddError(number, 3)


def take_memory(_: None, num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def count_made(folder: Path) -> Path:
    (folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    return folder


def total_of(tensor: torch.Tensor, number: int) -> int:
    time.sleep(0.1)  # so that each worker has its turn
    return int(tensor.sum()) + number


def nothing(_: object, number: int) -> int:
    return number


@pytest.fixture(autouse=True, scope="module")
def importable() -> Iterator[None]:
    """Ray's workers find this file as they find what is installed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module", params=["local-1", "local-2", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "ray":
        pytest.importorskip("ray", reason="ray is not installed (pip install 'monotreme[ray]')")
    name, _, num = request.param.partition("-")
    with open_engine(name, int(num or 2), None) as found:
        yield found


def test_results_come_in_the_items_order(engine: Engine) -> None:
    make = Given(None)
    assert list(engine.map(slow_first, range(40), make)) == list(range(40))
    assert list(engine.map(times, [1, 2, 3], Given(10))) == [10, 20, 30]
    assert list(engine.map(times, [], Given(10))) == []


def test_a_shared_array_reaches_every_worker(engine: Engine) -> None:
    array = engine.share(np.arange(1000))
    assert list(engine.map(total_with, [0, 1, 2], Given(array))) == [
        499500,
        499501,
        499502,
    ]


def test_a_tensor_reaches_every_worker(engine: Engine) -> None:
    make = Given(torch.ones(1000))
    assert list(engine.map(total_of, range(8), make)) == list(range(1000, 1008))


def test_what_is_shared_no_longer_takes_no_room() -> None:
    with open_engine("local", 2, None) as engine:
        shared = engine.share(np.arange(1000))
        assert isinstance(shared, _InFile)
        path = shared.path
        assert list(engine.map(total_with, [0], Given(shared))) == [499500]
        assert path.exists()
        del shared
        assert not path.exists()


def test_a_full_disk_under_what_is_shared_is_named() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_engine("local", 2, None) as engine:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(EngineError, match=r"cannot be written to .*TMPDIR"):
                engine.share(np.arange(10_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_items_are_taken_as_they_are_needed(engine: Engine) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = engine.map(nothing, items(), Given(None))
    assert next(results) == 0
    assert len(taken) <= 20
    assert list(results) == list(range(1, 1000))


def test_what_work_needs_is_made_once_a_worker(engine: Engine, tmp_path: Path) -> None:
    assert len(list(engine.map(nothing, range(20), partial(count_made, tmp_path)))) == 20
    assert 1 <= len(list(tmp_path.iterdir())) <= engine.num_workers


def test_an_error_of_the_work_is_raised_as_it_was(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"^number 2 is not wanted\. Give another\.$"):
        list(engine.map(refuse, range(5), Given(None)))


@pytest.mark.parametrize("engine", ["local-2", "ray"], indirect=True)
def test_an_error_that_cannot_travel_is_told_in_one_line(engine: Engine) -> None:
    told = r"^a worker failed with OddError: row 2 is over the limit of 3\. Give "
    with pytest.raises(EngineError, match=told):
        list(engine.map(fail_oddly, [2], Given(None)))


# ── workers that die ─────────────────────────────────────────────────────────────────────────────


# in one process there is no worker beside it, and its death is everyone's
in_workers = pytest.mark.parametrize("engine", ["local-2", "ray"], indirect=True)


@in_workers
def test_a_worker_that_is_killed_takes_nothing_with_it(engine: Engine, tmp_path: Path) -> None:
    make = Given(tmp_path / "died")
    assert list(engine.map(die_once, range(12), make)) == list(range(12))
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize(
    "engine", ["local-2", pytest.param("ray", marks=pytest.mark.slow)], indirect=True
)
def test_the_one_row_that_kills_is_found_and_the_others_are_done(engine: Engine) -> None:
    rows = [f"row {n}" for n in range(20)]
    rows[13] = "poison"
    parts = [rows[:10], rows[10:]]
    found = list(engine.sift(upper, parts, Given(None)))
    fine = [done for _, outcome in found if not isinstance(outcome, Died) for done in outcome]
    assert sorted(fine) == sorted(row.upper() for row in rows if row != "poison")
    assert [list(item) for item, outcome in found if isinstance(outcome, Died)] == [["poison"]]


@in_workers
def test_a_part_that_kills_is_an_error_where_nothing_can_be_set_aside(engine: Engine) -> None:
    with pytest.raises(EngineError, match="part 2 of this step kills every worker that tries it"):
        list(engine.map(upper, [["a"], ["poison"]], Given(None)))


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
from monotreme.engine import Given, open_engine
from test_engine import slow_first

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
with open_engine(f"ray:{nodes.address}", None, None) as engine:
    assert engine.num_workers == 2
    found = engine.map(slow_first, range(60), Given(None))
    given = [next(found) for _ in range(10)]
    nodes.remove_node(other, allow_graceful=False)
    assert [*given, *found] == list(range(60))
nodes.shutdown()
print("done")
"""


def test_a_machine_that_dies_takes_its_workers_and_no_item() -> None:
    pytest.importorskip("ray", reason="ray is not installed (pip install 'monotreme[ray]')")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", CLUSTER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.stdout.splitlines()[-1:] == ["done"], ended.stderr[-2000:]


def test_a_worker_over_its_memory_says_so_and_the_others_go_on() -> None:
    with open_engine("local", 1, 2_000_000_000) as engine:
        with pytest.raises(EngineError, match="a worker needs more than its 2,000,000,000 bytes"):
            list(engine.map(take_memory, [3_000_000_000], Given(None)))
        assert list(engine.map(take_memory, [1000], Given(None))) == [1000]


def test_no_worker_outlives_its_engine_or_a_killed_driver(tmp_path: Path) -> None:
    driver = (
        "import os, sys, time\n"
        ""
        "from monotreme.engine import Given, open_engine\n"
        "from test_engine import leave_pid\n"
        "if __name__ == '__main__':\n"
        "    engine = open_engine('local', 2, None)\n"
        "    list(engine.map(leave_pid, range(4), Given(sys.argv[1])))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(driver)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    pids = [int(mark.name.removeprefix("pid-")) for mark in tmp_path.glob("pid-*")]
    assert pids
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def leave_pid(folder: str, number: int) -> int:
    (Path(folder) / f"pid-{os.getpid()}").touch()
    return number


def test_an_engine_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="there is no engine 'spark'"):
        open_engine("spark", None, None)


def test_a_cluster_that_does_not_answer_is_named() -> None:
    pytest.importorskip("ray", reason="ray is not installed (pip install 'monotreme[ray]')")
    code = "from monotreme.engine import open_engine; open_engine('ray:127.0.0.1:9', None, None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "EngineError: the Ray cluster at 127.0.0.1:9 cannot be used" in last


def test_the_usual_engine_is_this_process_and_imports_no_other() -> None:
    assert isinstance(open_engine("local", None, None), InProcess)
    code = (
        "import sys; from monotreme.engine import open_engine; open_engine('local', 1, None);"
        "print({'ray', 'multiprocessing', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
