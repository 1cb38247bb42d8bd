"""Laws of dropout: a mask is a function of seed, step, question, position and layer, is fair, and is
drawn twice alike; where a question lies in a row, and what lies beside it, changes nothing."""

import numpy as np
import pytest
import torch
from conftest import sums
from torch import Tensor, nn

from monotreme.train.batches import micro_batches
from monotreme.train.dropout import Draws, KeyedDropout, keep, key_dropout
from monotreme.train.encode import Encoded, encode, load_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoded(tiny_model) -> Encoded:
    return encode(load_tokenizer(tiny_model, False), sums(12), 512)[0]


def tokens(encoded: Encoded, questions: list[int], step: int = 3, seed: int = 0) -> list[Tensor]:
    """The hashes of each question's tokens when these lie in one row."""
    draws = Draws(seed)
    (row,) = micro_batches(encoded, np.array(questions), np.ones(len(questions)), 10**6)
    draws.begin(step, row, CPU)
    return list(draws.tokens_T.split(np.diff(row.cu_seq_lens.numpy()).tolist()))


def test_what_lies_beside_a_question_changes_nothing(encoded: Encoded) -> None:
    alone, *_ = tokens(encoded, [5])
    assert torch.equal(alone, tokens(encoded, [2, 5, 7])[1])
    assert torch.equal(alone, tokens(encoded, [5, 2])[0])


def test_step_seed_question_and_position_make_a_difference(encoded: Encoded) -> None:
    one, *_ = tokens(encoded, [5])
    for other in (tokens(encoded, [5], step=4)[0], tokens(encoded, [5], seed=1)[0], tokens(encoded, [6])[0]):  # fmt: skip
        size = min(len(one), len(other))
        assert not (one[:size] == other[:size]).any()
    assert len(set(one.tolist())) == len(one)


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_a_mask_is_fair_and_no_two_rows_or_columns_go_together(p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hashes = torch.randint(-(2**31), 2**31 - 1, (800,), generator=generator).to(torch.int32)
    mask = keep(hashes, 17, p, 600).double()
    error = (p * (1 - p) / mask.numel()) ** 0.5
    assert abs(mask.mean() - (1 - p)) < 5 * error
    for table in (mask, mask.T):
        cells = torch.corrcoef(table[:300])
        cells.fill_diagonal_(0)
        assert cells.square().mean() * table.shape[1] == pytest.approx(1, abs=0.05)  # as by chance
    assert (
        keep(hashes, 18, p, 600) != mask.bool()
    ).double().mean() > p  # another layer, another mask


def test_consecutive_features_and_tokens_are_no_pattern() -> None:
    """Hashes that differ in a few bits only."""
    mask = keep(torch.arange(512, dtype=torch.int32), 0, 0.5, 512).double() - 0.5
    for shift in range(1, 9):
        for axis in (0, 1):
            assert abs((mask * mask.roll(shift, axis)).mean()) < 5 * 0.25 / 512


def test_the_backward_pass_draws_the_same_mask() -> None:
    draws = Draws(0)
    draws.tokens_T = torch.arange(7, dtype=torch.int32)
    dropout = KeyedDropout(0.4, "layer", draws)
    x = torch.randn(1, 7, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dropout, (x,))
    kept = dropout(torch.ones(1, 7, 16))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert torch.equal(dropout.eval()(x), x)


def test_only_the_adapters_dropout_is_replaced() -> None:
    model = nn.ModuleDict({"lora_dropout": nn.ModuleDict({"default": nn.Dropout(0.1)}), "other": nn.Dropout(0.1)})  # fmt: skip
    outer = nn.ModuleDict({"q": model})
    key_dropout(outer, 0)
    assert isinstance(outer.get_submodule("q.lora_dropout.default"), KeyedDropout)
    assert isinstance(outer.get_submodule("q.other"), nn.Dropout)
