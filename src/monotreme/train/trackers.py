"""TensorBoard and Weights & Biases, told of every line of the log beside log.jsonl."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from monotreme.errors import InputError

Tell = Callable[[Mapping[str, Any]], None]


def check_trackers(names: Sequence[str]) -> None:
    """Raise InputError if a tracker's package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise InputError(
                f"train.trackers names {name}, which is not installed",
                f'pip install "monotreme[{name}]", or take it out',
            )


@contextmanager
def tracking(
    names: Sequence[str], run: str, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Tell]:
    """Give what tells every tracker of a line of the log.

    Args:
        run: the run's name.
        folder: where trackers keep their files; TensorBoard's stand in `tensorboard`.
        settings: of the training, which W&B shows beside it.
    """
    with ExitStack() as stack:
        open_one = {"tensorboard": _tensorboard, "wandb": _wandb}
        tells = [stack.enter_context(open_one[name](run, folder, settings)) for name in names]

        def tell_all(line: Mapping[str, Any]) -> None:
            for tell in tells:
                tell(line)

        yield tell_all


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log by their path: `loss_by_source/openbookqa`."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            found |= {f"{key}/{name}": number for name, number in value.items()}
        elif key != "step":
            found[key] = value
    return found


@contextmanager
def _tensorboard(_run: str, folder: Path, _settings: Mapping[str, Any]) -> Iterator[Tell]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def tell(line: Mapping[str, Any]) -> None:
            for name, number in scalars(line).items():
                writer.add_scalar(name, number, line["step"])

        yield tell


@contextmanager
def _wandb(run: str, folder: Path, settings: Mapping[str, Any]) -> Iterator[Tell]:
    import wandb

    with wandb.init(project="monotreme", name=run, dir=folder, config=dict(settings)) as live:
        yield lambda line: live.log(scalars(line), step=line["step"])
