"""The order of the stages, which of them are up to date, and doing those that are not.

A stage is a module with `inputs(run)`, the digest of everything it reads, and `execute(run)`. It is
imported only when it is asked for, so that no command pays for another's libraries.
"""

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from monotreme import stores
from monotreme.errors import InputError, UsageError
from monotreme.recipe import STAGES, is_url, load_recipe, local_paths
from monotreme.run import Run, no_run, open_run

State = Literal["done", "up to date", "to run", "waits"]


class Stage(Protocol):
    def inputs(self, run: Run) -> dict[str, str]: ...
    def execute(self, run: Run) -> None: ...


@dataclass(frozen=True)
class Step:
    """A stage and where it stands; `detail` says why where that is not plain."""

    stage: str
    state: State
    detail: str = ""


def find_run(where: Path, runs: Path, overrides: Sequence[str] = ()) -> Run:
    """The run of a recipe file, or the run that stands in a folder.

    Raises:
        InputError, RecipeError: there is neither, or the recipe is wrong.
        UsageError: overrides for the run of a folder.
        RemoteError, RefusedError, MismatchError: as `stores.pull`, where runs lie in a store.
    """
    if where.is_dir():
        if overrides:
            raise UsageError(
                f"--set does not go with the run folder {where}", "Name the recipe file"
            )
        return open_run(where)
    if not where.exists() and where.suffix not in (".yaml", ".yml"):
        raise no_run(where)
    recipe = load_recipe(where, overrides)
    run = Run(runs / recipe.name, recipe, where.resolve().parent)
    stores.pull(run.folder)
    return run


def plan(run: Run, stages: Sequence[str] = STAGES) -> Iterator[Step]:
    """What `execute` would do now; a stage after one that must run can only wait for it.

    Raises:
        MonotremeError: an input of the first stage that must run cannot be read, or a file or folder
            that the recipe names for a later one is not there.
    """
    _check_paths(run, stages)
    waits_for = ""
    for name in stages:
        if waits_for:
            yield Step(name, "waits", f"for {waits_for}")
        elif run.is_current(name, _stage(name).inputs(run)):
            yield Step(name, "up to date")
        else:
            yield Step(name, "to run")
            waits_for = name


def plan_training(
    run: Run, steps: Sequence[Step], try_steps: bool | None = None
) -> dict[str, Any] | None:
    """What the training will take, once its questions are there; None before, and after it.

    Args:
        try_steps: load the base and try a few steps; None for where there is a GPU.

    Raises:
        InputError, RemoteError: the base cannot be read, or is too large to try.
    """
    state = {step.stage: step.state for step in steps}
    if state["decontaminate"] != "up to date" or state["train"] == "up to date":
        return None
    from monotreme import train
    from monotreme.machine import device

    return train.plan_of(run, device() == "cuda" if try_steps is None else try_steps)


def execute(
    run: Run,
    stages: Sequence[str] = STAGES,
    *,
    announce: Callable[[Step], None] = lambda _: None,
) -> list[Step]:
    """Do the stages in order; those that are up to date are left as they are, unless `run.force`.

    Raises:
        InputError: what comes before the first of them is not up to date, or a file or folder that
            the recipe names for any of them is not there.

    Args:
        announce: told of each stage when it starts and when it has ended.
    """
    steps = []
    with run.open():
        _check_before(run, stages[0])
        _check_paths(run, stages)
        for name in stages:
            stage = _stage(name)
            if not run.force and run.is_current(name, stage.inputs(run)):
                step = Step(name, "up to date")
            else:
                announce(Step(name, "to run"))
                stage.execute(run)
                step = Step(name, "done", f"{run.record(name)['seconds']:.1f} s")
            announce(step)
            steps.append(step)
    return steps


def _check_before(run: Run, first: str) -> None:
    """A stage builds only on what the recipe says now, so what comes before must be up to date.

    Raises:
        InputError: an earlier stage has not finished, or not with this recipe and these inputs.
    """
    for name in STAGES[: STAGES.index(first)]:
        run.output(name, "record.json")
        if not run.is_current(name, _stage(name).inputs(run)):
            problem = f"{name} in {run.folder} is not of this recipe and its inputs as they are now"
            raise InputError(problem, f"Run `monotreme {name}`, or `monotreme run` for all stages")


def _check_paths(run: Run, stages: Sequence[str]) -> None:
    """What the recipe names on this machine must be there before hours are spent on earlier stages.

    Raises:
        InputError: a file or folder of one of the stages does not exist.
    """
    for stage in stages:
        for key, path in local_paths(run.recipe, stage):
            if is_url(path):
                stores.check(path)
            elif not run.locate(path).exists():
                problem = f"{stage}.{key}: {run.locate(path)} does not exist"
                raise InputError(problem, "Correct the path in the recipe")


def follow(where: Path, runs: Path, overrides: Sequence[str] = (), force: bool = False) -> None:
    """Help the training of this run that the process of rank 0 leads (torchrun's environment).

    Where that process has nothing to do, as the training is up to date, there is nothing to help with.
    """
    from monotreme import train

    run = find_run(where, runs, overrides)
    finished = (run.folder / train.NAME / "record.json").exists()
    if force or not (finished and run.is_current(train.NAME, train.inputs(run))):
        train.follow(run)


def push(
    run: Run, confirm: Callable[[Sequence[object]], bool], accepted: Collection[str] = ()
) -> list[str]:
    """Publish what `release` prepared.

    Args:
        confirm: is shown each upload (its `str` says what goes where) and says whether to go on.
        accepted: licences to pass questions on under although the licence does not allow it.

    Returns:
        The repositories' addresses.

    Raises:
        RefusedError, RecipeError, MismatchError, RemoteError: not prepared, checked, allowed or
            confirmed; no such licence; changed; not taken by the Hub.
    """
    from monotreme.release.push import push as publish

    return publish(run, confirm=confirm, accepted=accepted)


def _stage(name: str) -> Stage:
    return cast(Stage, importlib.import_module(f"monotreme.{name}"))
