"""One base held by several GPUs: each has a part of every block and fetches the rest for its turn.

PyTorch's FSDP2 (`fully_shard`) does it, by block. Embeddings, norms, head and the adapter stay whole on
every rank, so that optimizer and checkpoints are as with one GPU. The blocks are frozen: nothing is
reduced but what `Team.add_up` sums.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from monotreme import machine
from monotreme.errors import InputError
from monotreme.train.frozen import BasePrecision

SHAREABLE = ("bf16", "fp32")


def check_shareable(precision: BasePrecision) -> None:
    """Raise InputError if a base in this precision cannot be cut into parts."""
    if precision not in SHAREABLE:
        raise InputError(
            f"a base in {precision} cannot be shared by several GPUs",
            f"Set train.base_precision: {SHAREABLE[0]}, or train.shard: auto",
        )


def share_base(model: Any) -> None:
    """Cut the frozen blocks of `model`, the same on every rank, into a part a rank, in place.

    What is not cut moves to this rank's device whole.

    Raises:
        InputError: transformers does not say which modules are the model's blocks.
    """
    base = model.get_base_model()
    names = set(base._no_split_modules or ())  # transformers' own list, for the same purpose
    blocks = [module for module in base.modules() if type(module).__name__ in names]
    if not blocks:
        raise InputError(
            f"{type(base).__name__} does not say what its blocks are", "Set train.shard: auto"
        )
    device = torch.device(machine.device())  # a rank's own GPU is the current one
    cut = {p for block in blocks for p in block.parameters() if not p.requires_grad}
    whole = {p for p in model.parameters() if p not in cut}
    _move(model, whole, device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    root = getattr(base, base.base_model_prefix)  # PEFT goes past the hooks of those around it
    for module in (*blocks, root):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def _move(model: nn.Module, parameters: set[nn.Parameter], device: torch.device) -> None:
    """Move parameters, and every buffer, of a model to a device."""
    for parameter in parameters:
        parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
