"""Train: a LoRA adapter on the base model, from the decontaminated questions (paper, section 3).

encode (texts → tokens) → batches (steps, rows, weights) → loop (updates, log), with attention, lora,
dropout, fused_mlp, loss, parallel, checkpoint and plan beside it.
"""

import json
from pathlib import Path
from typing import Any

import torch

from monotreme.errors import InputError, MismatchError
from monotreme.models import load_config
from monotreme.plot import line_chart
from monotreme.records import Counts, Dropped, Question, digest, dropped_table, read_questions
from monotreme.run import Run
from monotreme.storage import sha256
from monotreme.train import loop, plan
from monotreme.train.attention import ATTENTION, check_isolation
from monotreme.train.batches import questions_reached
from monotreme.train.checkpoint import Checkpoints
from monotreme.train.encode import Encoded, check_vocabulary, encode, load_tokenizer
from monotreme.train.frozen import load_base, to_float8
from monotreme.train.loop import Settings, train
from monotreme.train.lora import (
    adapter_config,
    add_adapter,
    max_positions,
    save_adapter,
    trainable,
)
from monotreme.train.parallel import check_size, following, leading

NAME = "train"
SAVE_STEPS = 50  # between checkpoints: minutes of work against seconds of writing
GPU_ROWS = 4  # times max_length: tokens of a row that a GPU is asked for; too much is halved
ENDS = 10  # steps that the first and the last loss are means over


def inputs(run: Run) -> dict[str, str]:
    """What this stage reads, by name, with its digest."""
    return {
        "decontaminate/questions.parquet": sha256(run.output("decontaminate", "questions.parquet")),
        "base": run.model_digest(run.recipe.train.base),
    }


def log_facts(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the log says of a whole training; tokens count once an epoch."""
    losses = [line["loss"] for line in lines]
    tokens = sum(line["num_tokens"] for line in lines)
    return {
        "num_steps": len(lines),
        "num_tokens": tokens,
        "num_answer_tokens": sum(line["num_answer_tokens"] for line in lines),
        "first_loss": _mean(losses[:ENDS]),
        "last_loss": _mean(losses[-ENDS:]),
        "tokens_per_second": round(tokens / sum(line["seconds"] for line in lines), 1),
    }


def loss_chart(lines: list[dict[str, Any]]) -> str:
    """The loss of each step and its mean over the last steps, as SVG."""
    losses = [line["loss"] for line in lines]
    means = [_mean(losses[max(0, i + 1 - ENDS) : i + 1]) for i in range(len(losses))]
    series = {
        "loss of the step": list(enumerate(losses, start=1)),
        f"mean of {ENDS} steps": list(enumerate(means, start=1)),
    }
    return line_chart("Training loss", "step", "cross-entropy, nats per token", series)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _model_with_adapter(run: Run, folder: Path) -> Any:
    settings, device = run.recipe.train, _device()
    precision, trust = settings.base_precision, settings.base.trust_remote_code
    model = load_base(folder, precision, trust, ATTENTION, device)
    model = add_adapter(model, adapter_config(settings), run.recipe.seed).to(device)
    if precision == "fp8":
        to_float8(model)
    check_isolation(model.eval())
    return model


def _device() -> torch.device:
    """The GPU of this rank, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _checkpoints(run: Run, folder: Path, encoded: Encoded, base: str) -> Checkpoints:
    settings = run.settings(NAME)
    del settings["base"]  # its digest counts, not its name
    identity = {
        "data": encoded.digest,
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


def _settings(run: Run) -> Settings:
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
    )


def _encoded(run: Run, folder: Path, limit: int) -> tuple[Encoded, list[Question], list[Dropped]]:
    """The questions that decontaminate left, as `encode` gives them with the base's tokenizer."""
    questions = read_questions(run.output("decontaminate", "questions.parquet"))
    tokenizer = load_tokenizer(folder, run.recipe.train.base.trust_remote_code)
    return encode(tokenizer, questions, limit)


def plan_of(run: Run) -> dict[str, Any]:
    """What the training will take (plan.py), from the questions that decontaminate left.

    Raises:
        InputError: there are none yet, or the base cannot be read.
    """
    recipe = run.recipe.train
    folder = run.model(recipe.base, weights=False)
    config = load_config(folder)
    size = plan.size_of(config, adapter_config(recipe))
    limit = min(recipe.max_length, max_positions(config))
    encoded, _, dropped = _encoded(run, folder, limit)
    rows = GPU_ROWS * recipe.max_length
    found = plan.plan(size, encoded, recipe.batch_size, recipe.epochs, recipe.base_precision, rows)
    return {**found, "too_long_or_empty": len(dropped)}


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


def follow(run: Run, address: str) -> None:
    """Take part in a training that another process leads, on the same questions and base.

    Raises:
        InputError, MismatchError: as `execute`.
    """
    with following(address) as team:
        folder = run.model(run.recipe.train.base)
        model = _model_with_adapter(run, folder)
        limit = min(run.recipe.train.max_length, max_positions(model.config))
        encoded, *_ = _encoded(run, folder, limit)
        loop.follow(model, encoded, _settings(run), team)


def execute(run: Run) -> None:
    """Train the adapter and leave it with its log, its loss curve and what was dropped.

    Raises:
        InputError: base or questions cannot be used, or the loss is no number any more.
        MismatchError: the tokenizer does not belong to the model.
    """
    recipe = run.recipe.train
    check_size(run.num_gpus, recipe.batch_size)
    with run.stage(NAME, found := inputs(run)) as work:
        checked = _is_checked(run, found["decontaminate/questions.parquet"])
        folder = run.model(recipe.base)
        model = _model_with_adapter(run, folder)
        limit = min(recipe.max_length, max_positions(model.config))
        encoded, kept, dropped = _encoded(run, folder, limit)
        _refuse_too_long(run, dropped, limit)
        if not kept:
            raise InputError(
                f"none of {len(dropped):,} questions can be trained on within {limit:,} tokens",
                "Raise train.max_length, or look at the questions of decontaminate",
            )
        reached = questions_reached(len(kept), recipe.batch_size, run.recipe.seed, recipe.epochs)
        dropped += _not_reached(kept, reached.tolist(), recipe.epochs)
        work.table("dropped.parquet", dropped_table(dropped))
        check_vocabulary(encoded, model.get_input_embeddings().num_embeddings, folder)
        log = work.folder / "log.jsonl"
        checkpoints = _checkpoints(run, work.folder, encoded, found["base"])
        if run.force:
            checkpoints.forget()
        with leading(run.num_gpus, run.folder) as team:
            done = train(model, encoded, kept, _settings(run), checkpoints, log, team)
        with work.file("adapter") as adapter:
            save_adapter(model, adapter, *_base_name(recipe.base.model, found["base"]))
        work.register("log.jsonl")
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        work.text("loss.svg", loss_chart(lines))
        work.counts = Counts.tally(
            [kept[i].source for i in reached], [(d.question.source, d.reason) for d in dropped]
        )
        work.facts = {
            **log_facts(lines),
            "mean_length": round(float(encoded.lengths.mean()), 1),
            "checked": checked,
            "num_ranks": team.size,
            **done,
            "num_trainable_parameters": sum(p.numel() for p in trainable(model).values()),
        }
