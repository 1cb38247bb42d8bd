"""Log-likelihoods: whatever is batched together, the numbers are those of one text by itself."""

import math
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from monotreme.errors import InputError
from monotreme.scoring.plain import score_plain
from monotreme.scoring.scorer import Scorer, load_scorer
from monotreme.scoring.shared import score_shared
from monotreme.scoring.spans import encode_pairs

TOLERANCE = 1e-4  # nats, float32

PAIRS = [
    ("Question: What is two plus three?\nAnswer:", " The answer is 5."),
    ("Question: What is two plus three?\nAnswer:", " 12"),
    ("Question: Which of these is a metal?\nAnswer:", " iron"),
    ("Question: Which of these is a metal?\nAnswer:", " A"),
    ("Question: Which of these is a metal?\nAnswer:", " B"),
    ("Below is an instruction that describes a task. " * 4 + "Answer: ", "wood or glass"),
    ("A", " complete response"),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


def scorer_of(folder: Path, batch_tokens: int = 1024) -> Scorer:
    return load_scorer(folder, precision="fp32", batch_tokens=batch_tokens, trust_remote_code=False)


def ignore(_: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def forward_passes(scorer: Scorer) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens) of each forward pass made inside."""
    shapes: list[tuple[int, int]] = []
    hook = scorer.model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    yield shapes
    hook.remove()


@pytest.fixture(scope="module")
def one_by_one(tiny_model: Path, tokenizer: Any) -> list[tuple[float, int, bool]]:
    """Straight from the model: no batch, no shared row, every logit."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    found = []
    for context, continuation in PAIRS:
        moved = context.rstrip()
        whole = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
        start = len(tokenizer(moved, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            log_probs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        chosen = [log_probs[i - 1, whole[i]].item() for i in range(start, len(whole))]
        best = [log_probs[i - 1].argmax().item() == whole[i] for i in range(start, len(whole))]
        found.append((sum(chosen), len(chosen), all(best)))
    return found


@pytest.mark.parametrize("batch_tokens", [1, 100, 150, 100_000])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_batches_and_order_change_nothing(
    tiny_model: Path,
    one_by_one: list[tuple[float, int, bool]],
    batch_tokens: int,
    order: int,
) -> None:
    places = random.Random(order).sample(range(len(PAIRS)), len(PAIRS))
    scored = scorer_of(tiny_model, batch_tokens).continuations([PAIRS[i] for i in places], "pairs")
    for place, found in zip(places, scored, strict=True):
        total, num_tokens, greedy = one_by_one[place]
        assert found.log_likelihood == pytest.approx(total, abs=TOLERANCE)
        assert (found.num_tokens, found.greedy, found.truncated) == (num_tokens, greedy, False)


def test_the_first_choice_of_the_model_is_greedy_and_any_other_is_not(tiny_model: Path) -> None:
    scorer = scorer_of(tiny_model)
    context = "Question: What is two plus three?\nAnswer:"
    letters = [chr(code) for code in range(33, 127)]
    scored = scorer.continuations([(context, letter) for letter in letters], "letters")
    ids = encode_pairs(scorer.tokenizer, [(context, letter) for letter in letters], 512)
    with torch.no_grad():
        logits = scorer.model(torch.tensor(ids[0].tokens[None, :-1].astype("int64"))).logits[0, -1]
    best = int(logits.argmax())
    assert [found.greedy for found in scored] == [int(span.tokens[-1]) == best for span in ids]


def test_one_token_choices_share_one_row(tiny_model: Path) -> None:
    scorer = scorer_of(tiny_model)
    pairs = [("Which of these is a metal?", letter) for letter in "ABCD"]
    (span, *_) = spans = encode_pairs(scorer.tokenizer, pairs, 512)
    for score in (score_plain, score_shared):
        with forward_passes(scorer) as shapes:
            scored = score(scorer.model, spans, 1024, ignore)
        assert shapes == [(1, len(span.read))]
        assert len({found.log_likelihood for found in scored}) == 4


def test_a_long_context_loses_its_beginning_and_says_so(tiny_model: Path, tokenizer: Any) -> None:
    """The model's 512 places read 512 tokens; the last token is predicted, not read."""
    ending = "Which of these is a metal?"
    long = "0 1 2 3 4 5 6 7 8 9 " * 60 + ending
    (span,) = encode_pairs(tokenizer, [(long, " iron")], 512)
    assert (len(span.tokens), span.truncated) == (513, True)
    assert tokenizer.decode(span.tokens).endswith(f"{ending} iron")
    assert tokenizer.decode(span.tokens[span.start :]) == " iron"

    found, whole = scorer_of(tiny_model).continuations([(long, " iron"), (ending, " iron")], "x")
    assert (found.truncated, whole.truncated) == (True, False)
    assert found.num_tokens == whole.num_tokens


def test_the_loss_of_a_text_is_transformers_own(tiny_model: Path, tokenizer: Any) -> None:
    texts = ["Below is an instruction.", "What is two plus three? The answer is 12.", ""]
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    found = scorer_of(tiny_model).texts(texts, "texts")
    for text, (loss, num_tokens) in zip(texts[:2], found, strict=False):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        assert ids[0, 0] == tokenizer.bos_token_id
        with torch.no_grad():
            mean = model(ids, labels=ids).loss.item()
        assert num_tokens == ids.shape[1] - 1
        assert loss / num_tokens == pytest.approx(mean, abs=TOLERANCE)
    assert found[2] == (0, 0)


@pytest.mark.parametrize("batch_tokens", [60, 100, 200])
def test_a_batch_keeps_its_budget_unless_one_row_alone_is_longer(
    tiny_model: Path, batch_tokens: int
) -> None:
    scorer = scorer_of(tiny_model)
    with forward_passes(scorer) as shapes:
        score_plain(scorer.model, encode_pairs(scorer.tokenizer, PAIRS, 512), batch_tokens, ignore)
    assert all(rows == 1 or rows * width <= batch_tokens for rows, width in shapes)
    widths = [width for _, width in shapes]
    assert widths == sorted(widths, reverse=True)  # alike lengths together: little padding


def test_every_token_of_a_long_text_is_predicted_once(tiny_model: Path, tokenizer: Any) -> None:
    text = "0 1 2 3 4 5 6 7 8 9 " * 120
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    assert len(ids) > 2 * 512
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    expected = 0.0
    for first in range(0, len(ids) - 1, 512):  # each piece is as long as the model can read
        with torch.no_grad():
            log_probs = model(ids[None, first : first + 512]).logits[0].log_softmax(-1)
        targets = ids[first + 1 : first + 513]
        expected -= log_probs[range(len(targets)), targets].sum().item()
    ((loss, num_tokens),) = scorer_of(tiny_model).texts([text], "texts")
    assert num_tokens == len(ids) - 1
    assert loss == pytest.approx(expected, rel=1e-5)


def test_bf16_stays_near_float32(tiny_model: Path, one_by_one: list[Any]) -> None:
    scorer = load_scorer(tiny_model, precision="bf16", batch_tokens=1024, trust_remote_code=False)
    assert scorer.model.dtype == torch.bfloat16
    for found, (total, *_) in zip(scorer.continuations(PAIRS, "pairs"), one_by_one, strict=True):
        assert found.log_likelihood == pytest.approx(total, rel=0.02)


def broken_model(tiny_model: Path, folder: Path, how: str) -> Path:
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    if how == "a pickle":
        weights.unlink()
        torch.save({}, folder / "pytorch_model.bin")
    if how == "a weight missing":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, weights, {"format": "pt"})
    return folder


@pytest.mark.parametrize("how", ["no weights", "truncated", "a pickle", "a weight missing"])
def test_a_broken_model_is_one_clear_error(tiny_model: Path, tmp_path: Path, how: str) -> None:
    with pytest.raises(InputError, match="broken cannot be loaded") as caught:
        scorer_of(broken_model(tiny_model, tmp_path / "broken", how))
    assert "\n" not in str(caught.value)


def test_a_model_that_gives_no_numbers_is_refused(tiny_model: Path) -> None:
    scorer = scorer_of(tiny_model)
    with torch.no_grad():
        scorer.model.lm_head.weight[0, 0] = math.nan
    with pytest.raises(InputError, match="letters: the model gives NaN"):
        scorer.continuations([("Answer:", "A")], "letters")
