"""Questions → token ids, with a mark on the tokens of the answer.

The whole text is tokenised once. What belongs to the answer is read off the character offsets, so
that a tokenizer which merges the end of the prompt with the start of the answer cannot shift the
mark, as it does where the prompt is tokenised apart.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monotreme import models
from monotreme.errors import InputError, MismatchError
from monotreme.progress import progress
from monotreme.prompt import prompt_and_answer
from monotreme.records import Dropped, Question

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]

CHUNK = 1000  # questions a call of the tokenizer: enough for its threads, little to hold


@dataclass(frozen=True)
class Encoded:
    """Q questions end to end, T tokens in all.

    Attributes:
        ids: (T,) token ids.
        is_answer: (T,) whether the token is trained; never the first of a question.
        offsets: (Q + 1,) where each question starts, and the end.
    """

    ids: Ids
    is_answer: Mask
    offsets: NDArray[np.int64]

    @classmethod
    def join(cls, questions: Sequence[tuple[Ids, Mask]]) -> "Encoded":
        """Lay encoded questions end to end."""
        offsets = np.cumsum([0, *(len(ids) for ids, _ in questions)], dtype=np.int64)
        ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in questions)])
        mask = np.concatenate([np.empty(0, np.bool_), *(mask for _, mask in questions)])
        return cls(ids, mask, offsets)

    def take(self, questions: NDArray[np.int64]) -> "Encoded":
        """Some of the questions (indices), end to end."""
        spans = [slice(*self.offsets[q : q + 2]) for q in questions.tolist()]
        return Encoded.join([(self.ids[span], self.is_answer[span]) for span in spans])

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(Q,) tokens of each question."""
        return np.diff(self.offsets)

    @cached_property
    def num_answer_tokens(self) -> NDArray[np.int64]:
        """(Q,) trained tokens of each question."""
        before = np.concatenate([[0], np.cumsum(self.is_answer)])
        return np.diff(before[self.offsets])

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of ids, marks and offsets."""
        sha = hashlib.sha256()
        for array in (self.offsets, self.ids, self.is_answer):
            sha.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return sha.hexdigest()


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a model folder.

    Raises:
        InputError: it cannot be read, gives no character offsets, or has no end-of-text token.
    """
    remedy = "Use a model folder with a tokenizer.json that names its eos_token"
    tokenizer = models.load_tokenizer(folder, trust_remote_code)
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {folder} gives no character offsets", remedy)
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {folder} has no end-of-text token", remedy)
    return tokenizer


def encode(
    tokenizer: Any, questions: Sequence[Question], max_length: int
) -> tuple[Encoded, list[Question], list[Dropped]]:
    """Encode questions; none is ever cut.

    A question is the beginning-of-text token (where the tokenizer puts one), prompt and answer,
    and the end-of-text token, which is trained. The name of a special token inside a question is
    plain text.

    Returns:
        The encoded questions, the same as questions, and those dropped: "too_long" over
        `max_length` tokens, "no_answer" where no token of the answer is left to train on.
    """
    encoded: list[tuple[Ids, Mask]] = []
    kept: list[Question] = []
    dropped: list[Dropped] = []
    with progress("encode", len(questions)) as advance:
        for start in range(0, len(questions), CHUNK):
            chunk = questions[start : start + CHUNK]
            for question, (ids, mask) in zip(chunk, _encode_chunk(tokenizer, chunk), strict=True):
                reason = _why_not(ids, mask, max_length)
                if reason is None:
                    encoded.append((ids, mask))
                    kept.append(question)
                else:
                    dropped.append(Dropped(question, *reason))
            advance(len(chunk))
    return Encoded.join(encoded), kept, dropped


def _why_not(ids: Ids, mask: Mask, max_length: int) -> tuple[str, str] | None:
    """Reason and detail for dropping a question, None to keep it."""
    if len(ids) > max_length:
        return "too_long", f"{len(ids):,} tokens, limit {max_length:,}"
    if not mask[:-1].any():  # the last is the end-of-text token
        return "no_answer", "no token of the answer to train on"
    return None


def _encode_chunk(tokenizer: Any, questions: Sequence[Question]) -> list[tuple[Ids, Mask]]:
    texts, starts = zip(*map(prompt_and_answer, questions), strict=True)
    batch = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,  # "</s>" in a question must not end it
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,  # its advice to cut long texts is not ours
    )
    before = models.beginning(tokenizer)
    rows = zip(batch["input_ids"], batch["offset_mapping"], starts, strict=True)
    return [
        (
            np.array([*before, *ids, tokenizer.eos_token_id], np.int32),
            np.array([*(False for _ in before), *_answer_marks(spans, start), True], np.bool_),
        )
        for ids, spans, start in rows
    ]


def _answer_marks(spans: Sequence[tuple[int, int]], start: int) -> list[bool]:
    """Which tokens are the answer's, from their (start, end) characters.

    A token that holds the end of the prompt and the start of the answer is the answer's: a model
    that never learns it could not begin this answer. The first token of a text has nothing before
    it to be predicted from.
    """
    return [i > 0 and end > start for i, (_, end) in enumerate(spans)]


def check_vocabulary(encoded: Encoded, num_embeddings: int, folder: Path) -> None:
    """Raise MismatchError if a token id has no embedding in the model."""
    largest = int(encoded.ids.max(initial=0))
    if largest >= num_embeddings:
        raise MismatchError(
            f"the tokenizer of {folder} gives token {largest:,}, its model has {num_embeddings:,}",
            "Use the tokenizer that belongs to the model",
        )
