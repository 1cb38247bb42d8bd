"""LoRA training on a GPU: tokens a second, TFLOP/s and memory of our loop beside the peers'.

    pip install --requirement bench/requirements.txt
    python bench/train_gpu.py [--shape 13b | 7b] [--steps N] [--row-tokens N ...]
    python bench/train_gpu.py --unsloth        that peer alone: it changes the others' code on import
    python bench/train_gpu.py --dry-run        on the processor with a tiny shape

Random weights of Llama 2's shapes in bfloat16, adapters in float32, the paper's settings, questions of
Open-Platypus's lengths (bench/train_cpu.py), one epoch. Contestants, each on a fresh model, in one process:

    monotreme        once for each --row-tokens: flat rows, fused MLP, logits of answers alone
    monotreme fp8    the same with the base's linear layers in float8
    Trainer 1        a question at a time, 16 accumulated, bfloat16 autocast: the original's shape
    Trainer 4        four padded, 4 accumulated
    TRL packed       SFTTrainer's defaults, rows of 4,096 tokens, 2 accumulated; activations computed twice
    TRL packed once  without that
    unsloth packed   its own layers and TRL's trainer, the same rows

FlashAttention serves the Trainers where it is installed. The first steps are warm-up. Minutes are those of
the paper's 24,926 questions at the measured rate; floor_share is the share of the device's own rate in a
large bfloat16 product. Then the memory of one row of so many tokens. A peer that is not installed, or
whose memory is not enough, is named and left out.
"""

import sys

if "--unsloth" in sys.argv:
    import unsloth  # before all that it changes

import argparse
import gc
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from train_cpu import (
    BATCH,
    CONFIG,
    MLP,
    ROW_TOKENS,
    arguments,
    encoded,
    padded,
    rows_of,
    sft_trainer,
)
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from monotreme.records import Question
from monotreme.train import attention
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.encode import Encoded
from monotreme.train.frozen import to_float8
from monotreme.train.loop import Settings, train
from monotreme.train.lora import lora_config
from monotreme.train.parallel import Team
from monotreme.train.plan import flop, size_of

PAPERS_QUESTIONS = 24_926
WARM_UP = 3  # steps: allocator, kernels' choices
TARGET_MINUTES = {"monotreme": 20.0, "monotreme fp8": 15.0}  # of the paper's run, 13B, on an H200
SHAPES = {
    "7b": LlamaConfig(hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=ROW_TOKENS),
    "13b": LlamaConfig(hidden_size=5120, intermediate_size=13_824, num_hidden_layers=40, num_attention_heads=40, num_key_value_heads=40, max_position_embeddings=ROW_TOKENS),
    "tiny": CONFIG,
}  # fmt: skip
THEIR_ATTENTION = "flash_attention_2" if find_spec("flash_attn") else "sdpa"
MEMORY_TOKENS = (2_048, 4_096, 8_192, 12_288, 16_384, 20_480)  # of a row, in questions of 512


def base(config: LlamaConfig, device: torch.device, implementation: str) -> Any:
    """A model whose weights are drawn on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    torch.manual_seed(0)
    try:
        with device:
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.set_attn_implementation(implementation)
    return model


def fresh(config: LlamaConfig, device: torch.device, implementation: str) -> Any:
    """With an adapter of the paper's."""
    model = base(config, device, implementation)
    return get_peft_model(model, lora_config(16, 16, 0.05, MLP)).to(device)


def our_model(config: LlamaConfig, device: torch.device, precision: str) -> Any:
    model = fresh(config, device, attention.ATTENTION)
    if precision == "fp8":
        to_float8(model)
    return model


def our_steps(model: Any, data: Encoded, row_tokens: int, batch: int) -> tuple[list[float], int]:
    """Seconds of each step, as the log has them, and the tokens of a row that fitted."""
    questions = [Question("", "", str(i), "bench", "MIT", False) for i in range(len(data.lengths))]
    settings = Settings(4e-4, 0, batch, 1, "question", row_tokens, True, 10**6, 0)
    with tempfile.TemporaryDirectory() as folder:
        log, checkpoints = Path(folder) / "log.jsonl", Checkpoints(Path(folder) / "saved", {})
        done = train(model, data, questions, settings, checkpoints, log, Team())
        times = [json.loads(line)["seconds"] for line in log.read_text().splitlines()]
        return times, int(done["row_tokens"])


def ours(
    config: LlamaConfig, device: torch.device, data: Encoded, row_tokens: int, precision: str
) -> list[float]:
    return our_steps(our_model(config, device, precision), data, row_tokens, BATCH)[0]


# ── the peers ────────────────────────────────────────────────────────────────────────────────────


class _Steps(TrainerCallback):
    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def _note(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._note()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._note()


def timed(trainer: Trainer, device: torch.device) -> list[float]:
    """Seconds of each step of a training."""
    steps = _Steps(device)
    trainer.add_callback(steps)
    trainer.train()
    return [b - a for a, b in zip(steps.times[:-1], steps.times[1:], strict=True)]


def trainer(config: LlamaConfig, device: torch.device, data: Encoded, at_once: int) -> list[float]:
    on_device = {"bf16": True, "use_cpu": device.type == "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        asked = TrainingArguments(**arguments(Path(folder), at_once, BATCH // at_once, **on_device))
        model = fresh(config, device, THEIR_ATTENTION)
        return timed(Trainer(model, asked, padded, rows_of(data)), device)


def packed(model: Any, device: torch.device, data: Encoded, **more: Any) -> list[float]:
    """TRL's trainer on rows of 4,096 tokens, two a step."""
    more |= {"packing": True, "max_length": ROW_TOKENS, "use_cpu": device.type == "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        return timed(sft_trainer(model, data, arguments(Path(folder), 1, 2, **more)), device)


def trl(config: LlamaConfig, device: torch.device, data: Encoded, twice: bool) -> list[float]:
    model = fresh(config, device, THEIR_ATTENTION)
    return packed(model, device, data, gradient_checkpointing=twice)


def unsloth_packed(config: LlamaConfig, device: torch.device, data: Encoded) -> list[float]:
    """unsloth loads its models from a folder and puts its own adapter in."""
    with tempfile.TemporaryDirectory() as folder:
        base(config, torch.device("cpu"), "sdpa").save_pretrained(folder)
        model, _ = unsloth.FastLanguageModel.from_pretrained(
            folder, max_seq_length=ROW_TOKENS, dtype=torch.bfloat16, load_in_4bit=False
        )
        model = unsloth.FastLanguageModel.get_peft_model(
            model, r=16, lora_alpha=16, lora_dropout=0.05, target_modules=MLP, bias="none"
        )
        return packed(model, device, data, gradient_checkpointing=False)


# ── what is measured ─────────────────────────────────────────────────────────────────────────────


def product_rate(device: torch.device) -> float:
    """FLOP a second of a large bfloat16 product."""
    size = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    spent = []
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(5):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)
    return 5 * 2 * size**3 / min(spent)


def forget_peak(device: torch.device) -> None:
    gc.collect()  # the model before: trainers hold themselves in circles
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0


def measured(
    way: Callable[[], list[float]], data: Encoded, work: float, device: torch.device
) -> dict[str, float]:
    """Rates of an epoch whose steps each take what the median one takes."""
    forget_peak(device)
    times = way()
    seconds = statistics.median(times[WARM_UP:]) * len(times)
    num = len(data.lengths)
    return {
        "tokens_per_second": float(data.lengths.sum()) / seconds,
        "teraflops": work / seconds / 1e12,
        "peak_gib": peak_gib(device),
        "minutes": PAPERS_QUESTIONS / num * seconds / 60,
    }


def memory_by_tokens(config: LlamaConfig, device: torch.device, precision: str) -> dict[int, float]:
    """Peak GiB of a step whose questions are one row, until the memory is not enough."""
    model, found = our_model(config, device, precision), {}
    for tokens in MEMORY_TOKENS if device.type == "cuda" else MEMORY_TOKENS[:2]:
        num = tokens // 512
        row = Encoded(
            np.full(tokens, 5, np.int32),
            np.tile(np.arange(512) >= 128, num),
            np.arange(num + 1) * 512,
        )
        forget_peak(device)
        if our_steps(model, row, tokens, num)[1] < tokens:
            break
        found[tokens] = peak_gib(device)
    return found


def contestants(
    config: LlamaConfig, device: torch.device, data: Encoded, rows: list[int]
) -> dict[str, Callable[[], list[float]]]:
    at_hand = (config, device, data)
    return {
        **{f"monotreme {n}": partial(ours, *at_hand, n, "bf16") for n in rows},
        **{f"monotreme fp8 {n}": partial(ours, *at_hand, n, "fp8") for n in rows},
        **{f"Trainer {n}": partial(trainer, *at_hand, n) for n in (1, 4)},
        "TRL packed": partial(trl, *at_hand, True),
        "TRL packed once": partial(trl, *at_hand, False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", choices=["7b", "13b"], default="13b")
    parser.add_argument("--steps", type=int, default=60, help="timed, after the warm-up")
    parser.add_argument("--row-tokens", type=int, nargs="*", default=[16_384, 4_096])
    parser.add_argument("--unsloth", action="store_true", help="that peer alone")
    parser.add_argument("--dry-run", action="store_true", help="on the processor, tiny, 2 steps")
    asked = parser.parse_args()
    if not (asked.dry_run or torch.cuda.is_available()):
        print("no CUDA device: nothing measured (--dry-run runs it on the processor)")
        return
    warnings.filterwarnings("ignore")  # the peers' own
    device = torch.device("cpu" if asked.dry_run else "cuda")
    config = SHAPES["tiny" if asked.dry_run else asked.shape]
    data = encoded(((2 if asked.dry_run else asked.steps) + WARM_UP) * BATCH)
    size = size_of(config, lora_config(16, 16, 0.0, MLP))
    work = flop(size, data.lengths, int(data.num_answer_tokens.sum()))
    ways = contestants(config, device, data, asked.row_tokens)
    if asked.unsloth:
        ways = {"unsloth packed": partial(unsloth_packed, config, device, data)}
    found: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        try:
            found[name] = measured(way, data, work, device)
        except (ImportError, torch.OutOfMemoryError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}", flush=True)
            continue
        print(f"{name:<20} " + "  ".join(f"{key} {value:,.1f}" for key, value in found[name].items()), flush=True)  # fmt: skip
    if asked.unsloth:
        print(json.dumps({"name": "train_gpu unsloth", "dry_run": asked.dry_run, "peers": found}))
        return
    if not find_spec("unsloth"):
        print("unsloth is left out: it is not installed (else: --unsloth)")
    memory = {how: memory_by_tokens(config, device, how) for how in ("bf16", "fp8")}
    for how, peaks in memory.items():
        print(f"{how}: peak GiB of a row of " + ", ".join(f"{n:,} tokens {gib:.1f}" for n, gib in peaks.items()))  # fmt: skip
    print(json.dumps(summary(asked, found, memory, product_rate(device))))


def summary(
    asked: argparse.Namespace,
    found: dict[str, dict[str, float]],
    memory: dict[str, dict[int, float]],
    product: float,
) -> dict[str, Any]:
    """The best of ours against the best of theirs; the targets hold for the 13B shape on an H200."""
    mine = {name: rates for name, rates in found.items() if name.startswith("monotreme")}
    peers = {name: rates for name, rates in found.items() if name not in mine}
    best = max(mine.values(), key=lambda rates: rates["tokens_per_second"])
    fastest = max((rates["tokens_per_second"] for rates in peers.values()), default=float("nan"))
    minutes = {
        kind: min(r["minutes"] for n, r in mine.items() if n.rpartition(" ")[0] == kind)
        for kind in TARGET_MINUTES
    }
    met = all(minutes[kind] <= target for kind, target in TARGET_MINUTES.items())
    return {
        "name": "train_gpu", "dry_run": asked.dry_run, "ours": mine, "peers": peers,
        "ratio": best["tokens_per_second"] / fastest, "target": TARGET_MINUTES, "minutes": minutes,
        "met": met and not asked.dry_run and asked.shape == "13b",
        "floor_share": best["teraflops"] * 1e12 / product, "memory_gib": memory,
    }  # fmt: skip


if __name__ == "__main__":
    main()
