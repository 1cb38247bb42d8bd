"""Losses, gradient norms and rates of whole trainings are those of a loop as a textbook writes it.

tests/data/trajectory.json holds them for a tiny training in float64 whose weights and tokens are
formulas, so that nothing but the mathematics decides them. `python tests/test_trajectory.py` writes
it anew; that is only right when the meaning of the training is meant to change.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import finish
from tiny_training import in_float64, uneven
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    get_cosine_schedule_with_warmup,
)

from monotreme import train
from monotreme.records import Question
from monotreme.run import Run
from monotreme.train import attention, batches, loop
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.encode import Encoded, encode, load_tokenizer
from monotreme.train.lora import add_adapter, lora_config, trainable
from monotreme.train.parallel import Team

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # PEFT 0.21 asks transformers for a property by its old name
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]

REFERENCE = Path(__file__).parent / "data" / "trajectory.json"
WEIGHTINGS = ("question", "token")
CLOSE = {
    "rel": 1e-11,
    "abs": 1e-12,
}  # float64: sums in another order, through twelve steps of AdamW


def plain_training(
    model: Any, encoded: Encoded, settings: loop.Settings
) -> Iterator[dict[str, Any]]:
    """Train question by question; gives each step's line.

    PEFT's layers, transformers' own attention and schedule, torch's AdamW and clipping; nothing of
    ours but the order of the questions.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    num, size = len(encoded.lengths), settings.batch_size
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    total = batches.num_steps(num, size, settings.epochs)
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, total)
    for step in range(total):
        chosen = batches.questions_of_step(num, size, settings.seed, step).tolist()
        answers = [int(encoded.num_answer_tokens[q]) for q in chosen]
        loss = torch.zeros((), dtype=weights[0].dtype)
        for q, answer in zip(chosen, answers, strict=True):
            span = slice(*encoded.offsets[q : q + 2])
            ids = torch.from_numpy(encoded.ids[span].astype(np.int64))[None]
            labels = ids[0].where(torch.from_numpy(encoded.is_answer[span]), -100)
            mean = F.cross_entropy(model(input_ids=ids).logits[0, :-1], labels[1:])
            by_question = settings.weighting == "question"
            loss = loss + mean * (1 / len(chosen) if by_question else answer / sum(answers))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        (rate,) = schedule.get_last_lr()
        yield {
            "questions": chosen,
            "learning_rate": rate,
            "loss": loss.item(),
            "grad_norm": norm.item(),
        }
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


# ── by formula alone ─────────────────────────────────────────────────────────────────────────────

CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
)  # fmt: skip


def questions_by_formula() -> Encoded:
    """14 questions of 12 to 51 tokens, of which 2 to 24 are the answer."""
    lengths = [12 + 9 * i % 40 for i in range(14)]
    starts = [length - 2 - 7 * i % (length // 2) for i, length in enumerate(lengths)]
    offsets = np.cumsum([0, *lengths])
    ids = (np.arange(offsets[-1], dtype=np.int32) ** 2 * 7 + 3) % 61 + 3
    is_answer = np.concatenate(
        [np.arange(length) >= start for length, start in zip(lengths, starts, strict=True)]
    )
    return Encoded(ids, is_answer, offsets)


def model_by_formula(implementation: str) -> Any:
    """A float64 Llama with an adapter; every weight but the norms' is a sine, B is zero.

    Not with "eager": that attention rounds its softmax to float32.
    """
    model = LlamaForCausalLM(CONFIG)
    model.set_attn_implementation(implementation)
    targets = ["gate_proj", "up_proj", "down_proj", "q_proj"]
    model = in_float64(add_adapter(model, lora_config(4, 8, 0.0, targets), 0))
    with torch.no_grad():
        for number, (name, weight) in enumerate(model.named_parameters(), start=1):
            if "norm" not in name and "lora_B" not in name:
                waves = torch.arange(weight.numel(), dtype=torch.float64) * number
                weight.copy_(0.2 * torch.sin(waves).view_as(weight))
    return model.eval()


def settings_of(weighting: Any) -> loop.Settings:
    return loop.Settings(2e-2, 3, 4, 3, weighting, 90, False, 100, 5)


def ours(model: Any, weighting: str, folder: Path) -> list[dict[str, Any]]:
    encoded, settings = questions_by_formula(), settings_of(weighting)
    asked = [Question("", "", str(i), "formula", "CC0-1.0", False) for i in range(14)]
    nowhere = Checkpoints(folder / "checkpoints", {})
    loop.train(model, encoded, asked, settings, nowhere, folder / "log.jsonl", Team())
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def plain(model: Any, weighting: str) -> list[dict[str, Any]]:
    return list(plain_training(model, questions_by_formula(), settings_of(weighting)))


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]], **close: Any) -> None:
    assert len(found) == len(expected)
    for line, reference in zip(found, expected, strict=True):
        for key in ("learning_rate", "loss", "grad_norm"):
            assert line[key] == pytest.approx(reference[key], **close), (key, line)


@pytest.fixture(scope="module")
def reference() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loop_gives_the_committed_trajectory(
    tmp_path: Path, reference: dict[str, list[dict[str, Any]]], weighting: str
) -> None:
    """Flat rows, the fused MLP and answer-only logits, through warm-up, clipping and two epochs' ends."""
    model = model_by_formula(attention.ATTENTION)
    assert_same(ours(model, weighting, tmp_path), reference[weighting], **CLOSE)
    norms = [line["grad_norm"] for line in reference[weighting]]
    assert min(norms) < loop.CLIP < max(norms)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_plain_loop_still_gives_the_committed_trajectory(
    reference: dict[str, list[dict[str, Any]]], weighting: str
) -> None:
    found = plain(model_by_formula("sdpa"), weighting)
    assert_same(found, reference[weighting], **CLOSE)
    assert [line["questions"] for line in found] == [
        line["questions"] for line in reference[weighting]
    ]


def test_the_adapter_at_the_end_is_the_plain_loops(tmp_path: Path) -> None:
    """AdamW, the clipped gradient and the schedule are torch's and transformers', to the last step."""
    fast, slow = model_by_formula(attention.ATTENTION), model_by_formula("sdpa")
    ours(fast, "question", tmp_path)
    plain(slow, "question")
    expected = trainable(slow)
    for name, weight in trainable(fast).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-7, atol=1e-9)


# ── from the texts ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_stages_log_is_the_plain_loops(
    make_run: Callable[..., Run], tiny_model: Path, weighting: str
) -> None:
    """The same in float32, from questions to log.jsonl."""
    questions = uneven(14)
    run = make_run(train={"batch_size": 4, "epochs": 2, "warmup_steps": 3, "rank": 4, "learning_rate": 1e-2, "dropout": 0.0, "weighting": weighting})  # fmt: skip
    finish(run, "decontaminate", questions)
    train.execute(run)
    encoded, kept, _ = encode(load_tokenizer(tiny_model, False), questions, 512)
    assert kept == questions
    recipe = run.recipe.train
    model = add_adapter(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
        lora_config(recipe.rank, recipe.alpha, 0.0, recipe.targets),
        run.recipe.seed,
    )
    settings = loop.Settings(1e-2, 3, 4, 2, recipe.weighting, 512, False, 100, run.recipe.seed)
    lines = run.output("train", "log.jsonl").read_text(encoding="utf-8").splitlines()
    expected = list(plain_training(model, encoded, settings))
    assert_same([json.loads(line) for line in lines], expected, rel=1e-3)


def main() -> None:
    """Write the reference anew."""
    found = {weighting: plain(model_by_formula("sdpa"), weighting) for weighting in WEIGHTINGS}
    REFERENCE.parent.mkdir(exist_ok=True)
    lines = [
        f'"{weighting}": [\n' + ",\n".join(map(json.dumps, steps)) + "\n]"
        for weighting, steps in found.items()
    ]
    REFERENCE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
