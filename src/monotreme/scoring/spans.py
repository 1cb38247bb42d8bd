"""Texts to tokens: what of a text is scored, cut as lm-evaluation-harness cuts it.

The harness encodes a context alone and together with each continuation. Here a context is encoded
once, and a continuation behind the last characters of its context alone; the tokens are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monotreme.errors import InputError

ENCODED_AT_ONCE = 1024  # texts handed to the tokenizer together
TAIL = 64  # characters of a context that are encoded again before each of its continuations
PROOFS = 32  # pairs of a set that are also encoded whole, should the tokenizer be a strange one

Tokens = NDArray[np.int32]
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of which those from `start` on are scored, each given all before it.

    Attributes:
        tokens: (n,) ids, start < n and start ≥ 1.
        truncated: whether tokens before them were cut to fit the model.
    """

    tokens: Tokens
    start: int
    truncated: bool = False

    @property
    def read(self) -> Tokens:
        """(n - 1,) what the model reads: the last token is only predicted."""
        return self.tokens[:-1]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A scored span.

    Attributes:
        log_likelihood: sum over its tokens, in nats.
        greedy: whether every token is the model's first choice.
        truncated: whether its context was cut.
    """

    log_likelihood: float
    num_tokens: int
    greedy: bool
    truncated: bool


def encode_pairs(tokenizer: Any, pairs: Sequence[Pair], max_length: int) -> list[Span]:
    """Token spans of (context, continuation) pairs, as the harness's `_encode_pair` makes them.

    Spaces at the end of a context go to the continuation; the continuation's tokens are those of
    both together that follow the number of tokens of the context alone. No special tokens.

    Raises:
        InputError: a continuation that gives no token, or more than `max_length`.
    """
    moved = [_move_spaces(context, continuation) for context, continuation in pairs]
    unique = list(dict.fromkeys(context for context, _ in moved))
    contexts = dict(zip(unique, encode(tokenizer, unique), strict=True))
    continuations = _continuations(tokenizer, moved, contexts)
    return [
        _pair_span(contexts[context], tokens, max_length, text)
        for (context, text), tokens in zip(moved, continuations, strict=True)
    ]


def _move_spaces(context: str, continuation: str) -> Pair:
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def encode(
    tokenizer: Any, texts: Sequence[str], *, special_tokens: bool = False
) -> Iterator[Tokens]:
    """Token ids (n,) of each text; some at a time, because Python's integers take much room."""
    for start in range(0, len(texts), ENCODED_AT_ONCE):
        encoded = tokenizer(
            list(texts[start : start + ENCODED_AT_ONCE]),
            add_special_tokens=special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        yield from (np.asarray(ids, np.int32) for ids in encoded["input_ids"])


def _continuations(
    tokenizer: Any, pairs: Sequence[Pair], contexts: dict[str, Tokens]
) -> list[Tokens]:
    """Tokens of each continuation: by way of the tail where that is exact, else of the whole text."""
    found = dict(_behind_tails(tokenizer, pairs, contexts))
    proof = list(found)[:: max(1, len(found) // PROOFS)]
    wholes = _of_wholes(tokenizer, pairs, contexts, proof)
    if not all(np.array_equal(found[i], tokens) for i, tokens in zip(proof, wholes, strict=True)):
        found = {}
    left = [index for index in range(len(pairs)) if index not in found]
    found |= zip(left, _of_wholes(tokenizer, pairs, contexts, left), strict=True)
    return [found[index] for index in range(len(pairs))]


def _of_wholes(
    tokenizer: Any, pairs: Sequence[Pair], contexts: dict[str, Tokens], chosen: Sequence[int]
) -> Iterator[Tokens]:
    """The definition: the tokens of the whole text that follow those of the context."""
    wholes = encode(tokenizer, ["".join(pairs[index]) for index in chosen])
    for index, whole in zip(chosen, wholes, strict=True):
        yield whole[len(contexts[pairs[index][0]]) :]


def _behind_tails(
    tokenizer: Any, pairs: Sequence[Pair], contexts: dict[str, Tokens]
) -> Iterator[tuple[int, Tokens]]:
    """Pairs by index with the same, from the context's last characters, where it cannot differ.

    Let the tail alone end in the tokens that the whole context ends in, and let the first of these
    stay where it is when the continuation follows. Then every two tokens that are neighbours in
    "context up to there, tail and continuation from there" are neighbours in an encoding of the
    tokenizer. A row of tokens is what byte-pair encoding gives if and only if that holds for all its
    neighbours; a tokenizer that cuts at words needs less.
    """
    alone = dict(zip(contexts, encode(tokenizer, [c[-TAIL:] for c in contexts]), strict=True))
    anchors = {context: _anchor(alone[context], contexts[context]) for context in contexts}
    together = encode(tokenizer, [context[-TAIL:] + text for context, text in pairs])
    for index, ((context, _), both) in enumerate(zip(pairs, together, strict=True)):
        tail, kept = alone[context], anchors[context] + 1
        if np.array_equal(both[:kept], tail[:kept]) or len(context) <= TAIL:
            yield index, both[len(tail) :]


def _anchor(tail: Tokens, context: Tokens) -> int:
    """Where in the tail its longest end begins that is also the context's end."""
    num = min(len(tail), len(context))
    differ = np.flatnonzero(tail[len(tail) - num :] != context[len(context) - num :])
    return len(tail) - num + (int(differ[-1]) + 1 if len(differ) else 0)


def _pair_span(context: Tokens, continuation: Tokens, max_length: int, text: str) -> Span:
    if not 0 < len(continuation) <= max_length:
        raise InputError(
            f"choice {text[:60]!r} has {len(continuation):,} tokens, 1 to {max_length:,} can be scored",
            "Mend or remove the benchmark's row",
        )
    tokens = np.concatenate([context, continuation])
    kept = tokens[-(max_length + 1) :]  # the last token is only predicted, never read
    return Span(kept, len(kept) - len(continuation), len(kept) < len(tokens))


def pieces(tokens: Tokens, max_length: int) -> list[Span]:
    """Cut a text so that each piece begins with the last token of the one before."""
    edges = [*range(0, len(tokens) - 1, max_length), len(tokens) - 1]
    return [Span(tokens[first : last + 1], 1) for first, last in pairwise(edges)]
