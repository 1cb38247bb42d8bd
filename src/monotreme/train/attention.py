"""Causal attention over questions that lie end to end in one row, none seeing another.

Registered with transformers under the name `ATTENTION`: a model loaded with that
attn_implementation takes the row's boundaries as keyword arguments (see `boundaries`).
"""

import inspect
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from monotreme.errors import InputError
from monotreme.progress import notice

ATTENTION = "monotreme_varlen"
PLAIN = "eager"  # transformers' own: every model's scores, under a mask of the whole row
Attention = Literal["varlen", "eager"]
MAX_HEAD_SIZE = 256  # of the flash kernel behind varlen_attn
UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # score changes that our kernels do not make


class ScoresChangedError(InputError):
    """The model does more to its attention scores than a softmax."""


# From torch 2.12 on grouped heads must be announced; before, the kernel took them as they came.
_GROUPED: dict[str, Any] = (
    {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
)


def boundaries(cu_seq_lens: Tensor, max_length: int) -> dict[str, Any]:
    """The keyword arguments that tell a model where the questions of a row start and end."""
    return {
        "cu_seq_lens_q": cu_seq_lens,
        "cu_seq_lens_k": cu_seq_lens,
        "max_length_q": max_length,
        "max_length_k": max_length,
    }


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,  # noqa: ARG001 - always None: see the mask interface below
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of each question to its own earlier tokens, as transformers calls it.

    Args:
        query: (1, heads, T, head size); key and value may have fewer heads, each shared by a group.
        cu_seq_lens_q: (Q + 1,) int32, where each question starts, and the end.
        sliding_window: how many tokens a token sees, itself among them; None for all.

    Returns:
        (1, T, heads, head size), and None for the attention weights.

    Raises:
        ScoresChangedError: the model changes its attention scores.
    """
    for name in UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ScoresChangedError(
                f"the base model's attention uses {name} ({type(module).__name__})",
                "Use a base model with plain softmax attention, such as Llama, Mistral or Qwen",
            )
    half = query.dtype in (torch.bfloat16, torch.float16)
    if query.is_cuda and half and query.shape[-1] <= MAX_HEAD_SIZE:
        packed = _flash(
            query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window or 0
        )
    else:
        packed = _one_by_one(query, key, value, cu_seq_lens_q, scaling, sliding_window)
    return packed, None


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_lens: Tensor,
    max_length: int,
    scaling: float | None,
    sliding_window: int,
) -> Tensor:
    """torch's variable-length kernel; its window counts the tokens before the token itself."""
    grouped: dict[str, Any] = _GROUPED if query.shape[1] != key.shape[1] else {}
    packed = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens,
        cu_seq_lens,
        max_length,
        max_length,
        scale=scaling,
        window_size=(sliding_window - 1, 0),
        **grouped,
    )
    assert isinstance(packed, Tensor)  # a pair only where auxiliary results are asked for
    return packed[None]


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_lens: Tensor,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """One causal scaled-dot-product attention a question, on any device and in any precision."""
    parts = []
    for start, end in pairwise(cu_seq_lens.tolist()):
        mask = _band(end - start, sliding_window, query.device)
        parts.append(
            F.scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, start:end],
                value[:, :, start:end],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(parts, 2).transpose(1, 2).contiguous()


def _band(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """(length, length) mask of what a token sees; None where the window hides nothing."""
    if sliding_window is None or length <= sliding_window:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen.triu(1 - sliding_window)


def choose_attention(model: Any) -> Attention:
    """Ours where it can serve the model, else transformers' own, which says so and costs more memory.

    Raises:
        InputError: with neither is a question of a row apart from the others.
    """
    try:
        check_isolation(model)
        return "varlen"
    except ScoresChangedError as error:
        notice(f"{error.problem}: trained with transformers' {PLAIN} attention, which is slower")
    model.set_attn_implementation(PLAIN)
    check_isolation(model)
    return "eager"


@torch.no_grad()
def check_isolation(model: nn.Module) -> None:
    """Raise InputError if the model lets a question see the one before it in the row.

    Two rows differ in their first question alone: what the model says of the second must not. A
    state that runs through the row, or an attention that ignores the boundaries, shows here.
    """
    device = next(model.parameters()).device
    first, other, second = (3, 5, 4, 6), (6, 6, 3, 6), (4, 3, 6, 5, 4)
    kwargs = boundaries(torch.tensor([0, 4, 9], dtype=torch.int32, device=device), 5)
    positions = torch.tensor([[*range(4), *range(5)]], device=device)
    told = [
        model(
            input_ids=torch.tensor([[*before, *second]], device=device),
            position_ids=positions,
            use_cache=False,
            **kwargs,
        ).logits[0, 4:]
        for before in (first, other)
    ]
    if not torch.allclose(told[0], told[1], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise InputError(
            f"{type(model).__name__} lets one question of a row see another",
            "Use a base model whose attention transformers can replace, such as Llama or Qwen",
        )


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *_args, **_kwargs: None)
