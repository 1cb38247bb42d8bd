"""The training loop: one update a step, one line of the log an update.

The loss of a step is the weighted sum of the cross-entropies of its answer tokens (weights: see
`batches.token_weights`); neither packing nor the cut into rows changes it.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monotreme.errors import InputError
from monotreme.progress import notice, progress
from monotreme.records import Question
from monotreme.storage import storage_errors
from monotreme.train.attention import Attention, choose_attention
from monotreme.train.batches import (
    MicroBatch,
    Weighting,
    cut,
    micro_batches,
    num_steps,
    questions_of_step,
    token_weights,
)
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.dropout import Draws, key_dropout
from monotreme.train.encode import Encoded
from monotreme.train.fused_mlp import Way, fused
from monotreme.train.log import glance, read_log, warn_of_overfitting
from monotreme.train.lora import drop_in_adapter_only, trainable
from monotreme.train.loss import Losses, question_losses
from monotreme.train.parallel import STOP, VALIDATE, Team, deal
from monotreme.train.plan import Size, flop
from monotreme.train.process import deterministic, interruption
from monotreme.train.sharding import share_base
from monotreme.train.trackers import Tell

CLIP = 1.0  # largest norm of a step's gradient: the default of transformers' Trainer
BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's, as in the paper's code; weight decay 0


@dataclass(frozen=True)
class Settings:
    """What a training does, apart from model and data.

    Attributes:
        row_tokens: tokens of a forward pass at most, as long as the memory is enough.
        autocast: whether matrix products are done in bfloat16.
        save_steps: between checkpoints, and between measurements of the validation loss.
        size: of the model, for the work of a step; None leaves that out of the log.
    """

    learning_rate: float
    warmup_steps: int
    batch_size: int
    epochs: float
    weighting: Weighting
    row_tokens: int
    autocast: bool
    save_steps: int
    seed: int
    size: Size | None = None


def learning_rate(step: int, total: int, warmup_steps: int, peak: float) -> float:
    """Linear from 0 to the peak, then a cosine to 0; `step` counts from 0.

    The values are those of transformers' get_cosine_schedule_with_warmup: the first step of a
    warm-up has rate 0.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    done = (step - warmup_steps) / max(1, total - warmup_steps)
    return peak * (1 + math.cos(math.pi * done)) / 2


def train(
    model: Any,
    encoded: Encoded,
    questions: Sequence[Question],
    settings: Settings,
    checkpoints: Checkpoints,
    log: Path,
    team: Team,
    held_out: Encoded | None = None,
    tell: Tell = lambda _line: None,
) -> dict[str, Any]:
    """Train the adapter in `model` in place, from the newest checkpoint if there is one.

    Leaves one JSON line a step in `log`. SIGTERM and Ctrl-C end the step under way, save a
    checkpoint and exit; a second one acts at once.

    Args:
        held_out: questions that the loss is only measured on, every `save_steps` steps and at the end.
        tell: is told each line of the log.

    Returns:
        `mlp` and `attention`, how these were computed, and `row_tokens`, the tokens of a
        row at most that the memory has proven enough for.

    Raises:
        InputError: the loss or its gradient is not a finite number, or the GPU's memory is full.
        StorageError: the disk is full.
        SystemExit: the process was told to stop.
    """
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(parameters.values(), betas=BETAS, eps=EPSILON, weight_decay=0.0)
    total = num_steps(len(questions), settings.batch_size, settings.epochs)
    with (
        storage_errors(log),
        interruption() as stopping,
        deterministic(),
        prepared(model, encoded, settings, team, held_out) as work,
        log.open("a", encoding="utf-8") as lines,
        progress("train", total) as advance,
    ):
        done = checkpoints.restore(parameters, optimizer, log)
        advance(done)
        for step in range(done, total):
            line = _update(work, optimizer, questions, step, total)
            due = step + 1 == total or (step + 1) % settings.save_steps == 0
            if due and work.held_out is not None:
                line["validation_loss"] = _validated(work)
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            tell(line)
            advance(1, glance(line))
            if "validation_loss" in line:
                warn_of_overfitting(read_log(log))
            stop = stopping()
            if stop or due:
                checkpoints.save(step + 1, parameters, optimizer, log)
            if stop:
                notice(
                    f"stopped after step {step + 1} of {total}; the same command goes on from there"
                )
                break
        team.stop(parameters)
    return {"mlp": work.mlp, "attention": work.attention, "row_tokens": work.row_tokens}


def follow(
    model: Any, encoded: Encoded, settings: Settings, team: Team, held_out: Encoded | None = None
) -> None:
    """Give the leader of the team the gradients of this rank's questions, until it says stop."""
    with (
        interruption(),  # the leader hears of it too, and says when
        deterministic(),
        prepared(model, encoded, settings, team, held_out) as work,
    ):
        while (step := team.await_step(work.parameters)) != STOP:
            if step == VALIDATE:
                work.validation_loss()
            else:
                work.add_gradients(step)
                work.forget_gradients()


@dataclass
class Work:
    """What every rank of a training does: the gradient of its share of a step.

    Attributes:
        held_out: for the validation loss; None where there is none.
        parameters: the adapter's.
        mlp: how the adapted MLPs are computed (fused_mlp.py).
        attention: how questions of a row are kept apart (attention.py).
        row_tokens: tokens of a row at most, halved whenever the memory is too small for them.
    """

    model: Any
    encoded: Encoded
    held_out: Encoded | None
    settings: Settings
    team: Team
    parameters: Mapping[str, nn.Parameter]
    losses: Losses
    draws: Draws
    mlp: Way
    attention: Attention
    row_tokens: int

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    def forget_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def questions_of(self, step: int) -> NDArray[np.int64]:
        size, seed = self.settings.batch_size, self.settings.seed
        return questions_of_step(len(self.encoded.lengths), size, seed, step)

    def add_gradients(self, step: int) -> Tensor:
        """Add the step's gradients to the parameters; returns each question's share of its loss.

        Both are whole at the leader alone.
        """
        chosen = self.questions_of(step)
        weights_Q = token_weights(self.encoded.num_answer_tokens[chosen], self.settings.weighting)
        mine = self.team.share(self.encoded.lengths[chosen].tolist())
        shares_Q = torch.zeros(len(chosen), dtype=torch.float64, device=self.device)
        if len(mine) or self.team.shares_base:
            shares = self._shares(step, chosen[mine], weights_Q[mine])
            shares_Q[torch.from_numpy(mine).to(self.device)] = shares
        return self.team.add_up(self.parameters, shares_Q)

    def _shares(
        self, step: int, questions: NDArray[np.int64], weights_Q: NDArray[np.float64]
    ) -> Tensor:
        """This rank's part; begun anew with shorter rows when the memory is full."""
        while True:
            rows = self._rows(self.encoded, self.questions_of(step), questions, weights_Q)
            try:
                parts = []
                for row in rows:
                    self.draws.begin(step, row, self.device)
                    shares_Q = self.losses(row, self.settings.autocast)
                    torch.autograd.backward(shares_Q.sum())
                    parts.append(shares_Q.detach())
                return torch.cat(parts)[: len(questions)].double()
            except torch.OutOfMemoryError:
                self._shorten(step, rows)

    def _rows(
        self,
        encoded: Encoded,
        asked: NDArray[np.int64],
        mine: NDArray[np.int64],
        weights_Q: NDArray[np.float64],
    ) -> list[MicroBatch]:
        """This rank's rows; where ranks share the base, as many as each of them has.

        Every pass through a shared base is one of all ranks. A row to fill up with weighs nothing.

        Args:
            asked: questions of all ranks; mine: this one's, with the weights of their answer tokens.
        """
        rows = micro_batches(encoded, mine, weights_Q, self.row_tokens) if len(mine) else []
        if self.team.shares_base:
            lengths = encoded.lengths[asked]
            dealt = (lengths[places].tolist() for places in deal(lengths.tolist(), self.team.size))
            most = max(len(cut(each, self.row_tokens)) for each in dealt if each)
            (spare,) = micro_batches(encoded, asked[:1], np.zeros(1), self.row_tokens)
            rows += [spare] * (most - len(rows))
        return rows

    def _shorten(self, step: int, rows: Sequence[MicroBatch]) -> None:
        """Halve the rows and forget what they gave.

        Raises:
            InputError: every row is a single question already, or other ranks wait inside a pass.
        """
        if self.team.shares_base or all(len(row.questions) == 1 for row in rows):
            raise InputError(
                f"step {step + 1}: the GPU's memory is too small for a row of "
                f"{max(row.ids.numel() for row in rows):,} tokens",
                "Lower train.max_length, or take more or larger GPUs",
            ) from None
        self.row_tokens //= 2
        notice(f"out of memory: rows have {self.row_tokens:,} tokens at most from here on")
        self.forget_gradients()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.no_grad()
    def validation_loss(self) -> Tensor:
        """Mean loss of the held-out questions in the training's weighting, without dropout.

        Whole at the leader alone.
        """
        assert self.held_out is not None
        encoded, asked = self.held_out, np.arange(len(self.held_out.lengths))
        weights_Q = token_weights(encoded.num_answer_tokens, self.settings.weighting)
        mine = self.team.share(encoded.lengths.tolist())
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.model.eval()
        for row in self._rows(encoded, asked, mine, weights_Q[mine]):
            total += self.losses(row, self.settings.autocast).sum()
        drop_in_adapter_only(self.model)
        return self.team.total(total)


@contextmanager
def prepared(
    model: Any, encoded: Encoded, settings: Settings, team: Team, held_out: Encoded | None = None
) -> Iterator[Work]:
    """The model made ready for steps: fused blocks, a shared base, keyed dropout, no head.

    Raises:
        InputError: one question of a row sees another.
    """
    draws = key_dropout(model, settings.seed)
    with fused(model.eval()) as way:
        if team.shares_base:
            share_base(model)
        attention = choose_attention(model)
        drop_in_adapter_only(model)
        with question_losses(model) as losses:
            rows = settings.row_tokens
            held = held_out if held_out is not None and len(held_out.lengths) else None
            weights = trainable(model)
            yield Work(
                model, encoded, held, settings, team, weights, losses, draws, way, attention, rows
            )


def _validated(work: Work) -> float:
    work.team.announce(VALIDATE, work.parameters)
    return float(work.validation_loss())


def _update(
    work: Work,
    optimizer: torch.optim.Optimizer,
    questions: Sequence[Question],
    step: int,
    total: int,
) -> dict[str, Any]:
    """One step (counted from 0); returns its line of the log (counted from 1)."""
    started = time.perf_counter()
    settings, encoded = work.settings, work.encoded
    chosen = work.questions_of(step)
    asked = [questions[i] for i in chosen.tolist()]
    work.team.announce(step, work.parameters)
    shares_Q = work.add_gradients(step).tolist()
    _check_finite(step, asked, shares_Q, "the loss")
    norm = nn.utils.clip_grad_norm_(work.parameters.values(), CLIP).item()
    _check_finite(step, asked, [norm] * len(asked), "the gradient")
    rate = learning_rate(step, total, settings.warmup_steps, settings.learning_rate)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    answers_Q, lengths_Q = encoded.num_answer_tokens[chosen], encoded.lengths[chosen]
    weights_Q = (token_weights(answers_Q, settings.weighting) * answers_Q).tolist()
    size = settings.size
    work_done = {} if size is None else {"teraflop": flop(size, lengths_Q, answers_Q.sum()) / 1e12}
    return {
        "step": step + 1,
        "loss": sum(shares_Q),
        "learning_rate": rate,
        "grad_norm": norm,
        "num_tokens": int(lengths_Q.sum()),
        "num_answer_tokens": int(answers_Q.sum()),
        **work_done,
        "seconds": round(time.perf_counter() - started, 6),
        "loss_by_source": loss_by_source([q.source for q in asked], shares_Q, weights_Q),
    }


def loss_by_source(
    sources: Sequence[str], shares: Sequence[float], weights: Sequence[float]
) -> dict[str, float]:
    """Mean loss of each source's questions, in the step's own weighting."""
    found: dict[str, float] = {}
    for source in sorted(set(sources)):
        mine = [i for i, name in enumerate(sources) if name == source]
        found[source] = sum(shares[i] for i in mine) / sum(weights[i] for i in mine)
    return found


def _check_finite(step: int, asked: Sequence[Question], values: Sequence[float], what: str) -> None:
    bad = [q.id[:12] for q, value in zip(asked, values, strict=True) if not math.isfinite(value)]
    if bad:
        raise InputError(
            f"step {step + 1}: {what} is not a finite number (questions {', '.join(bad)})",
            "Lower train.learning_rate, or look at these questions and at the base model",
        )
