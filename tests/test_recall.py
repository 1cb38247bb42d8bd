"""What a self-test found is told of the check that it was of, and of no other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import finish, sums

from monotreme.errors import InputError
from monotreme.recall import FILE, self_tested
from monotreme.run import Run

FOUND = [{"benchmark": "b", "kind": "verbatim", "planted": 9, "caught": 8}]


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    made = make_run()
    finish(made, "decontaminate", sums(3))
    return made


def leave(run: Run, **other: object) -> None:
    record = run.record("decontaminate")
    test = {key: record[key] for key in ("settings", "versions", "inputs")} | other
    (run.folder / FILE).write_text(json.dumps({**test, "found": FOUND}))


def test_the_figures_of_this_check_are_told(run: Run) -> None:
    assert self_tested(run) == []
    leave(run)
    assert self_tested(run) == FOUND


@pytest.mark.parametrize(
    "other", [{"settings": {}}, {"versions": {"python": "2"}}, {"inputs": {"encoder": "another"}}]
)
def test_those_of_another_check_are_not(run: Run, other: dict[str, object]) -> None:
    leave(run, **other)
    assert self_tested(run) == []


def test_a_file_that_is_broken_is_named(run: Run) -> None:
    (run.folder / FILE).write_text("{")
    with pytest.raises(InputError, match=str(Path(FILE))):
        self_tested(run)
