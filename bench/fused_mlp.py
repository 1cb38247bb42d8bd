"""The fused MLP of train against PEFT's own layers: processor seconds and bytes kept, in one run.

    python bench/fused_mlp.py [--quick]

One block in the shape of Llama 3.2 1B (2,048 → 8,192), LoRA of rank 16 on its three layers, dropout
0.05, 512 tokens of four questions, forward and backward. The peer is PEFT as it comes, with torch's
dropout; on the processor that keeps four bytes a mask, on a GPU one, so a third contestant keeps one:
it is what the ratio is against. All get the same weights and input; without dropout they must agree.
What counts is the bytes kept for the backward pass (target: at most half), at no more processor time
than PEFT takes. The floor is the block's frozen products alone, forward and for the gradient of x.
--quick: 128 tokens.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from monotreme.train.dropout import Draws, KeyedDropout, key_dropout
from monotreme.train.fused_mlp import fused
from monotreme.train.lora import drop_in_adapter_only, trainable

HIDDEN, INNER, RANK, DROPOUT, NUM_QUESTIONS = 2048, 8192, 16, 0.05, 4
REPEATS, PEER = 15, "PEFT, a byte a mask"


class Block(nn.Module):
    """A model that is one MLP."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        config = LlamaConfig(hidden_size=HIDDEN, intermediate_size=INNER)
        self.mlp = LlamaMLP(config).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class ByteDropout(nn.Dropout):
    """torch's dropout as it is on a GPU: it keeps a byte a mask."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, self.training)[0]


def keep_bytes(model: nn.Module) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout):
            model.set_submodule(name, ByteDropout(module.p))


def adapted(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    targets = ["gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=DROPOUT, target_modules=targets)
    model = get_peft_model(Block(dtype), config)
    for name, weight in trainable(model).items():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.02)
    drop_in_adapter_only(model)
    return model


def begin(draws: Draws, num_tokens: int) -> None:
    """Four questions of the same length are the row under way."""
    length = num_tokens // NUM_QUESTIONS
    row: Any = SimpleNamespace(
        ids=torch.zeros(1, num_tokens),
        questions=torch.arange(NUM_QUESTIONS).numpy(),
        position_ids=torch.arange(length).repeat(NUM_QUESTIONS)[None],
        cu_seq_lens=torch.arange(0, num_tokens + 1, length),
    )
    draws.begin(0, row, torch.device("cpu"))


def forward(model: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        return model(x)


def update(model: Any, x: Tensor, direction: Tensor) -> list[Tensor]:
    """The output, and the gradients of x and of the adapters."""
    y = forward(model, x)
    return [y, *torch.autograd.grad(y, [x, *trainable(model).values()], direction)]


def saved_bytes(model: Any, x: Tensor) -> int:
    """Kept for the backward pass, each storage once, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward(model, x)
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)


def processor_seconds(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Medians; the tasks take turns, so that a busy machine is busy for all of them."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            started = time.process_time()
            task()
            found[name].append(time.process_time() - started)
    return {name: median(times[1:]) for name, times in found.items()}  # the first warms up


def products(model: Any, x: Tensor, direction: Tensor) -> None:
    """The frozen layers' matrix products of one update, nothing else."""
    mlp = model.base_model.model.mlp
    gate, up, down = (getattr(mlp, f"{n}_proj").base_layer.weight for n in ("gate", "up", "down"))
    with torch.no_grad():
        x, grad = x[0], direction[0]
        x @ gate.T
        h = x @ up.T
        h @ down.T
        h = grad @ down
        h @ gate
        h @ up


def check_agreement(ours: Any, theirs: Any, x: Tensor, direction: Tensor) -> None:
    results = [update(model.eval(), x, direction) for model in (ours, theirs)]
    limit = torch.finfo(x.dtype).eps ** 0.5 / 4
    for a, b in zip(*results, strict=True):
        if (a - b).norm() > limit * b.norm():
            raise SystemExit("the fused block and PEFT's layers disagree")
    for model in (ours, theirs):
        drop_in_adapter_only(model)


def compare(dtype: torch.dtype, num_tokens: int) -> dict[str, dict[str, float]]:
    """Of ours, of PEFT's layers with three kinds of dropout, and of the floor: seconds and bytes."""
    peft, lean, masked, ours = (adapted(dtype) for _ in range(4))
    keep_bytes(lean)
    for model in (masked, ours):
        begin(key_dropout(model, 0), num_tokens)
    x = torch.randn(1, num_tokens, HIDDEN).to(dtype).requires_grad_()
    direction = torch.randn(1, num_tokens, HIDDEN).to(dtype)
    with fused(ours) as way:
        if way != "fused" or not any(isinstance(m, KeyedDropout) for m in ours.modules()):
            raise SystemExit("the block does not go through the fused function")
        check_agreement(ours, peft, x, direction)
        models = {"monotreme": ours, "PEFT": peft, PEER: lean, "PEFT, our masks": masked}
        tasks = {name: partial(update, model, x, direction) for name, model in models.items()}
        floor = {"products": partial(products, ours, x, direction)}
        times = processor_seconds({**tasks, **floor}, REPEATS)
        kept = {name: saved_bytes(model, x) for name, model in models.items()}
    return {"seconds": times, "bytes": kept}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="128 tokens")
    num_tokens = 128 if parser.parse_args().quick else 512
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        found[dtype] = compare(dtype, num_tokens)
        print(f"{str(dtype).removeprefix('torch.')}, {num_tokens} tokens")
        for name, seconds in found[dtype]["seconds"].items():
            mebibytes = found[dtype]["bytes"].get(name, 0) / 2**20
            print(
                f"  {name:<24} {seconds * 1e3:8.1f} ms of the processor {mebibytes:8.1f} MiB kept"
            )
    ratios = [each["bytes"]["monotreme"] / each["bytes"][PEER] for each in found.values()]
    times = [each["seconds"]["monotreme"] / each["seconds"]["PEFT"] for each in found.values()]
    print(f"bytes kept against {PEER}: {ratios[0]:.3f} and {ratios[1]:.3f}; "
          f"processor time against PEFT: {times[0]:.2f} and {times[1]:.2f}")  # fmt: skip
    seconds, kept = (found[torch.bfloat16][what] for what in ("seconds", "bytes"))
    line = {
        "name": "fused_mlp", "ours": kept["monotreme"],
        "peers": {name: kept[name] for name in ("PEFT", PEER)},
        "ratio": max(ratios), "target": 0.5, "met": max(ratios) <= 0.5 and max(times) <= 1.0,
        "floor_share": seconds["products"] / seconds["monotreme"],
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
