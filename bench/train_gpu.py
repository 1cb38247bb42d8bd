"""LoRA training on a GPU: tokens a second, TFLOP/s and memory of our loop beside transformers' Trainer.

    python bench/train_gpu.py [--shape 13b | 7b] [--steps N] [--row-tokens N ...]
    python bench/train_gpu.py --dry-run        the same on the processor with a tiny shape

Random weights of Llama 2's shapes in bfloat16, adapters in float32, the paper's settings, questions of
Open-Platypus's lengths (bench/train_cpu.py). Contestants, each on a fresh model, in one process:

    monotreme      once for each --row-tokens: flat rows, fused MLP, logits of answers alone
    Trainer 1      a question at a time, 16 accumulated, bfloat16 autocast: the original's shape
    Trainer 4      four padded, 4 accumulated

The first steps are warm-up. Minutes are those of the paper's 24,926 questions at the measured rate;
floor_share is the share of the device's own rate in a large bfloat16 product.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from train_cpu import BATCH, CONFIG, MLP, encoded, padded, rows_of
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from monotreme.records import Question
from monotreme.train import attention
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.encode import Encoded
from monotreme.train.loop import Settings, train
from monotreme.train.lora import lora_config
from monotreme.train.parallel import Team
from monotreme.train.plan import flop, size_of

PAPERS_QUESTIONS = 24_926
WARM_UP = 3  # steps: allocator, kernels' choices
TARGET_MINUTES = 20.0  # of the paper's run, 13B, on an H200
SHAPES = {
    "7b": LlamaConfig(hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=4096),
    "13b": LlamaConfig(hidden_size=5120, intermediate_size=13_824, num_hidden_layers=40, num_attention_heads=40, num_key_value_heads=40, max_position_embeddings=4096),
    "tiny": CONFIG,
}  # fmt: skip


def fresh(config: LlamaConfig, device: torch.device, implementation: str) -> Any:
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
    return get_peft_model(model, lora_config(16, 16, 0.05, MLP)).to(device)


def ours(config: LlamaConfig, device: torch.device, data: Encoded, row_tokens: int) -> list[float]:
    """Seconds of each step, as the log has them."""
    questions = [Question("", "", str(i), "bench", "MIT", False) for i in range(len(data.lengths))]
    settings = Settings(4e-4, 0, BATCH, 1, "question", row_tokens, True, 10**6, 0)
    model = fresh(config, device, attention.ATTENTION)
    with tempfile.TemporaryDirectory() as folder:
        log, checkpoints = Path(folder) / "log.jsonl", Checkpoints(Path(folder) / "saved", {})
        train(model, data, questions, settings, checkpoints, log, Team())
        return [json.loads(line)["seconds"] for line in log.read_text().splitlines()]


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


def trainer(config: LlamaConfig, device: torch.device, data: Encoded, at_once: int) -> list[float]:
    steps = _Steps(device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=at_once, bf16=True, learning_rate=4e-4,
            gradient_accumulation_steps=BATCH // at_once, num_train_epochs=1, report_to=[], seed=0,
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=device.type == "cpu",
        )  # fmt: skip
        Trainer(
            fresh(config, device, "sdpa"), arguments, padded, rows_of(data), callbacks=[steps]
        ).train()
    return [b - a for a, b in zip(steps.times[:-1], steps.times[1:], strict=True)]


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


def measured(
    way: Callable[[], list[float]], data: Encoded, work: float, device: torch.device
) -> dict[str, float]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(way()[WARM_UP:])
    tokens = float(data.lengths.mean()) * BATCH
    steps = len(data.lengths) / BATCH
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {
        "tokens_per_second": tokens / seconds,
        "teraflops": work / steps / seconds / 1e12,
        "peak_gib": peak,
        "minutes": PAPERS_QUESTIONS / BATCH * seconds / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", choices=["7b", "13b"], default="13b")
    parser.add_argument("--steps", type=int, default=60, help="timed, after the warm-up")
    parser.add_argument("--row-tokens", type=int, nargs="*", default=[16_384, 4_096])
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
    ways: dict[str, Callable[[], list[float]]] = {
        f"monotreme {n}": lambda n=n: ours(config, device, data, n) for n in asked.row_tokens
    }
    ways |= {f"Trainer {n}": lambda n=n: trainer(config, device, data, n) for n in (1, 4)}
    found: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        try:
            found[name] = measured(way, data, work, device)
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory", file=sys.stderr)
            continue
        print(f"{name:<16} " + "  ".join(f"{key} {value:,.1f}" for key, value in found[name].items()), flush=True)  # fmt: skip
    best = max((f for n, f in found.items() if n.startswith("mono")), key=lambda f: f["teraflops"])
    peers = {n: f for n, f in found.items() if n.startswith("Trainer")}
    ratio = best["tokens_per_second"] / max((f["tokens_per_second"] for f in peers.values()), default=float("nan"))  # fmt: skip
    met = best["minutes"] <= TARGET_MINUTES and not asked.dry_run and asked.shape == "13b"
    share = best["teraflops"] * 1e12 / product_rate(device)
    print(json.dumps({"name": "train_gpu", "dry_run": asked.dry_run, "ours": best, "peers": peers, "ratio": ratio, "target": TARGET_MINUTES, "met": met, "floor_share": share}))  # fmt: skip


if __name__ == "__main__":
    main()
