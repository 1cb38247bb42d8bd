"""The calibrated model: figures of a pair → the chance that it is a leak.

A logistic regression with two sets of coefficients, one for texts that are nearly equal and one for
texts in other words; a pair in between gets a mean of both. The same fact weighs differently there:
one number changed in a copy makes another question, in a rewording it may be a slip of counting.
`model.json` holds the coefficients, `bench/triage_model/fit.py` makes them.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from math import exp

FAR, CLOSE = 0.5, 0.9  # difflib ratios at which a pair is wholly the one or the other
BIAS = "bias"


@cache
def load() -> dict[str, tuple[float, float]]:
    """Figure, or "bias" → its coefficients (far, close)."""
    text = resources.files("monotreme.triage").joinpath("model.json").read_text("utf-8")
    return {name: (far, close) for name, (far, close) in json.loads(text).items()}


def closeness(ratio: float) -> float:
    """0 for texts in other words, 1 for nearly equal ones."""
    return min(1.0, max(0.0, (ratio - FAR) / (CLOSE - FAR)))


def contributions(figures: Mapping[str, float]) -> dict[str, float]:
    """What each figure, and the bias, adds to the log odds of a leak."""
    near = closeness(figures["ratio"])
    return {
        name: (far + near * (close - far)) * (1.0 if name == BIAS else figures[name])
        for name, (far, close) in load().items()
    }


def chance(figures: Mapping[str, float]) -> float:
    """The chance that the pair is a leak, between 0 and 1."""
    odds = sum(contributions(figures).values())
    return 1 / (1 + exp(-max(-30.0, min(30.0, odds))))
