"""What the log of a training says: at a glance, as facts, as a chart, and of overfitting."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monotreme.plot import line_chart
from monotreme.progress import notice

ENDS = 10  # steps that the first and the last loss are means over
Line = dict[str, Any]


def read_log(path: Path) -> list[Line]:
    """The lines of log.jsonl, one a step."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def glance(line: Mapping[str, Any]) -> str:
    """What is worth seeing of a step while it runs."""
    parts = [f"loss {line['loss']:.3f}", f"rate {line['learning_rate']:.1e}"]
    parts.append(f"{line['num_tokens'] / line['seconds']:,.0f} tokens/s")
    if "teraflop" in line:
        parts.append(f"{line['teraflop'] / line['seconds']:,.1f} TFLOP/s")
    return " · ".join(parts)


def facts(lines: Sequence[Line], peak: float | None) -> dict[str, Any]:
    """What the log says of a whole training; tokens count once an epoch.

    Args:
        peak: TFLOP/s that the GPUs have together by their data sheet; None where it is not known.
    """
    losses = [line["loss"] for line in lines]
    tokens, seconds = (sum(line[key] for line in lines) for key in ("num_tokens", "seconds"))
    found = {
        "num_steps": len(lines),
        "num_tokens": tokens,
        "num_answer_tokens": sum(line["num_answer_tokens"] for line in lines),
        "first_loss": _mean(losses[:ENDS]),
        "last_loss": _mean(losses[-ENDS:]),
        "tokens_per_second": round(tokens / seconds, 1),
    }
    rate = sum(line.get("teraflop", 0) for line in lines) / seconds
    if rate:
        found["teraflop_per_second"] = float(f"{rate:.4g}")
    if rate and peak:
        found["share_of_peak"] = round(rate / peak, 4)
    return found | _validation_facts(lines)


def _validation_facts(lines: Sequence[Line]) -> dict[str, Any]:
    measured = _validations(lines)
    if not measured:
        return {}
    best = min(measured, key=lambda line: line["validation_loss"])
    return {
        "validation_loss": measured[-1]["validation_loss"],
        "best_validation_loss": best["validation_loss"],
        "best_validation_step": best["step"],
    }


def _validations(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if "validation_loss" in line]


def is_overfitting(losses: Sequence[float]) -> bool:
    """Whether the last two validation losses, and no two before them, are over the best by then."""
    best = min(losses[:-2], default=float("inf"))
    before = len(losses) > 3 and losses[-3] > min(losses[:-3])
    return len(losses) > 2 and min(losses[-2:]) > best and not before


def warn_of_overfitting(lines: Sequence[Line]) -> None:
    """Tell the user once that the validation loss has begun to rise."""
    measured = _validations(lines)
    if is_overfitting([line["validation_loss"] for line in measured]):
        best = min(measured, key=lambda line: line["validation_loss"])
        notice(
            f"the validation loss is {measured[-1]['validation_loss']:.3f} after step "
            f"{measured[-1]['step']}, and was {best['validation_loss']:.3f} after {best['step']}: "
            "the adapter may be overfitting; fewer epochs or a lower rate may do better"
        )


def loss_chart(lines: Sequence[Line]) -> str:
    """The loss of each step, its mean over the last steps, and the validation loss, as SVG."""
    losses = [line["loss"] for line in lines]
    means = [_mean(losses[max(0, i + 1 - ENDS) : i + 1]) for i in range(len(losses))]
    series: dict[str, Any] = {
        "loss of the step": list(enumerate(losses, start=1)),
        f"mean of {ENDS} steps": list(enumerate(means, start=1)),
    }
    measured = [(line["step"], line["validation_loss"]) for line in _validations(lines)]
    if measured:
        series["held-out questions"] = measured
    return line_chart("Training loss", "step", "cross-entropy, nats per token", series)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
