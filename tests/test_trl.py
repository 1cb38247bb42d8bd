"""With token weighting the training is TRL's SFTTrainer's: tokens, losses, gradient norms, rates, adapter.

TRL tokenises the same texts, pads, sums over accumulated micro-batches and optimises by itself.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import finish
from datasets import Dataset
from safetensors.torch import load_file
from tiny_training import MLP, uneven
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from monotreme import train
from monotreme.prompt import prompt
from monotreme.records import Question
from monotreme.run import Run
from monotreme.train.batches import num_steps, questions_of_step
from monotreme.train.encode import encode, load_tokenizer
from monotreme.train.lora import add_adapter, lora_config, trainable

trl = pytest.importorskip("trl", reason="trl is not installed: it is part of the extra `dev`")

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # what TRL warns of is not what is tested
]

NUM, BATCH, EPOCHS, SEED = 16, 4, 2, 3
RECIPE = {
    "batch_size": BATCH,
    "epochs": EPOCHS,
    "warmup_steps": 3,
    "rank": 4,
    "alpha": 8,
    "learning_rate": 1e-2,
    "dropout": 0.0,
    "weighting": "token",
    "targets": MLP,
}


@pytest.fixture
def ours(make_run: Callable[..., Run]) -> Run:
    run = make_run(train=RECIPE, seed=SEED)
    finish(run, "decontaminate", uneven(NUM))
    train.execute(run)
    return run


def in_order(questions: list[Question]) -> list[Question]:
    """As the steps of all epochs come to them."""
    steps = range(num_steps(NUM, BATCH, EPOCHS))
    return [questions[i] for step in steps for i in questions_of_step(NUM, BATCH, SEED, step)]


def sft_trainer(base: Path, folder: Path) -> Any:
    """TRL's trainer on the texts; two questions at a time, accumulated to a step's four."""

    class InOrder(trl.SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(train_dataset or self.train_dataset)

    arguments = trl.SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=BATCH // 2,
        num_train_epochs=1, learning_rate=1e-2, lr_scheduler_type="cosine", warmup_steps=3,
        weight_decay=0.0, bf16=False, gradient_checkpointing=False, use_cpu=True, logging_steps=1,
        report_to=[], save_strategy="no", disable_tqdm=True, max_length=512,
    )  # fmt: skip
    model = add_adapter(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        lora_config(4, 8, 0.0, MLP),
        SEED,
    )
    texts = [{"prompt": prompt(q), "completion": q.output} for q in in_order(uneven(NUM))]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    return InOrder(
        model,
        arguments,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )


def test_trl_gives_the_same_losses_and_the_same_adapter(
    ours: Run, tiny_model: Path, tmp_path: Path
) -> None:
    trainer = sft_trainer(tiny_model, tmp_path / "trl")
    encoded, *_ = encode(load_tokenizer(tiny_model, False), in_order(uneven(NUM)), 512)
    theirs = trainer.train_dataset
    assert [i for ids in theirs["input_ids"] for i in ids] == encoded.ids.tolist()
    assert [i != -100 for ids in theirs["labels"] for i in ids] == encoded.is_answer.tolist()

    trainer.train()
    log = [json.loads(line) for line in ours.output("train", "log.jsonl").read_text().splitlines()]
    steps = [line for line in trainer.state.log_history if "grad_norm" in line]
    assert len(steps) == len(log) == 8
    for line, step in zip(log, steps, strict=True):
        for key in ("loss", "grad_norm", "learning_rate"):
            assert line[key] == pytest.approx(step[key], rel=1e-5), (key, line["step"])

    adapter = load_file(ours.output("train", "adapter/adapter_model.safetensors"))
    expected = {name.replace(".default", ""): p for name, p in trainable(trainer.model).items()}
    assert set(adapter) == set(expected)
    for name, weight in adapter.items():
        torch.testing.assert_close(weight, expected[name].detach(), rtol=1e-4, atol=1e-6)
