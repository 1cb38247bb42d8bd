"""A model of the cost: what a step takes on another number of questions, and on other machines.

Of each step the processor seconds of the first process are start + each · n, those of the workers
start + each · n, and for the join also pair · n². Only the workers' spread over more workers. Fitted
by least squares in which every size counts alike, with no negative term.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

WORKERS = 2  # of the runs that are fitted
JOINS = ("join", "leaks: join")
LEAST = 0.05  # seconds under which a figure is noise
Step = dict[str, float]


@dataclass(frozen=True)
class Cost:
    """Processor seconds of a step.

    Attributes:
        first, others: (3,) of the first process and of the workers: start, a question, a pair.
    """

    first: np.ndarray
    others: np.ndarray

    def processor(self, num: float) -> float:
        """Of all processes, as the runs had them."""
        return float((self.first + self.others) @ _powers(num))

    def seconds(self, num: float, workers: int) -> float:
        """On idle processors, one a worker; a worker's start is paid by each."""
        spread = np.array([1 / WORKERS, 1 / workers, 1 / workers])
        return float(self.first @ _powers(num) + (self.others * spread) @ _powers(num))


def fitted(runs: dict[int, dict[str, Step]]) -> dict[str, Cost]:
    """Number of questions → its steps; the cost of each step."""
    names = list(next(iter(runs.values())))
    return {name: Cost(*(_fit(runs, name, part) for part in ("first", "others"))) for name in names}


def _fit(runs: dict[int, dict[str, Step]], name: str, part: str) -> np.ndarray:
    # the leak check's other side has a fixed size: its join grows with n alone
    used = 3 if name == "join" and part == "others" else 2
    found = np.array([max(steps[name][part], 0) for steps in runs.values()])
    weights = 1 / np.maximum(found, LEAST)
    powers = np.array([_powers(num)[:used] for num in runs])
    scale = powers.max(0)  # of very different sizes
    terms, _ = nnls(powers / scale * weights[:, None], found * weights)
    return np.concatenate([terms / scale, np.zeros(3 - used)])


def _powers(num: float) -> np.ndarray:
    return np.array([1.0, num, float(num) ** 2])


def exponents(runs: dict[int, dict[str, Step]]) -> dict[str, float]:
    """How processor seconds grow between the two largest sizes: log of the ratio over log of sizes'."""
    small, large = sorted(runs)[-2:]
    found = {}
    for name, step in runs[large].items():
        before, after = (each["first"] + each["others"] for each in (runs[small][name], step))
        if before > LEAST:
            found[name] = float(np.log(after / before) / np.log(large / small))
    return found


# ── a named cluster ──────────────────────────────────────────────────────────────────────────────

CORES = 8 * 64  # eight nodes of 64 cores like those measured
GPU_CORES, GPUS = 64, 8  # a node with H100 SXM and such cores
GPU_TEXTS = 14_200  # a second: all-MiniLM-L6-v2 on a V100 (sbert.net, pretrained models)
GPU_FLOP = 0.5 * 67e12  # a second: half of the float32 peak of the data sheet
DIMENSION = 384
LISTS = 4  # of a row, assumed: a recipe's record says how many it took
UNEVEN = 2  # assumed: how many more pairs lists of different lengths have than equal ones
WHOLE = 4  # assumed: what a float32 product costs of a bf16 one; lists are chosen by the former


def list_products(num: float) -> float:
    """Products of two rows in a join through √n lists, those with the lists themselves included."""
    return num**1.5 * (UNEVEN * LISTS**2 / 2 + WHOLE)


def projected(costs: dict[str, Cost], embedding: float, num: float) -> dict[str, dict[str, float]]:
    """Hours of `num` questions by part of the work, on both machines.

    Args:
        embedding: processor seconds of a text.
    """
    product = 2 * costs["join"].others[2]  # seconds: n²/2 of them are compared
    rest = [name for name in costs if name not in JOINS]
    seconds = {
        "cores": {
            "embedding": embedding * num / CORES,
            "all pairs": costs["join"].seconds(num, CORES),
            "lists": product * list_products(num) / CORES,
            "other": sum(costs[name].seconds(num, CORES) for name in rest),
        },
        "gpus": {
            "embedding": num / GPU_TEXTS / GPUS,
            "all pairs": DIMENSION * num**2 / GPU_FLOP / GPUS,
            "lists": 2 * DIMENSION * list_products(num) / GPU_FLOP / GPUS,
            "other": sum(costs[name].seconds(num, GPU_CORES) for name in rest),
        },
    }
    alone = sum(float(cost.first @ _powers(num)) for cost in costs.values())
    return {
        machine: {part: took / 3600 for part, took in {**parts, "of it alone": alone}.items()}
        for machine, parts in seconds.items()
    }
