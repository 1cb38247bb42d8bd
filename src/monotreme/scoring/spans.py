"""Texts to tokens: what of a text is scored, cut as lm-evaluation-harness cuts it.

The harness encodes a context alone and together with each continuation. Here the examples that
contexts share are encoded once, and what follows them behind their last characters alone; so is a
continuation behind its context. The tokens are the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monotreme.errors import InputError

ENCODED_AT_ONCE = 1024  # texts handed to the tokenizer together
TAIL = 64  # characters of a text that are encoded again before each of its continuations
EXAMPLES_END = "\n\n"  # before a question, where examples precede it
PROOFS = 32  # pairs of a set that are also encoded whole, should the tokenizer be a strange one

Tokens = NDArray[np.int32]
Pair = tuple[str, str]
Joined = tuple[int, Tokens]  # how many tokens of the first text stay, and those that follow them


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
    contexts = _encode_contexts(tokenizer, list(dict.fromkeys(context for context, _ in moved)))
    joined = _encode_behind(tokenizer, moved, contexts)
    return [
        _pair_span(contexts[context], new[len(contexts[context]) - kept :], max_length, text)
        for (context, text), (kept, new) in zip(moved, joined, strict=True)
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


def _encode_contexts(tokenizer: Any, texts: Sequence[str]) -> dict[str, Tokens]:
    """Token ids of each text; what several have before their last empty line is encoded once."""
    head_of = {text: text.rpartition(EXAMPLES_END)[0] for text in texts}
    shared = [head for head, num in Counter(head_of.values()).items() if head and num > 1]
    heads = dict(zip(shared, encode(tokenizer, shared), strict=True))
    own = [text for text in texts if head_of[text] not in heads]
    found = dict(zip(own, encode(tokenizer, own), strict=True))
    pairs = {text: (head, text[len(head) :]) for text, head in head_of.items() if head in heads}
    joined = _encode_behind(tokenizer, list(pairs.values()), heads)
    for (text, (head, _)), (kept, new) in zip(pairs.items(), joined, strict=True):
        found[text] = np.concatenate([heads[head][:kept], new])
    return found


def _encode_behind(
    tokenizer: Any, pairs: Sequence[Pair], heads: Mapping[str, Tokens]
) -> list[Joined]:
    """Token ids of "head + text" for each pair: by way of the head's tail where that is exact.

    Args:
        heads: token ids of each head.
    """
    found = dict(_behind_tails(tokenizer, pairs, heads))
    proof = list(found)[:: max(1, len(found) // PROOFS)]
    for index, whole in zip(proof, _wholes(tokenizer, pairs, proof), strict=True):
        kept, new = found[index]
        if not np.array_equal(np.concatenate([heads[pairs[index][0]][:kept], new]), whole):
            found = {}
            break
    left = [index for index in range(len(pairs)) if index not in found]
    found |= {i: (0, whole) for i, whole in zip(left, _wholes(tokenizer, pairs, left), strict=True)}
    return [found[index] for index in range(len(pairs))]


def _wholes(tokenizer: Any, pairs: Sequence[Pair], chosen: Sequence[int]) -> Iterator[Tokens]:
    return encode(tokenizer, ["".join(pairs[index]) for index in chosen])


def _behind_tails(
    tokenizer: Any, pairs: Sequence[Pair], heads: Mapping[str, Tokens]
) -> Iterator[tuple[int, Joined]]:
    """Pairs by index whose tokens follow from the head's and those of its last characters and the text.

    Let the tail alone end in the tokens that the head ends in, and let the first of these stay where
    it is when the text follows. Then every two tokens that are neighbours in "head up to there, tail
    and text from there" are neighbours in an encoding of the tokenizer. A row of tokens is what
    byte-pair encoding gives if and only if that holds for all its neighbours; a tokenizer that cuts
    at words needs less.
    """
    alone = dict(zip(heads, encode(tokenizer, [head[-TAIL:] for head in heads]), strict=True))
    anchors = {head: _anchor(alone[head], tokens) for head, tokens in heads.items()}
    together = encode(tokenizer, [head[-TAIL:] + text for head, text in pairs])
    for index, ((head, _), both) in enumerate(zip(pairs, together, strict=True)):
        tail, anchor = alone[head], anchors[head]
        if len(head) <= TAIL:
            yield index, (0, both)
        elif np.array_equal(both[: anchor + 1], tail[: anchor + 1]):
            yield index, (len(heads[head]) - len(tail) + anchor, both[anchor:])


def _anchor(tail: Tokens, head: Tokens) -> int:
    """Where in the tail its longest end begins that is also the head's end."""
    num = min(len(tail), len(head))
    differ = np.flatnonzero(tail[len(tail) - num :] != head[len(head) - num :])
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
