"""LoRA training on the processor: our loop beside transformers' Trainer and TRL on the same questions.

    pip install --requirement bench/requirements.txt
    python bench/train_cpu.py [--steps N] [--quick]

A random Llama, LoRA of rank 16 on the MLPs with dropout 0.05, 16 questions a step, float32, lengths drawn
like Open-Platypus's (log-normal, mean 389, standard deviation 256, at most 3,153; seeded), three quarters
of each an answer; none is cut. In one process, one after another, each on a fresh copy of the model:

    monotreme        flat rows of at most 4,096 tokens, the fused MLP, logits of answers alone
    Trainer 1        the original's shape: a question at a time, 16 of them accumulated
    Trainer 4, 16    so many questions padded to the longest, 4 of them or 1 accumulated
    TRL              SFTTrainer's defaults: 8 padded, activations computed twice; 2 accumulated
    TRL padding-free 16 questions end to end, the mask of all of them with all of them
    TRL packed       rows of 4,096 tokens filled best fit first, 2 accumulated: not the recipe's steps

Processor seconds of the call that trains, one epoch, all threads; the first of a process also pays for
what is loaded late. The floor is the frozen products alone, forward and for the input's gradient, without
padding, at the rate of the largest of them. A peer that is not installed is named and left out.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curate import product_rate
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from monotreme.records import Question
from monotreme.train import attention
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.encode import Encoded
from monotreme.train.loop import Settings, train
from monotreme.train.lora import lora_config
from monotreme.train.parallel import Team
from monotreme.train.plan import flop, size_of

MLP = ["gate_proj", "up_proj", "down_proj"]
BATCH = 16
ROW_TOKENS = 4096
TARGET = 1.5  # times the best padded Trainer
TRL_TARGET = 2.0  # times TRL's defaults
CONFIG = LlamaConfig(
    vocab_size=8_000, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
    num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=ROW_TOKENS,
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


def spent(work: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def ours(data: Encoded, folder: Path) -> float:
    asked = [Question("", "", str(i), "bench", "MIT", False) for i in range(len(data.lengths))]
    settings = Settings(4e-4, 0, BATCH, 1, "question", ROW_TOKENS, False, 10**6, 0)
    nowhere = Checkpoints(folder / "ours", {})
    model = fresh(attention.ATTENTION)
    return spent(lambda: train(model, data, asked, settings, nowhere, folder / "log", Team()))


def rows_of(data: Encoded) -> list[dict[str, np.ndarray]]:
    """The questions as transformers' Trainer takes them."""
    labels = np.where(data.is_answer, data.ids, -100).astype(np.int64)
    ids = data.ids.astype(np.int64)
    return [
        {"input_ids": ids[a:b], "labels": labels[a:b]} for a, b in pairwise(data.offsets.tolist())
    ]


def arguments(folder: Path, at_once: int, accumulated: int, **more: Any) -> dict[str, Any]:
    """Of an epoch under transformers' Trainer, and so under TRL's."""
    return {
        "output_dir": str(folder / "trainer"), "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulated, "learning_rate": 4e-4, "num_train_epochs": 1,
        "lr_scheduler_type": "cosine", "report_to": [], "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True, "seed": 0, **more,
    }  # fmt: skip


ON_PROCESSOR = {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False}


def trainer(data: Encoded, folder: Path, at_once: int) -> float:
    asked = TrainingArguments(**arguments(folder, at_once, BATCH // at_once, **ON_PROCESSOR))
    return spent(Trainer(fresh("sdpa"), asked, padded, rows_of(data)).train)


def sft_trainer(model: Any, data: Encoded, asked: dict[str, Any]) -> Trainer:
    """TRL's trainer on the same tokens.

    Raises:
        ImportError: TRL is not installed.
    """
    import trl

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    rows = Dataset.from_list(rows_of(data))
    return trl.SFTTrainer(
        model, trl.SFTConfig(**asked), train_dataset=rows, processing_class=tokenizer
    )


def sft(data: Encoded, folder: Path, at_once: int, accumulated: int, **more: Any) -> float:
    asked = arguments(folder, at_once, accumulated, **{"max_length": None, **ON_PROCESSOR, **more})
    return spent(sft_trainer(fresh("sdpa"), data, asked).train)


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


def contestants(data: Encoded, folder: Path) -> dict[str, Callable[[], float]]:
    return {
        "monotreme": lambda: ours(data, folder),
        **{f"Trainer {n}": lambda n=n: trainer(data, folder, n) for n in (1, 4, 16)},
        "TRL": lambda: sft(data, folder, 8, BATCH // 8),
        "TRL padding-free": lambda: sft(data, folder, BATCH, 1, padding_free=True),
        "TRL packed": lambda: sft(data, folder, 1, 2, packing=True, max_length=ROW_TOKENS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=9, help="of 16 questions")
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
        for name, way in contestants(data, Path(folder)).items():
            try:
                found[name] = way()
            except ImportError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            print(f"{name:<16} {found[name]:8.1f} processor s", flush=True)
    mine = found.pop("monotreme")
    ratio = min(found["Trainer 4"], found["Trainer 16"]) / mine
    trl_ratio = found["TRL"] / mine if "TRL" in found else None
    met = ratio >= TARGET and (trl_ratio is None or trl_ratio >= TRL_TARGET)
    print(json.dumps({"name": "train_cpu", "ours": mine, "peers": found, "ratio": ratio, "target": TARGET, "trl_ratio": trl_ratio, "trl_target": TRL_TARGET, "met": met, "floor_share": floor(data) / mine}))  # fmt: skip


if __name__ == "__main__":
    main()
