"""Checkpoints that are whole, belong to this training, and go on from exactly where it stopped.

`checkpoints/step-N` holds the adapter, the optimizer's state and the log after N steps, and
state.json with the SHA-256 of each and of what is trained on what. Order and dropout are functions
of the seed and the step, so nothing else is needed to end with the same bytes.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from monotreme.errors import MismatchError
from monotreme.progress import notice
from monotreme.storage import remove, sha256, writing

KEEP = 2  # the newest, and one to fall back to
ADAPTER, OPTIMIZER, LOG = "adapter.safetensors", "optimizer.safetensors", "log.jsonl"
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        folder: where `step-N` folders stand.
        identity: digests by name (data, settings, base): what must be the same to go on.
    """

    folder: Path
    identity: Mapping[str, str]

    def save(
        self,
        step: int,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        log: Path,
    ) -> None:
        """Write the state after `step` steps; it appears whole or not at all.

        Raises:
            StorageError: the disk is full or the place cannot be written.
        """
        with writing(self.folder / f"step-{step}") as folder:
            folder.mkdir()
            save_file({name: p.detach() for name, p in parameters.items()}, folder / ADAPTER)
            save_file(_optimizer_tensors(parameters, optimizer), folder / OPTIMIZER)
            shutil.copyfile(log, folder / LOG)
            files = {name: sha256(folder / name) for name in (ADAPTER, OPTIMIZER, LOG)}
            state = {"step": step, "identity": dict(self.identity), "files": files}
            (folder / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        for old in self._newest_first()[KEEP:]:
            remove(old)

    def restore(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        log: Path,
    ) -> int:
        """Go back to the newest whole checkpoint of this training.

        A damaged one is passed over with a notice.

        Returns:
            The steps done; 0 where there is no checkpoint, with an empty log.

        Raises:
            MismatchError: the newest whole one is of another training.
        """
        for folder in self._newest_first():
            state = self._usable(folder)
            if state is not None:
                _load(folder, parameters, optimizer)
                shutil.copyfile(folder / LOG, log)
                return int(state["step"])
        log.write_text("", encoding="utf-8")
        return 0

    def forget(self) -> None:
        """Remove them all: the training begins anew."""
        for folder in self._newest_first():
            remove(folder)

    def _newest_first(self) -> list[Path]:
        found = [p for p in self.folder.glob("step-*") if p.name.removeprefix("step-").isdecimal()]
        return sorted(found, key=lambda p: int(p.name.removeprefix("step-")), reverse=True)

    def _usable(self, folder: Path) -> dict[str, Any] | None:
        """The state of a whole checkpoint of this training, else None."""
        try:
            state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
            identity, files = state["identity"], state["files"]
            whole = all(
                (folder / name).is_file() and sha256(folder / name) == files[name]
                for name in (ADAPTER, OPTIMIZER, LOG)
            )
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            notice(f"checkpoint {folder} is damaged and is passed over")
            return None
        others = [name for name in self.identity if identity.get(name) != self.identity[name]]
        if others:
            raise MismatchError(
                f"{folder} is of a training with other {' and '.join(others)}",
                "Finish that training with its own recipe, or begin this one anew with --force",
            )
        return state


def _optimizer_tensors(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """AdamW's state as `<weight's name>/<exp_avg, exp_avg_sq or step>`."""
    return {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }


def _load(
    folder: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    weights = load_file(folder / ADAPTER)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    numbers = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Tensor]] = {number: {} for number in numbers.values()}
    for path, value in load_file(folder / OPTIMIZER).items():
        name, key = path.rsplit("/", 1)
        state[numbers[name]][key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
