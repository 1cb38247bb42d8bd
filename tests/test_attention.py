"""Questions of a row do not see each other, whatever kernel does the work."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from monotreme.errors import InputError
from monotreme.models import load_model
from monotreme.train import attention

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.none() | st.integers(1, 5))
def test_attention_equals_a_masked_softmax(lengths: list[int], window: int | None) -> None:
    """Documents apart, causal, with a sliding window, two query heads to a key head."""
    torch.manual_seed(sum(lengths))
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    query, key, value = (torch.randn(1, heads, ends[-1], 8).double() for heads in (4, 2, 2))
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(len(document))
    back = place[:, None] - place
    seen = (back >= 0) & (document[:, None] == document) & (back < (window or 99))
    key2, value2 = (x.repeat_interleave(2, dim=1) for x in (key, value))
    scores = (query @ key2.mT * 0.3).masked_fill(~seen, -torch.inf)
    expected = (scores.softmax(-1) @ value2).transpose(1, 2)
    found, _ = attention.packed_attention(
        nn.Identity(), query, key, value, None,
        cu_seq_lens_q=ends, max_length_q=max(lengths), scaling=0.3, sliding_window=window,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("window", [0, 3])
def test_the_gpu_kernel_takes_our_arguments(window: int) -> None:
    """Without a GPU: torch checks the call and the shapes on its meta device."""
    query, key, value = (
        torch.empty(1, heads, 9, 8, device="meta", dtype=torch.bfloat16) for heads in (4, 2, 2)
    )
    ends = torch.tensor([0, 4, 9], dtype=torch.int32, device="meta")
    found = attention._flash(query, key, value, ends, 5, 0.3, window)
    assert found.shape == (1, 9, 4, 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_kernel_equals_one_by_one() -> None:
    """Outputs and gradients in bf16, with shared key heads and a sliding window."""
    torch.manual_seed(0)
    ends = torch.tensor([0, 70, 77, 200], dtype=torch.int32, device="cuda")
    rows = [
        torch.randn(1, heads, 200, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (8, 2, 2)
    ]
    for window in (None, 16):
        flash = attention._flash(*rows, ends, 123, 0.1, window or 0)
        plain = attention._one_by_one(*rows, ends, 0.1, window)
        torch.testing.assert_close(flash, plain, rtol=2e-2, atol=2e-2)
        upstream = torch.randn_like(flash)
        ours = torch.autograd.grad(flash, rows, upstream)
        theirs = torch.autograd.grad(plain, rows, upstream)
        torch.testing.assert_close(ours, theirs, rtol=5e-2, atol=5e-2)


def test_a_changed_score_is_refused() -> None:
    rows = [torch.randn(1, 1, 2, 8)] * 3
    ends = torch.tensor([0, 2], dtype=torch.int32)
    with pytest.raises(InputError, match="attention uses softcap"):
        attention.packed_attention(
            nn.Identity(), *rows, cu_seq_lens_q=ends, max_length_q=2, softcap=50.0
        )


def capped(window: int = 4) -> Any:
    """A tiny Gemma 2: capped scores, every other layer with a sliding window; float64."""
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=window,
        attn_implementation=attention.ATTENTION,
    )
    torch.manual_seed(0)
    return Gemma2ForCausalLM(config).double().eval()


def test_a_model_with_other_scores_is_served_by_transformers_own(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Said by name; and each question of a row still has the logits that it has alone."""
    model = capped()
    assert attention.choose_attention(model) == "eager"
    assert "uses softcap (Gemma2Attention)" in " ".join(capfd.readouterr().err.split())
    ids = torch.randint(3, 60, (1, 15))
    ends = torch.tensor([0, 4, 15], dtype=torch.int32)
    positions = torch.tensor([[*range(4), *range(11)]])
    kwargs = attention.boundaries(ends, 11)
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False, **kwargs).logits[0]
        for start, end in pairwise(ends.tolist()):
            alone = model(input_ids=ids[:, start:end], use_cache=False).logits[0]
            torch.testing.assert_close(packed[start:end], alone, **EXACT)


def test_a_plain_model_keeps_ours(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(tiny_model, "fp32", False, attention.ATTENTION)
    assert attention.choose_attention(model) == "varlen"
    assert not capfd.readouterr().err


class Running(nn.Module):
    """A model whose state runs through the row: each token's logits hold the mean of all before."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 8)

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        logits = self.embedding(input_ids).cumsum(1) / 10
        return type("Output", (), {"logits": logits})


def test_a_model_that_mixes_questions_is_refused(tiny_model: Path) -> None:
    attention.check_isolation(load_model(tiny_model, "bf16", False, attention.ATTENTION))
    with pytest.raises(InputError, match="Running lets one question of a row see another"):
        attention.check_isolation(Running())
