"""The proof of a merge: its logits against those of the adapter on the target.

Both are computed in float32 on the processor, whatever the weights are stored in, so that what
differs is the rounding of the merged weights and nothing else.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monotreme.errors import MismatchError
from monotreme.machine import memory_bytes

PROBES = (
    "What is 17 plus 25? Show the steps.",
    "Which of these is a metal: wood, iron, glass or wool?",
    "If all cats are animals and Tom is a cat, then Tom is",
    "def area(width, height):\n    return",
)
MEMORY_SHARE = 0.8  # of the machine's memory that a float32 model may take; the rest is room


def tolerance(logits: Tensor, dtype: torch.dtype, num_adapted: int) -> float:
    """How far the merge's one rounding may move a logit.

    Rounding a weight matrix turns its outputs by about eps/4 of their size, independently in each
    of `num_adapted` matrices, and the largest of a million logits lies five deviations out: about
    eps · sqrt(num_adapted) · rms(logits). Taken four times, since layers amplify: random Llamas of
    24 layers reach a fifth of this at a weight deviation of 0.06, half at 0.1 (trained models lie
    near 0.02, a fortieth). Computing in float32 adds noise of its own, allowed 64 units.

    Args:
        logits: of the adapter on the target, any shape.
        dtype: that the weights are stored in.
    """
    eps = torch.finfo(dtype).eps + 64 * torch.finfo(torch.float32).eps
    rms = float(logits.double().square().mean().sqrt())
    return 4 * eps * math.sqrt(num_adapted) * rms


def verify(
    target: Path, adapter: Path, merged: Path, *, dtype: torch.dtype, num_adapted: int, trust: bool
) -> dict[str, float | int]:
    """Compare a merged model with PEFT's adapter on its target over the probe texts.

    Args:
        target: model folder, adapter: PEFT folder, merged: the new model folder.
        dtype: that the adapted weights are stored in.
        num_adapted: number of adapted matrices.
        trust: whether code in the folders may run.

    Returns:
        max_difference and bound (logits), effect (how far the adapter itself moves a logit), and the
        perplexity of the target and of the merged model on the probes: a smoke test, no measure.

    Raises:
        InputError: a folder cannot be loaded.
        MismatchError: the difference is over the bound.
    """
    # Imported for a proof alone: writing takes none of the libraries that build models.
    from monotreme.models import load_model, load_tokenizer, put_adapter

    tokenizer = load_tokenizer(target, trust)
    probes = [torch.tensor(tokenizer(text)["input_ids"]) for text in PROBES]
    model = load_model(target, "fp32", trust)
    plain = _logits(model, probes)
    adapted = _logits(put_adapter(model, adapter), probes)
    del model
    written = _logits(load_model(merged, "fp32", trust), probes)
    difference = float((written - adapted).abs().max())
    bound = tolerance(adapted, dtype, num_adapted)
    if not difference <= bound:  # also when it is not a number
        raise MismatchError(
            f"the merged model's logits differ from the adapter's by {difference:.3g}, "
            f"over the bound {bound:.3g}",
            "Nothing was kept; check that the target loads as the architecture it names",
        )
    effect = float((adapted - plain).abs().max())
    tokens = sum(len(ids) for ids in probes)
    return {
        "max_difference": difference,
        "bound": bound,
        "effect": effect,
        "num_tokens": tokens,
        "perplexity_target": _perplexity(plain, probes),
        "perplexity_merged": _perplexity(written, probes),
    }


def smoke(target: Path, merged: Path, *, trust: bool) -> dict[str, float | int]:
    """Perplexity of the target and of the merged model on the probes, in bfloat16.

    What there is for a mix that no adapter stands for: it loads, and still writes texts.

    Raises:
        InputError: a folder cannot be loaded.
        MismatchError: the merged model gives no numbers.
    """
    from monotreme.models import load_model, load_tokenizer

    tokenizer = load_tokenizer(target, trust)
    probes = [torch.tensor(tokenizer(text)["input_ids"]) for text in PROBES]
    told = [
        _perplexity(_logits(load_model(folder, "bf16", trust), probes), probes)
        for folder in (target, merged)
    ]
    if not math.isfinite(told[1]):
        raise MismatchError("the merged model gives no numbers", "Mix with smaller weights")
    tokens = sum(len(ids) for ids in probes)
    return {"perplexity_target": told[0], "perplexity_merged": told[1], "num_tokens": tokens}


def fits_memory(num_weights: int) -> bool:
    """Whether a model of so many weights can be held in float32."""
    return 4 * num_weights <= MEMORY_SHARE * memory_bytes()


@torch.inference_mode()
def _logits(model: Any, probes: list[Tensor]) -> Tensor:
    """Logits of every token of every probe, float32, shape (tokens, vocabulary)."""
    return torch.cat([model(ids[None]).logits[0].float() for ids in probes])


def _perplexity(logits: Tensor, probes: list[Tensor]) -> float:
    """Of every token but the first of each probe. logits: (tokens, vocabulary) of all probes."""
    rows = torch.split(logits, [len(ids) for ids in probes])
    told = torch.cat([row[:-1] for row in rows])
    wanted = torch.cat([ids[1:] for ids in probes])
    # e⁷⁰⁹ is the largest float; what is no number stays none
    return math.exp(min(float(F.cross_entropy(told, wanted)), 700.0))
