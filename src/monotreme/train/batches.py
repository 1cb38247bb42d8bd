"""Which questions a step trains on, in which flat rows, and what each token weighs.

Everything here is a pure function of the encoded questions, the seed and the step. Legend: Q
questions, T tokens of a row, A answer tokens of a row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monotreme.train.encode import Encoded

Weighting = Literal["question", "token"]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class MicroBatch:
    """Some questions of a step end to end in one row without padding: one forward pass.

    Attributes:
        ids: (1, T) token ids.
        position_ids: (1, T) positions, from 0 in each question.
        cu_seq_lens: (Q + 1,) int32, where each question starts, and the end.
        questions: (Q,) which of the encoded questions they are.
        max_length: tokens of the longest question.
        predicts: (A,) where in the row the model predicts an answer token.
        labels: (A,) the answer token that it should predict there.
        weights: (A,) float64, what the token's cross-entropy weighs in the loss of the step.
        num_answer_tokens: of each question; they sum to A.
    """

    ids: Tensor
    position_ids: Tensor
    cu_seq_lens: Tensor
    questions: Indices
    max_length: int
    predicts: Tensor
    labels: Tensor
    weights: Tensor
    num_answer_tokens: list[int]


@lru_cache(maxsize=2)
def order(num_questions: int, seed: int, epoch: int) -> Indices:
    """The order of an epoch: a permutation that only the seed and the epoch decide.

    Sorting raw 64-bit draws keeps the order the same under every version of NumPy, which promises
    that for bit generators but not for `Generator.permutation`.
    """
    draws = np.random.PCG64([seed, epoch]).random_raw(num_questions)
    permutation = np.argsort(draws, kind="stable")
    permutation.flags.writeable = False  # it is cached
    return permutation


def num_steps(num_questions: int, batch_size: int, epochs: float) -> int:
    """Updates in all; the last batch of an epoch may be smaller, a part of a step is a step."""
    return math.ceil(epochs * -(-num_questions // batch_size))


def questions_of_step(num_questions: int, batch_size: int, seed: int, step: int) -> Indices:
    """Indices of the questions of a step, counted from 0 across epochs."""
    epoch, batch = divmod(step, num_steps(num_questions, batch_size, 1))
    return order(num_questions, seed, epoch)[batch * batch_size : (batch + 1) * batch_size]


def questions_reached(num_questions: int, batch_size: int, seed: int, epochs: float) -> Indices:
    """Indices of the questions that a training comes to, ascending: all, if it has an epoch."""
    steps = range(num_steps(num_questions, batch_size, min(epochs, 1)))
    each = [questions_of_step(num_questions, batch_size, seed, step) for step in steps]
    return np.sort(np.concatenate(each))


def token_weights(num_answer_tokens_Q: Indices, weighting: Weighting) -> NDArray[np.float64]:
    """What each answer token of a question weighs in the step's loss; shape (Q,).

    "question": every question the same, whatever its length (the paper's training: the mean over
    16 questions of each one's mean); "token": every answer token of the step the same.
    """
    if weighting == "question":
        return 1 / (num_answer_tokens_Q * len(num_answer_tokens_Q))
    return np.full(len(num_answer_tokens_Q), 1 / num_answer_tokens_Q.sum())


def cut(lengths: Sequence[int], budget: int) -> list[slice]:
    """Cut questions, in their order, into runs of at most `budget` tokens.

    A question longer than the budget is a run of its own.
    """
    runs, start, tokens = [], 0, 0
    for end, length in enumerate(lengths):
        if end > start and tokens + length > budget:
            runs.append(slice(start, end))
            start, tokens = end, 0
        tokens += length
    return [*runs, slice(start, len(lengths))]


def micro_batches(
    encoded: Encoded, questions: Indices, weights_Q: NDArray[np.float64], budget: int
) -> list[MicroBatch]:
    """The flat rows of a step, or of one rank's share of it.

    Args:
        questions: indices of the questions.
        weights_Q: of an answer token of each, as `token_weights` has them for the whole step.
        budget: tokens of a row at most (see `cut`); it changes memory, not the loss.
    """
    runs = cut(encoded.lengths[questions].tolist(), budget)
    return [_row(encoded, questions[run], weights_Q[run]) for run in runs]


def _row(encoded: Encoded, questions: Indices, weights_Q: NDArray[np.float64]) -> MicroBatch:
    spans = [np.arange(*encoded.offsets[q : q + 2]) for q in questions.tolist()]
    lengths = encoded.lengths[questions]
    num_answer_tokens = encoded.num_answer_tokens[questions]
    tokens = np.concatenate(spans)
    answers_A = np.flatnonzero(encoded.is_answer[tokens])
    ids = encoded.ids[tokens].astype(np.int64)
    return MicroBatch(
        ids=torch.from_numpy(ids)[None],
        position_ids=torch.cat([torch.arange(length) for length in lengths.tolist()])[None],
        cu_seq_lens=torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)),
        questions=questions,
        max_length=int(lengths.max()),
        predicts=torch.from_numpy(answers_A - 1),
        labels=torch.from_numpy(ids[answers_A]),
        weights=torch.from_numpy(np.repeat(weights_Q, num_answer_tokens)),
        num_answer_tokens=num_answer_tokens.tolist(),
    )
