"""Scoring with shared prefixes: each token of a prefix is read once, whoever begins with it.

A forward pass is one row of segments (prefixes.py). All layers but attention take a token for itself;
attention goes through the segments in order, writes a segment's keys and values behind those it
continues, and lets it see what is there. Registered with transformers under the name `ATTENTION`.

Shapes: N new tokens of a pass, K places of it that predict, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from monotreme.scoring.plain import LOGITS, likelihoods, put_back, vocabulary
from monotreme.scoring.prefixes import Pass, Segment, passes
from monotreme.scoring.spans import Likelihood, Span

ATTENTION = "monotreme_shared_prefixes"
UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # changes of the scores that are not made here
# New tokens of a pass on a processor, where more gain nothing and leave its caches: 16,384 took 5 to 18 %
# longer (bench/evaluate.py's tasks).
MOST_ON_PROCESSOR = 4096


@dataclass
class Path:
    """Keys and values of one path through the prefixes, for every attention layer.

    Attributes:
        mask: (room, room), -inf above the diagonal. Tokens `depth` to `end` of a path see what row
            `depth` to `end` and columns up to `end` of it let through.
        layers: by attention module, both (1, heads, room, head size).
    """

    mask: Tensor
    layers: dict[nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def with_room(cls, room: int, model: Any) -> "Path":
        minus = torch.full((room, room), -torch.inf, dtype=model.dtype, device=model.device)
        return cls(minus.triu(1))

    def of_layer(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if module not in self.layers:
            room = len(self.mask)
            self.layers[module] = (_like(key, room), _like(value, room))
        return self.layers[module]


def _like(states: Tensor, room: int) -> Tensor:
    _, heads, _, size = states.shape
    return states.new_empty(1, heads, room, size)


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,  # noqa: ARG001 - always None: see the mask interface below
    *,
    segments: Sequence[Segment],
    path: Path,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of each segment to its path, as transformers calls it.

    Args:
        query: (1, heads, N, head size); key and value may have fewer heads, each shared by a group.

    Returns:
        (1, N, heads, head size), and None for the attention weights.

    Raises:
        ValueError: the model changes its scores in a way that is not made here.
    """
    changed = [name for name in UNSUPPORTED if kwargs.get(name) is not None]
    if sliding_window is not None and any(s.depth + s.length > sliding_window for s in segments):
        changed.append(f"a window of {sliding_window:,} tokens")
    if changed:
        raise ValueError(f"its attention has {', '.join(changed)}")
    if query.is_cuda:  # with a mask, its quick kernels take no groups
        key, value = (_ungrouped(states, query.shape[1]) for states in (key, value))
    keys, values = path.of_layer(module, key, value)
    seen = []
    for segment in segments:
        new = slice(segment.place, segment.place + segment.length)
        end = segment.depth + segment.length
        keys[:, :, segment.depth : end] = key[:, :, new]
        values[:, :, segment.depth : end] = value[:, :, new]
        seen.append(
            F.scaled_dot_product_attention(
                query[:, :, new],
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=path.mask[segment.depth : end, :end] if segment.depth else None,
                is_causal=not segment.depth,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(seen, 2).transpose(1, 2).contiguous(), None


def _ungrouped(states: Tensor, heads: int) -> Tensor:
    return states.repeat_interleave(heads // states.shape[1], 1)


def score_shared(
    model: Any, spans: Sequence[Span], batch_tokens: int, advance: Callable[[int], None]
) -> list[Likelihood]:
    """Score spans in any order, each token of a common prefix read once.

    Args:
        batch_tokens: new tokens of a forward pass; one longer row goes alone.
        advance: told the number of spans done after each pass.
    """
    if model.device.type == "cpu":
        batch_tokens = min(batch_tokens, MOST_ON_PROCESSOR)
    scored: list[Likelihood] = []
    places: list[int] = []
    with _attending(model):
        path = Path.with_room(max((len(span.read) for span in spans), default=0), model)
        for planned in passes(spans, batch_tokens, LOGITS // vocabulary(model)):
            scored += _forward(model, planned, [spans[index] for index in planned.spans], path)
            places += planned.spans
            advance(len(planned.spans))
    return put_back(places, scored)


@contextmanager
def _attending(model: Any) -> Iterator[None]:
    """The model with this file's attention; with its own again at the end."""
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def _forward(model: Any, planned: Pass, spans: Sequence[Span], path: Path) -> list[Likelihood]:
    kept_K, rows = np.unique(np.concatenate(planned.places), return_inverse=True)
    inputs_N, positions_N, kept = (
        torch.from_numpy(array.astype(np.int64)).to(model.device)
        for array in (np.concatenate(planned.tokens), np.concatenate(planned.positions), kept_K)
    )
    logits = model(
        input_ids=inputs_N[None],
        position_ids=positions_N[None],
        use_cache=False,
        logits_to_keep=kept,
        segments=planned.segments,
        path=path,
    ).logits
    edges = np.cumsum([len(place) for place in planned.places])[:-1]
    return likelihoods(logits[0], spans, np.split(rows, edges))


AttentionInterface.register(ATTENTION, segment_attention)
AttentionMaskInterface.register(ATTENTION, lambda *_args, **_kwargs: None)
