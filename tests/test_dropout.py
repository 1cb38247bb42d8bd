"""A dropout mask depends on seed, step, question, position, layer and feature, and on nothing else.

So the cut of a step into rows, and the order in a row, change neither the loss nor a gradient.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import EXACT, MLP, fresh_model, gradients, in_float64, step_loss, uneven
from torch import Tensor, nn

from monotreme.train import batches
from monotreme.train.dropout import Draws, KeyedDropout, Mask, key_dropout
from monotreme.train.encode import Encoded, encode, load_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoded(tiny_model: Path) -> Encoded:
    return encode(load_tokenizer(tiny_model, False), uneven(9), 512)[0]


def mask_of(
    encoded: Encoded,
    questions: list[int],
    seed: int = 0,
    step: int = 0,
    name: str = "gate",
    p: float = 0.3,
) -> Tensor:
    """(T, 63) of the questions in one row."""
    (row,) = batches.micro_batches(encoded, np.array(questions), np.ones(len(questions)), 100_000)
    draws = Draws(seed)
    draws.begin(step, row, CPU)
    mask = KeyedDropout(p, name, draws).mask()
    assert mask is not None
    return mask.lost(63)


def same_share(a: Tensor, b: Tensor) -> float:
    return float((a == b).double().mean())


# ── what a mask depends on ───────────────────────────────────────────────────────────────────────


def test_a_question_has_the_same_mask_wherever_it_stands(encoded: Encoded) -> None:
    alone = {q: mask_of(encoded, [q]) for q in range(9)}
    for order in ([0, 1, 2, 3, 4, 5, 6, 7, 8], [5, 2, 7], [8, 0]):
        assert torch.equal(mask_of(encoded, order), torch.cat([alone[q] for q in order]))


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 1}, {"name": "up"}])
def test_another_seed_step_or_layer_draws_another(encoded: Encoded, other: Any) -> None:
    """Independent masks of p = 0.5 agree on a half: 12,000 draws give it to within 0.03."""
    questions = list(range(9))
    mask = mask_of(encoded, questions, p=0.5)
    assert same_share(mask, mask_of(encoded, questions, p=0.5, **other)) == pytest.approx(
        0.5, abs=0.03
    )


def test_questions_and_positions_draw_their_own(encoded: Encoded) -> None:
    one, two = (mask_of(encoded, [q], p=0.5) for q in (3, 7))
    num = min(len(one), len(two))
    assert same_share(one[:num], two[:num]) == pytest.approx(0.5, abs=0.03)
    assert same_share(one[1:], one[:-1]) == pytest.approx(0.5, abs=0.03)


def random_tokens(num: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(-(2**31), 2**31, (num,), generator=draw).int()


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_draws_are_as_frequent_and_as_independent_as_they_should_be(p: float) -> None:
    """A million draws: of all, of each feature and token, and of pairs at every small distance."""
    lost = Mask(random_tokens(1000), 77, p).lost(1000).double()
    sigma = (p * (1 - p)) ** 0.5
    assert abs(lost.mean() - p) < 5 * sigma / 1000
    for each in (lost.mean(0), lost.mean(1)):
        assert (each - p).abs().max() < 5 * sigma / 1000**0.5
        assert each.std() == pytest.approx(sigma / 1000**0.5, rel=0.15)
    centred = (lost - p) / sigma
    for axis in (0, 1):
        for distance in (1, 2, 3, 8, 500):
            pairs = (
                centred.narrow(axis, 0, 1000 - distance),
                centred.narrow(axis, distance, 1000 - distance),
            )
            correlation = (pairs[0] * pairs[1]).mean()
            assert abs(correlation) < 5 / (1000 * (1000 - distance)) ** 0.5


def test_a_mask_is_the_same_whatever_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = Mask(random_tokens(70), 5, 0.3)
    whole = mask.lost(33)
    monkeypatch.setattr("monotreme.train.dropout.BLOCK", 40)
    assert torch.equal(mask.lost(33), whole)


def rounds(x: int) -> int:
    """lowbias32 after its first shift, in whole numbers."""
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def is_lost(token: int, key: int, feature: int, p: float) -> bool:
    def mixed(x: int) -> int:
        return rounds(x & 0xFFFFFFFF ^ (x & 0xFFFFFFFF) >> 16)

    hashed = rounds(mixed(token ^ key) ^ mixed(feature // 2 + 1))
    lane = hashed >> 16 if feature % 2 else hashed & 0xFFFF
    return (lane ^ 0x8000) < int(p * 2**16)  # lanes are read as signed


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 0.99999])
def test_a_mask_is_what_arithmetic_without_torch_says(p: float) -> None:
    tokens, key = random_tokens(30), -12345
    expected = [[is_lost(t, key, f, p) for f in range(101)] for t in tokens.tolist()]
    assert Mask(tokens, key, p).lost(101).tolist() == expected


@pytest.mark.gpu
def test_a_mask_is_the_same_on_the_gpu() -> None:
    tokens = random_tokens(300)
    on_gpu = Mask(tokens.cuda(), 9, 0.05).lost(1001)
    assert torch.equal(on_gpu.cpu(), Mask(tokens, 9, 0.05).lost(1001))


# ── what is done with it ─────────────────────────────────────────────────────────────────────────


def test_what_stays_is_made_larger_and_the_gradient_goes_the_same_way(encoded: Encoded) -> None:
    (row,) = batches.micro_batches(encoded, np.arange(9), np.ones(9), 100_000)
    draws = Draws(0)
    draws.begin(0, row, CPU)
    dropout = KeyedDropout(0.25, "gate", draws)
    mask = dropout.mask()
    assert mask is not None
    factor = (~mask.lost(7)).double() / 0.75
    x = torch.randn(1, row.ids.numel(), 7, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(x)
    y = dropout(x)
    draws.begin(1, row, CPU)  # the next forward pass must not change this one's backward
    torch.testing.assert_close(y[0], x[0] * factor, **EXACT)
    (gradient,) = torch.autograd.grad(y, x, direction)
    torch.testing.assert_close(gradient[0], direction[0] * factor, **EXACT)
    assert dropout.eval()(x) is x


def test_every_dropout_of_the_adapter_is_keyed_and_none_beside_it(tiny_model: Path) -> None:
    model = fresh_model(tiny_model, 0.1, [*MLP, "q_proj", "o_proj"])
    model.base_model.model.model.extra = nn.Dropout(0.1)
    key_dropout(model, 0)
    keyed = [m for m in model.modules() if isinstance(m, KeyedDropout)]
    assert len(keyed) == 2 * 5
    assert len({m.mask().key for m in keyed}) == 2 * 5
    assert [type(m) for m in model.modules()].count(nn.Dropout) == 1


@pytest.mark.parametrize("weighting", ["question", "token"])
@pytest.mark.parametrize("head", [[], ["lm_head"]])
def test_neither_cut_nor_order_changes_loss_or_gradient(
    tiny_model: Path, encoded: Encoded, weighting: Any, head: list[str]
) -> None:
    """One row a question, some rows, one row, and backwards; with dropout, in float64."""
    model = in_float64(
        fresh_model(tiny_model, 0.3, [*MLP, "q_proj", "k_proj", "v_proj", "o_proj", *head])
    )
    draws = key_dropout(model, 0)
    forth, back = np.arange(9), np.arange(9)[::-1].copy()
    expected = step_loss(model, encoded, forth, weighting, 1, draws)
    reference = gradients(model, expected)
    for questions, budget in ((forth, 200), (forth, 100_000), (back, 200), (back, 100_000)):
        loss = step_loss(model, encoded, questions, weighting, budget, draws)
        torch.testing.assert_close(loss, expected, **EXACT)
        for name, gradient in gradients(model, loss).items():
            torch.testing.assert_close(gradient, reference[name], **EXACT)
    plain = step_loss(model.eval(), encoded, forth, weighting, 1)
    assert abs(plain - expected) > 1e-4
