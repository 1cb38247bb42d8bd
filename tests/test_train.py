"""The training means what it says: packing, cut, weights, order, rates, and an adapter PEFT reads."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import finish, sums, write_model, write_tokenizer
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_training import EXACT, MLP, fresh_model, gradients, in_float64, step_loss, uneven
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM
from transformers import get_cosine_schedule_with_warmup as reference_schedule

from monotreme import train
from monotreme.errors import InputError, MismatchError, StorageError
from monotreme.models import load_model
from monotreme.records import Question, question_table, read_table
from monotreme.run import Run
from monotreme.storage import sha256
from monotreme.train import attention, batches, loop
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.dropout import key_dropout
from monotreme.train.encode import Encoded, encode, load_tokenizer
from monotreme.train.lora import (
    max_positions,
    save_adapter,
)
from monotreme.train.parallel import Team

# PEFT 0.21 asks transformers for a property by its old name
PEFT_WARNING = "ignore:`is_gradient_checkpointing`:FutureWarning"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model64(tiny_model: Path) -> Any:
    return in_float64(fresh_model(tiny_model, targets=[*MLP, "q_proj", "k_proj", "v_proj"]))


@pytest.fixture(scope="module")
def encoded(tiny_model: Path) -> Encoded:
    return encode(load_tokenizer(tiny_model, False), uneven(9), 512)[0]


def mean_losses_alone(model: Any, encoded: Encoded) -> list[Tensor]:
    """Each question's mean loss over its answer by transformers' own attention, alone."""
    model.set_attn_implementation("sdpa")
    losses = []
    for start, end in pairwise(encoded.offsets.tolist()):
        ids = torch.from_numpy(encoded.ids[start:end].astype(np.int64))[None]
        labels = ids.where(torch.from_numpy(encoded.is_answer[start:end]), -100)
        logits = model(input_ids=ids).logits[0, :-1]  # its own loss would round to float32
        losses.append(F.cross_entropy(logits, labels[0, 1:], ignore_index=-100))
    model.set_attn_implementation(attention.ATTENTION)
    return losses


# ── what a step's loss means ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("weighting", ["question", "token"])
@pytest.mark.parametrize("budget", [1, 200, 100_000])
def test_neither_packing_nor_cut_changes_loss_or_gradient(
    model64: Any, encoded: Encoded, weighting: Any, budget: int
) -> None:
    """Against transformers' own attention on one question at a time, in float64."""
    means = torch.stack(mean_losses_alone(model64, encoded))
    tokens = torch.from_numpy(encoded.num_answer_tokens)
    expected = means.mean() if weighting == "question" else (means * tokens).sum() / tokens.sum()
    loss = step_loss(model64, encoded, np.arange(9), weighting, budget)
    torch.testing.assert_close(loss, expected, **EXACT)
    ours, reference = gradients(model64, loss), gradients(model64, expected)
    assert any(g.abs().max() > 1e-3 for g in reference.values())
    for name, gradient in reference.items():
        torch.testing.assert_close(ours[name], gradient, **EXACT)


def test_weightings_differ_on_uneven_answers(model64: Any, encoded: Encoded) -> None:
    by_question = step_loss(model64, encoded, np.arange(9), "question", 512)
    by_token = step_loss(model64, encoded, np.arange(9), "token", 512)
    assert abs(by_question - by_token) > 1e-4


def test_the_order_within_a_step_does_not_matter(model64: Any, encoded: Encoded) -> None:
    forth = step_loss(model64, encoded, np.arange(9), "question", 300)
    back = step_loss(model64, encoded, np.arange(9)[::-1].copy(), "question", 300)
    torch.testing.assert_close(forth, back, **EXACT)


def test_packed_logits_equal_each_question_alone(model64: Any, encoded: Encoded) -> None:
    (row,) = batches.micro_batches(encoded, np.arange(9), np.ones(9), 100_000)
    kwargs = attention.boundaries(row.cu_seq_lens, row.max_length)
    packed = model64(row.ids, position_ids=row.position_ids, use_cache=False, **kwargs).logits[0]
    model64.set_attn_implementation("sdpa")
    for start, end in pairwise(row.cu_seq_lens.tolist()):
        alone = model64(row.ids[:, start:end], use_cache=False).logits[0]
        torch.testing.assert_close(packed[start:end], alone, **EXACT)


# ── rates and sums ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("total", "warmup"), [(1558, 100), (7, 0), (5, 10), (10, 10), (1, 0)])
def test_rates_are_those_of_transformers(total: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=4e-4)
    schedule = reference_schedule(optimizer, warmup, total)
    for step in range(total):
        expected = optimizer.param_groups[0]["lr"]
        found = loop.learning_rate(step, total, warmup, 4e-4)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-18)
        optimizer.step()
        schedule.step()


def test_loss_by_source_is_the_mean_in_the_steps_weighting() -> None:
    """Two questions of a (losses 2 and 4) and one of b (6), each a third of the step's loss."""
    found = loop.loss_by_source(["a", "b", "a"], [2 / 3, 6 / 3, 4 / 3], [1 / 3] * 3)
    assert found == pytest.approx({"a": 3.0, "b": 6.0})


# ── the adapter ──────────────────────────────────────────────────────────────────────────────────


def test_dropout_works_in_the_adapter_alone(tiny_model: Path, encoded: Encoded) -> None:
    model = fresh_model(tiny_model, dropout=0.5)
    training = [name for name, m in model.named_modules() if m.training]
    assert training
    assert all(set(MLP) & set(name.split(".")) for name in training)  # adapted layers and below
    losses = []
    for seed in (3, 3, 4):
        draws = key_dropout(model, seed)
        losses.append(step_loss(model, encoded, np.arange(9), "question", 512, draws))
    assert [name for name, m in model.named_modules() if m.training] == training
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_peft_reads_the_adapter_and_says_what_the_trained_model_says(
    tiny_model: Path, encoded: Encoded, tmp_path: Path
) -> None:
    model = fresh_model(tiny_model)
    settings = loop.Settings(1e-2, 0, 3, 1, "question", 512, False, 50, 0)
    nowhere = Checkpoints(tmp_path / "checkpoints", {})
    loop.train(model, encoded, uneven(9), settings, nowhere, tmp_path / "log.jsonl", Team())
    save_adapter(model, tmp_path / "adapter", "some/base", "0123abc")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    read = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.from_numpy(encoded.ids[: encoded.offsets[1]].astype(np.int64))[None]
    model.eval().set_attn_implementation("sdpa")
    with torch.no_grad():
        expected = model(ids).logits
        torch.testing.assert_close(read(ids).logits, expected)
        with read.disable_adapter():
            assert not torch.allclose(read(ids).logits, expected, atol=1e-3)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"
    assert (config["revision"], config["inference_mode"]) == ("0123abc", True)
    assert config["target_modules"] == sorted(MLP)
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


# ── the stage ────────────────────────────────────────────────────────────────────────────────────

SHORT = {"batch_size": 4, "warmup_steps": 2, "rank": 4, "learning_rate": 2e-2}


def stage(make_run: Callable[..., Run], questions: list[Question], **settings: Any) -> Run:
    run = make_run(train={**SHORT, **settings})
    finish(run, "decontaminate", questions)
    return run


def log_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.output("train", "log.jsonl").read_text().splitlines()]


def test_the_stage_learns_and_leaves_what_it_promises(
    make_run: Callable[..., Run], tiny_model: Path
) -> None:
    before = sha256(tiny_model)
    too_long = replace(sums(1)[0], output="word " * 600, source="long")
    no_answer = replace(sums(1)[0], output="")
    run = stage(make_run, [*uneven(18), too_long, no_answer], epochs=4, max_length=500)
    train.execute(run)
    record = run.record("train")
    counts, facts, log = record["counts"], record["facts"], log_of(run)
    assert (counts["read"], counts["kept"], counts["dropped"]) == (20, 18, 2)
    assert counts["by_reason"] == {"too_long": 1, "no_answer": 1}
    gone = read_table(run.output("train", "dropped.parquet")).to_pylist()
    assert [row["reason"] for row in gone] == ["too_long", "no_answer"]
    assert [line["step"] for line in log] == list(range(1, 21))
    assert facts["num_steps"] == 4 * 5
    assert facts["num_tokens"] == sum(line["num_tokens"] for line in log)
    assert facts["mean_length"] == pytest.approx(facts["num_tokens"] / 4 / 18, abs=0.05)
    assert facts["num_trainable_parameters"] == 2 * 3 * 4 * (32 + 64)
    assert facts["first_loss"] == pytest.approx(np.mean([line["loss"] for line in log[:10]]))
    assert facts["last_loss"] < facts["first_loss"] - 0.1
    assert (log[0]["learning_rate"], log[1]["learning_rate"]) == (0, 1e-2)
    assert set(log[0]["loss_by_source"]) <= {"source 0", "source 1", "source 2"}
    assert (run.folder / "train/loss.svg").read_text().startswith("<svg")
    assert not (run.folder / "train/checkpoints").exists()
    assert sha256(tiny_model) == before
    assert run.is_current("train", train.inputs(run))


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(
    make_run: Callable[..., Run],
) -> None:
    weights = []
    for seed in (1, 1, 2):
        run = make_run(seed=seed, train={**SHORT, "dropout": 0.1})
        finish(run, "decontaminate", uneven(9))
        train.execute(run)
        weights.append(run.output("train", "adapter/adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_bf16_trains_close_to_fp32(make_run: Callable[..., Run]) -> None:
    losses = []
    for precision in ("bf16", "fp32"):
        run = stage(make_run, uneven(12), base_precision=precision, dropout=0.0)
        train.execute(run)
        weights = load_file(run.output("train", "adapter/adapter_model.safetensors"))
        assert {w.dtype for w in weights.values()} == {torch.float32}
        losses.append([line["loss"] for line in log_of(run)])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_a_loss_that_is_no_number_stops_with_step_and_question(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][7] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    run = stage(make_run, sums(1), base=str(folder))
    with pytest.raises(InputError, match=f"step 1: the loss .* {sums(1)[0].id[:12]}"):
        train.execute(run)
    assert not (run.folder / "train/record.json").exists()


def test_a_full_disk_is_one_line(tiny_model: Path, encoded: Encoded, tmp_path: Path) -> None:
    settings = loop.Settings(1e-2, 0, 3, 1, "question", 512, False, 50, 0)
    nowhere = Checkpoints(tmp_path / "checkpoints", {})
    with pytest.raises(StorageError, match="cannot write /dev/full"):
        loop.train(
            fresh_model(tiny_model),
            encoded,
            uneven(9),
            settings,
            nowhere,
            Path("/dev/full"),
            Team(),
        )


def test_nothing_to_train_on_is_one_line(make_run: Callable[..., Run]) -> None:
    for questions, count in ((sums(2), 2), ([], 0)):
        with pytest.raises(InputError, match=f"none of {count} questions"):
            train.execute(stage(make_run, questions, max_length=8))


def test_the_models_own_limit_holds_too(make_run: Callable[..., Run], tiny_model: Path) -> None:
    assert max_positions(load_model(tiny_model, "fp32", False, attention.ATTENTION).config) == 512
    long = replace(sums(1)[0], output="7" * 600)
    run = stage(make_run, [*sums(3), long], max_length=4096)
    train.execute(run)
    (row,) = read_table(run.output("train", "dropped.parquet")).to_pylist()
    assert row["detail"].endswith("limit 512")


def test_a_folder_without_model_is_one_line(make_run: Callable[..., Run], tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer-only")
    run = stage(make_run, sums(2), base=str(tmp_path / "tokenizer-only"))
    with pytest.raises(InputError, match="tokenizer-only"):
        train.execute(run)


def test_too_little_memory_halves_the_rows_and_changes_nothing(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card whose memory ends at 300 tokens a row."""
    plain = stage(make_run, uneven(9), dropout=0.1)
    train.execute(plain)
    before = (plain.folder / "train/adapter/adapter_model.safetensors").read_bytes()
    losses = loop.question_losses

    @contextmanager
    def small(model: Any) -> Iterator[Any]:
        with losses(model) as inner:

            def limited(row: batches.MicroBatch, autocast: bool) -> Tensor:
                if row.ids.numel() > 300:
                    raise torch.OutOfMemoryError("full")
                return inner(row, autocast)

            yield limited

    monkeypatch.setattr(loop, "question_losses", small)
    train.execute(plain)
    assert plain.record("train")["facts"]["row_tokens"] < 300
    after = load_file(plain.folder / "train/adapter/adapter_model.safetensors")
    (plain.folder / "before.safetensors").write_bytes(before)
    for name, weight in load_file(plain.folder / "before.safetensors").items():
        torch.testing.assert_close(after[name], weight, rtol=1e-4, atol=1e-6)


def test_a_question_that_alone_is_too_much_for_the_memory_is_one_line(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def none(_: Any) -> Iterator[Any]:
        def full(*_: Any) -> Tensor:
            raise torch.OutOfMemoryError("full")

        yield full

    monkeypatch.setattr(loop, "question_losses", none)
    with pytest.raises(InputError, match=r"step 1: the GPU's memory .* a row of \d+ tokens"):
        train.execute(stage(make_run, sums(9)))


def test_questions_that_are_too_long_are_refused_where_the_recipe_says_so(
    make_run: Callable[..., Run],
) -> None:
    long = replace(sums(1)[0], output="7" * 600)
    with pytest.raises(InputError, match=r"1 questions have more than 512 tokens .* \d+ tokens"):
        train.execute(stage(make_run, [*sums(3), long], too_long="refuse"))


def test_questions_that_were_changed_after_the_check_are_refused(
    make_run: Callable[..., Run],
) -> None:
    run = stage(make_run, sums(4))
    pq.write_table(question_table(sums(5)), run.folder / "decontaminate/questions.parquet")
    with pytest.raises(MismatchError, match="allow_unchecked"):
        train.execute(run)
    allowed = stage(make_run, sums(4), allow_unchecked=True)
    pq.write_table(question_table(sums(5)), run.folder / "decontaminate/questions.parquet")
    train.execute(allowed)
    assert allowed.record("train")["facts"]["checked"] is False
