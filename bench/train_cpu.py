"""LoRA training on the processor: our loop beside transformers' Trainer, padded, on the same questions.

    python bench/train_cpu.py [--steps N] [--quick]

A random Llama, LoRA of rank 16 on the MLPs with dropout 0.05, 16 questions a step, float32, lengths drawn
like Open-Platypus's (log-normal, mean 389, standard deviation 256, at most 3,153; seeded), three quarters
of each an answer. In one process, one after another, each on a fresh copy of the model:

    monotreme      flat rows of at most 4,096 tokens, the fused MLP, logits of answers alone
    Trainer 1      the original's shape: a question at a time, 16 of them accumulated
    Trainer 4, 16  so many questions padded to the longest, 4 of them or 1 accumulated

Processor seconds of the steps after the first, all threads. The floor is the frozen products alone,
forward and for the input's gradient, without padding, at the rate of the largest of them.
"""

import argparse
import json
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curate import product_rate
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from monotreme.records import Question
from monotreme.train import attention
from monotreme.train.batches import cut, questions_of_step
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.encode import Encoded
from monotreme.train.loop import Settings, train
from monotreme.train.lora import lora_config
from monotreme.train.parallel import Team
from monotreme.train.plan import flop, size_of

MLP = ["gate_proj", "up_proj", "down_proj"]
BATCH = 16
TARGET = 1.5  # times the best padded Trainer
CONFIG = LlamaConfig(
    vocab_size=8_000, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
    num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=4096,
)  # fmt: skip


def lengths(num: int) -> np.ndarray:
    """Tokens of Open-Platypus's questions: mean 389, standard deviation 256, 55 to 3,153."""
    spread = np.log(1 + (256 / 389) ** 2)
    drawn = np.random.default_rng(0).lognormal(np.log(389) - spread / 2, spread**0.5, num)
    return np.clip(drawn.round(), 55, 3153).astype(np.int64)


def encoded(num: int) -> Encoded:
    sizes = lengths(num)
    offsets = np.cumsum([0, *sizes])
    ids = np.random.default_rng(1).integers(3, CONFIG.vocab_size, offsets[-1]).astype(np.int32)
    mask = np.concatenate([np.arange(size) >= size // 4 for size in sizes])
    return Encoded(ids, mask, offsets)


def fresh(implementation: str) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    model.set_attn_implementation(implementation)
    config: LoraConfig = lora_config(16, 16, 0.05, MLP)
    return get_peft_model(model, config)


def ours(data: Encoded, folder: Path) -> float:
    """Seconds from the first forward pass of the second step to the end."""
    num = len(data.lengths)
    questions = [Question("", "", str(i), "bench", "MIT", False) for i in range(num)]
    settings = Settings(4e-4, 0, BATCH, 1, "question", 4096, False, 10**6, 0)
    first = _Clock()
    model = fresh(attention.ATTENTION)
    model.register_forward_pre_hook(first.note)
    train(
        model, data, questions, settings, Checkpoints(folder / "ours", {}), folder / "log", Team()
    )
    return first.since(_first_rows(data, settings))


def _first_rows(data: Encoded, settings: Settings) -> int:
    """Forward passes of the first step."""
    chosen = questions_of_step(len(data.lengths), BATCH, settings.seed, 0)
    return len(cut(data.lengths[chosen].tolist(), settings.row_tokens))


class _Clock:
    """Processor seconds since a forward pass, by its number."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def note(self, *_: object) -> None:
        self.times.append(time.process_time())

    def since(self, number: int) -> float:
        return time.process_time() - self.times[min(number, len(self.times) - 1)]


class _AfterFirst(TrainerCallback):
    started = 0.0

    def on_step_end(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 1:
            self.started = time.process_time()


def rows_of(data: Encoded) -> list[dict[str, np.ndarray]]:
    """The questions as transformers' Trainer takes them."""
    labels = np.where(data.is_answer, data.ids, -100).astype(np.int64)
    ids = data.ids.astype(np.int64)
    return [
        {"input_ids": ids[a:b], "labels": labels[a:b]} for a, b in pairwise(data.offsets.tolist())
    ]


def trainer(data: Encoded, folder: Path, at_once: int) -> float:
    clock = _AfterFirst()
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), per_device_train_batch_size=at_once,
        gradient_accumulation_steps=BATCH // at_once, learning_rate=4e-4, num_train_epochs=1,
        lr_scheduler_type="cosine", report_to=[], save_strategy="no", logging_strategy="no",
        use_cpu=True, disable_tqdm=True, seed=0, dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(fresh("sdpa"), arguments, padded, rows_of(data), callbacks=[clock]).train()
    return time.process_time() - clock.started


def padded(rows: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)

    def filled(name: str, value: int) -> Tensor:
        shape = [np.pad(row[name], (0, longest - len(row[name])), constant_values=value) for row in rows]  # fmt: skip
        return torch.from_numpy(np.stack(shape))

    ids = filled("input_ids", 0)
    sizes = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(longest)[None] < sizes[:, None]).long()
    return {"input_ids": ids, "labels": filled("labels", -100), "attention_mask": mask}


def floor(data: Encoded) -> float:
    """Seconds of the frozen products of all steps at the rate of the MLP's."""
    size = size_of(CONFIG, lora_config(16, 16, 0.0, MLP))
    work = flop(size, data.lengths, int(data.num_answer_tokens.sum()))
    left = torch.randn(2048, CONFIG.hidden_size)
    return work / product_rate(left, torch.randn(CONFIG.hidden_size, CONFIG.intermediate_size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=9, help="the first is not counted")
    parser.add_argument("--quick", action="store_true", help="three steps")
    asked = parser.parse_args()
    steps = 3 if asked.quick else asked.steps
    warnings.filterwarnings("ignore")  # of the peers' own: their reports are not what is measured
    data = encoded(steps * BATCH)
    print(
        f"{len(data.lengths)} questions, {data.lengths.mean():.0f} tokens in the mean, {steps} steps"
    )
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {"monotreme": lambda: ours(data, Path(folder))}
        ways |= {f"Trainer {n}": lambda n=n: trainer(data, Path(folder), n) for n in (1, 4, 16)}
        for name, way in ways.items():
            found[name] = way()
            print(f"{name:<11} {found[name]:8.1f} processor s", flush=True)
    best = min(found["Trainer 4"], found["Trainer 16"])
    ratio = best / found["monotreme"]
    share = floor(data) * (steps - 1) / steps / found["monotreme"]
    print(json.dumps({"name": "train_cpu", "ours": found["monotreme"], "peers": {n: s for n, s in found.items() if n != "monotreme"}, "ratio": ratio, "target": TARGET, "met": ratio >= TARGET, "floor_share": share}))  # fmt: skip


if __name__ == "__main__":
    main()
