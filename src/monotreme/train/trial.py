"""A few steps of a training tried out before it: the largest first, so that too little memory shows at once."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from monotreme.train.batches import num_steps, questions_of_step
from monotreme.train.data import Data
from monotreme.train.loop import Settings, prepared
from monotreme.train.parallel import Team
from monotreme.train.plan import GIB

TYPICAL = 3  # steps timed after the largest one, which also warms up


def tried_steps(tokens_S: Sequence[int]) -> list[int]:
    """The largest of the steps, then those nearest to the median; by tokens of each step (S,)."""
    tokens = np.asarray(tokens_S)
    near = np.argsort(np.abs(tokens - np.median(tokens)), kind="stable")
    return [int(tokens.argmax()), *near[:TYPICAL].tolist()]


def trial(model: Any, data: Data, settings: Settings) -> dict[str, Any]:
    """Do the gradients of a few steps and forget them.

    Returns:
        `largest_step_tokens`, `row_tokens` (what the memory allowed), `tokens_per_second` and
        `minutes` (of all steps, at the typical steps' rate), and `peak_gib` on a GPU.

    Raises:
        InputError: a single question is too much for the memory.
    """
    num, size, seed = len(data.questions), settings.batch_size, settings.seed
    steps = range(num_steps(num, size, settings.epochs))
    lengths = data.encoded.lengths
    tokens = [int(lengths[questions_of_step(num, size, seed, step)].sum()) for step in steps]
    largest, *typical = tried_steps(tokens)
    with prepared(model, data.encoded, settings, Team()) as work:

        def seconds_of(step: int) -> float:
            started = time.perf_counter()
            float(work.add_gradients(step).sum())  # waits for the device
            work.forget_gradients()
            return time.perf_counter() - started

        seconds_of(largest)
        rate = sum(tokens[step] for step in typical) / sum(map(seconds_of, typical))
        found = {
            "largest_step_tokens": tokens[largest],
            "row_tokens": work.row_tokens,
            "tokens_per_second": round(rate, 1),
            "minutes": round(sum(tokens) / rate / 60, 2),
        }
    if torch.cuda.is_available():
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
    return found
