"""Scoring multiple choice on a GPU: prefixes read once against every row read whole.

Shapes of the paper's four benchmarks on a random Llama of 7 billion weights in bfloat16: rows of drawn
tokens that share as much as those of `bench/evaluate.py` do. Both ways are ours: the plain one pads rows
of like length, as lm-evaluation-harness does, under the same budget of tokens. Prints seconds, the ratio,
tokens read and the largest difference. Needs nothing but the project.

    python bench/evaluate_gpu.py [--dry-run]      (--dry-run: a tiny model, on any machine)
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from monotreme.machine import device
from monotreme.scoring.plain import score_plain
from monotreme.scoring.shared import score_shared
from monotreme.scoring.spans import Likelihood, Span

BUDGET = 16_384  # the recipe's default


class Shape(NamedTuple):
    """Questions over one prefix of examples each; tokens of the prefix, a question and a choice."""

    groups: int
    questions: int
    choices: int
    prefix: int
    question: int
    choice: int


TASKS = {
    "ARC, 25 shots": Shape(24, 1, 4, 1300, 35, 8),
    "HellaSwag, 10 shots": Shape(24, 1, 4, 1000, 60, 30),
    "TruthfulQA mc2": Shape(1, 64, 8, 130, 20, 15),
    "MMLU, 5 shots": Shape(2, 48, 4, 500, 90, 1),
}
LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def model_of(settings: dict[str, int]) -> Any:
    torch.manual_seed(0)
    sizes = {**settings, "vocab_size": 32000, "max_position_embeddings": 4096}
    config = LlamaConfig(**sizes, initializer_range=0.05)  # else every token is as likely
    with torch.device(device()):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    return model.eval()


def spans_of(shape: Shape) -> list[Span]:
    draw = np.random.default_rng(0)

    def tokens(num: int) -> np.ndarray:
        return draw.integers(3, 32000, num, dtype=np.int32)

    found = []
    for _ in range(shape.groups):
        prefix = tokens(shape.prefix)
        for _ in range(shape.questions):
            context = np.concatenate([prefix, tokens(shape.question)])
            rows = (np.concatenate([context, tokens(shape.choice)]) for _ in range(shape.choices))
            found += [Span(row, len(context)) for row in rows]
    return found


def clocked(work: Callable[[], list[Likelihood]]) -> tuple[list[Likelihood], float]:
    """The second of two calls: the first one warms up."""
    work()
    started = time.perf_counter()
    found = work()  # log-likelihoods are on the processor: the device has finished
    return found, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    model = model_of(TINY if options.dry_run else LLAMA_7B)
    print(f"{torch.__version__} on {device()}, budget {BUDGET:,} tokens")
    print("| task | choices | plain s | monotreme s | ratio | largest difference, nats a token |")
    print("|---|---|---|---|---|---|")
    for name, shape in TASKS.items():
        if options.dry_run:
            shape = shape._replace(groups=1, questions=min(shape.questions, 4))
        spans = spans_of(shape)
        theirs, plain = clocked(lambda s=spans: score_plain(model, s, BUDGET, lambda _: None))
        ours, shared = clocked(lambda s=spans: score_shared(model, s, BUDGET, lambda _: None))
        pairs = zip(ours, theirs, strict=True)
        worst = max(abs(a.log_likelihood - b.log_likelihood) / a.num_tokens for a, b in pairs)
        print(
            f"| {name} | {len(spans)} | {plain:.2f} | {shared:.2f} | {plain / shared:.1f} | {worst:.2g} |"
        )


if __name__ == "__main__":
    main()
