"""Train: a LoRA adapter on the base model, from the decontaminated questions (paper, section 3).

data (texts → tokens, by encode) → batches (steps, rows, weights) → loop (updates), with attention, lora,
frozen, dropout, fused_mlp, loss, parallel, sharding, checkpoint, log, trackers and plan beside it.
"""

import json
from pathlib import Path
from typing import Any

import torch

from monotreme import machine
from monotreme.errors import InputError, MismatchError
from monotreme.machine import memory_bytes
from monotreme.models import load_config
from monotreme.records import Counts, Dropped, Question, digest, dropped_table
from monotreme.run import Run
from monotreme.storage import sha256
from monotreme.train import loop, plan
from monotreme.train.attention import ATTENTION
from monotreme.train.batches import questions_reached
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.data import Data, training_data
from monotreme.train.encode import check_vocabulary
from monotreme.train.frozen import load_base, to_float8
from monotreme.train.log import facts, loss_chart, read_log
from monotreme.train.loop import Settings, train
from monotreme.train.lora import (
    adapter_config,
    add_adapter,
    max_positions,
    save_adapter,
)
from monotreme.train.parallel import Team, check_size, following, leading
from monotreme.train.sharding import check_shareable
from monotreme.train.trackers import check_trackers, tracking
from monotreme.train.trial import trial

NAME = "train"
SAVE_STEPS = 50  # between checkpoints: minutes of work against seconds of writing
GPU_ROWS = 4  # times max_length: tokens of a row that a GPU is asked for; too much is halved
# What neither changes the adapter nor belongs to a checkpoint's identity; the base counts by its digest.
FREE_SETTINGS = ("base", "shard", "trackers", "allow_unchecked")


def inputs(run: Run) -> dict[str, str]:
    """What this stage reads, by name, with its digest."""
    return {
        "decontaminate/questions.parquet": sha256(run.output("decontaminate", "questions.parquet")),
        "base": run.model_digest(run.recipe.train.base),
    }


def _model_with_adapter(run: Run, folder: Path, size: plan.Size, team: Team) -> Any:
    """The base with a fresh adapter; on its device, or on the processor where ranks will share it."""
    settings, device = run.recipe.train, torch.device(machine.device())
    precision, trust = settings.base_precision, settings.base.trust_remote_code
    team.shares_base = _is_shared(run, size, team, device)
    if team.shares_base:
        check_shareable(precision)
    plan.check_memory(size, precision, _memory_of(device), team.size, team.shares_base)
    model = load_base(folder, precision, trust, ATTENTION, device)
    model = add_adapter(model, adapter_config(settings), run.recipe.seed)
    if team.shares_base:
        return model
    model = model.to(device)
    if precision == "fp8":
        to_float8(model)
    return model


def _is_shared(run: Run, size: plan.Size, team: Team, device: torch.device) -> bool:
    """Whether the ranks share one base: told to, or a rank's device cannot hold it."""
    if team.size == 1:
        return False
    settings = run.recipe.train
    too_much = plan.needed_bytes(size, settings.base_precision) > _memory_of(device)
    return team.any(settings.shard == "always" or too_much, device)


def _memory_of(device: torch.device) -> int:
    cuda = device.type == "cuda"
    return torch.cuda.get_device_properties(device).total_memory if cuda else memory_bytes()


def _peak(num_ranks: int) -> float | None:
    """TFLOP/s of the GPUs by their data sheet; None on other devices."""
    peak = plan.peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return None if peak is None else peak * num_ranks


def _checkpoints(run: Run, folder: Path, data: Data, base: str) -> Checkpoints:
    settings = {k: v for k, v in run.settings(NAME).items() if k not in FREE_SETTINGS}
    identity = {
        "data": digest(data.encoded.digest, data.held_out.digest),
        "settings": digest(json.dumps(settings, sort_keys=True)),
        "base": base,
    }
    return Checkpoints(folder / "checkpoints", identity)


def _not_reached(questions: list[Question], reached: list[int], epochs: float) -> list[Dropped]:
    """Questions that no step comes to, since the recipe has less than an epoch."""
    rest = sorted(set(range(len(questions))) - set(reached))
    return [Dropped(questions[i], "not_reached", f"epochs = {epochs:g} ends before") for i in rest]


def _base_name(model: str, base: str) -> tuple[str, str | None]:
    """What the adapter calls its base: a Hub name with the commit it was trained on, or the path."""
    name, at, commit = base.rpartition("@")
    return (name, commit) if at else (model, None)


def _settings(run: Run, size: plan.Size) -> Settings:
    recipe = run.recipe.train
    return Settings(
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        weighting=recipe.weighting,
        row_tokens=recipe.max_length * (GPU_ROWS if torch.cuda.is_available() else 1),
        autocast=recipe.base_precision != "fp32",
        save_steps=SAVE_STEPS,
        seed=run.recipe.seed,
        size=size,
    )


def _base(run: Run, weights: bool = True) -> tuple[Path, plan.Size, int]:
    """The base's folder, its size with the adapter, and how many tokens a question may have."""
    recipe = run.recipe.train
    folder = run.model(recipe.base, weights=weights)
    trust = recipe.base.trust_remote_code
    config = load_config(folder, trust)
    limit = min(recipe.max_length, max_positions(config))
    return folder, plan.size_of(config, adapter_config(recipe), trust), limit


def plan_of(run: Run, try_steps: bool = False) -> dict[str, Any]:
    """What the training will take (plan.py), from the questions that decontaminate left.

    Args:
        try_steps: load the base and try a few steps (trial.py); under `trial`.

    Raises:
        InputError: there are none yet, the base cannot be read, or the memory is too small.
    """
    recipe = run.recipe.train
    folder, size, limit = _base(run, weights=try_steps)
    data = training_data(run, folder, limit)
    rows = GPU_ROWS * recipe.max_length
    found = plan.plan(
        size, data.encoded, recipe.batch_size, recipe.epochs, recipe.base_precision, rows
    )
    found["too_long_or_empty"] = sum(d.reason != "held_out" for d in data.dropped)
    if try_steps:
        model = _model_with_adapter(run, folder, size, Team())
        found["trial"] = trial(model, data, _settings(run, size))
    return found


def _is_checked(run: Run, found: str) -> bool:
    """Whether the questions are those that decontaminate recorded.

    Raises:
        MismatchError: they are not, and the recipe does not allow that.
    """
    if run.record("decontaminate")["outputs"]["questions.parquet"]["sha256"] == found:
        return True
    if run.recipe.train.allow_unchecked:
        return False
    raise MismatchError(
        f"{run.folder / 'decontaminate/questions.parquet'} is not what decontaminate recorded",
        "Run `monotreme decontaminate --force`, or set train.allow_unchecked, which the card states",
    )


def _refuse_too_long(run: Run, dropped: list[Dropped], limit: int) -> None:
    """Raise InputError where the recipe refuses questions that are too long."""
    long = [one for one in dropped if one.reason == "too_long"]
    if long and run.recipe.train.too_long == "refuse":
        worst = max(long, key=lambda one: int(one.detail.split()[0].replace(",", "")))
        raise InputError(
            f"{len(long):,} questions have more than {limit:,} tokens "
            f"(the longest {worst.question.id[:12]}: {worst.detail})",
            "Raise train.max_length, or let train.too_long drop them",
        )


def follow(run: Run, told: int | None = None) -> None:
    """Take part in a training that another process leads, on the same questions and base.

    Args:
        told: the end of a pipe to say on that this process is ready to meet the others.

    Raises:
        InputError, MismatchError: as `execute`.
    """
    folder, size, limit = _base(run)
    data = training_data(run, folder, limit)
    with following(told) as team:
        model = _model_with_adapter(run, folder, size, team)
        loop.follow(model, data.encoded, _settings(run, size), team, data.held_out)


def execute(run: Run) -> None:
    """Train the adapter and leave it with its log, its loss curve and what was dropped.

    Raises:
        InputError: base or questions cannot be used, or the loss is no number any more.
        MismatchError: the tokenizer does not belong to the model, or a checkpoint to this training.
    """
    recipe = run.recipe.train
    check_size(run.num_gpus, recipe.batch_size)
    check_trackers(recipe.trackers)
    with run.stage(NAME, found := inputs(run)) as work:
        checked = _is_checked(run, found["decontaminate/questions.parquet"])
        folder, size, limit = _base(run)
        data = training_data(run, folder, limit)
        _refuse_too_long(run, data.dropped, limit)
        if not data.questions:
            raise InputError(
                f"none of {len(data.dropped):,} questions can be trained on within {limit:,} tokens",
                "Raise train.max_length, or look at the questions of decontaminate",
            )
        reached = _reached(run, data)
        dropped = data.dropped + _not_reached(data.questions, reached, recipe.epochs)
        work.table("dropped.parquet", dropped_table(dropped))
        log = work.folder / "log.jsonl"
        checkpoints = _checkpoints(run, work.folder, data, found["base"])
        if run.force:
            checkpoints.forget()
        with (
            leading(run.num_gpus, run.folder) as team,
            tracking(recipe.trackers, run.recipe.name, run.folder, run.settings(NAME)) as tell,
        ):
            model = _model_with_adapter(run, folder, size, team)
            check_vocabulary(data.encoded, model.get_input_embeddings().num_embeddings, folder)
            settings = _settings(run, size)
            done = train(
                model,
                data.encoded,
                data.questions,
                settings,
                checkpoints,
                log,
                team,
                data.held_out,
                tell,
            )
        with work.file("adapter") as adapter:
            save_adapter(model, adapter, *_base_name(recipe.base.model, found["base"]))
        work.register("log.jsonl")
        lines = read_log(log)
        work.text("loss.svg", loss_chart(lines))
        work.counts = Counts.tally(
            [data.questions[i].source for i in reached],
            [(d.question.source, d.reason) for d in dropped],
        )
        work.facts = {
            **facts(lines, _peak(team.size)),
            "mean_length": round(float(data.encoded.lengths.mean()), 1),
            "checked": checked,
            "num_ranks": team.size,
            "shares_base": team.shares_base,
            **done,
            "num_trainable_parameters": size.trainable,
        }


def _reached(run: Run, data: Data) -> list[int]:
    recipe = run.recipe.train
    num = len(data.questions)
    reached = questions_reached(num, recipe.batch_size, run.recipe.seed, recipe.epochs)
    found: list[int] = reached.tolist()
    return found
