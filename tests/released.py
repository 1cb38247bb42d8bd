"""What the tests of release share: a run whose other stages are done, and a look at its cards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from conftest import finish, sums
from merging import write_adapter

from monotreme import merge
from monotreme.decontaminate import PAIR_SCHEMA
from monotreme.records import Counts, Question, question_table
from monotreme.run import Run

NAMES = {
    "dataset": "someone/sums",
    "adapter": "someone/sums-adapter",
    "merged": {"base": "someone/sums-merged"},
}
LEAKS = {
    "benchmarks": [
        {"id": "arc_challenge", "license": "CC-BY-SA-4.0", "split": "test", "num_questions": 1172}
    ],
    "table": [
        {
            "source": "sums",
            "benchmark": "arc_challenge",
            "duplicate": 3,
            "gray_area": 2,
            "similar_but_different": 7,
        }
    ],
    "dropped_by_source": {"sums": 5},
    "rates": [
        {"source": "sums", "read": 17, "leaked": 5, "rate": 0.294118, "interval": [0.133, 0.531]}
    ],
    "review": {"pairs": 12, "judged": 4, "changed": 1, "reviewers": ["ada"]},
    "between_splits": [
        {
            "benchmark": "arc_challenge",
            "split": "test",
            "other_split": "train",
            "duplicate": 2,
            "gray_area": 0,
            "similar_but_different": 0,
            "duplicate_ids": ["a", "b"],
        }
    ],
    "threshold": 0.8,
    "drop": ["duplicate", "gray_area"],
    "encoder": "all-MiniLM-L6-v2",
}


def score(model: str, value: float, benchmark: str = "arc_challenge") -> dict[str, Any]:
    return {
        "model": model,
        "benchmark": benchmark,
        "metric": "acc_norm",
        "score": value,
        "stderr": 1.43,
        "num_questions": 1172,
        "shots": 25,
    }


SCORES: dict[str, Any] = {
    "protocol": "open-llm-2023",
    "scores": [
        score("base", 53.07),
        score("adapter", 55.2),
        {**score("adapter", 56.1, "mean"), "stderr": None, "shots": None},
        score("merged-base", 55.25),
    ],
    "perplexity": [
        {
            "model": "adapter",
            "perplexity": 7.2512,
            "num_tokens": 8100,
            "delta_log_loss": -0.0312,
            "delta_stderr": 0.004,
        }
    ],
    "deltas": [
        {
            "model": "adapter",
            "benchmark": "arc_challenge",
            "delta": 2.13,
            "stderr": 0.9,
            "low": 0.37,
            "high": 3.89,
            "p_value": 0.018,
            "num_questions": 1172,
            "test": "mcnemar",
        }
    ],
}
TRAIN_FACTS = {"num_steps": 3, "num_tokens": 4321, "num_trainable_parameters": 9216}


def finish_run(
    make_run: Callable[..., Run],
    model: Path,
    questions: list[Question] | None = None,
    scores: dict[str, Any] = SCORES,
    **tables: Any,
) -> Run:
    """A run whose stages up to evaluate are done; curate read 17 sums, and 5 leaked."""
    questions = sums(12) if questions is None else questions
    run = make_run(**{"release": NAMES, **tables})
    with run.open():
        finish(run, "curate", sums(17))
        with run.stage("decontaminate", {}) as work:
            work.table("questions.parquet", question_table(questions))
            work.table("pairs.parquet", PAIR_SCHEMA.empty_table())
            work.json("leaks.json", LEAKS)
            work.counts = Counts.tally([q.source for q in questions], [])
        with run.stage("train", {}) as work:
            with work.file("adapter") as folder:
                settings = {"r": 2, "lora_alpha": 2, "target_modules": ["down_proj"]}
                write_adapter(folder, model, **settings)
            work.facts = TRAIN_FACTS
            work.counts = Counts.tally([q.source for q in questions], [])
        merge.execute(run)
        with run.stage("evaluate", {}) as work:
            work.json("scores.json", scores)
    return run


def card(run: Run, part: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a prepared README.md."""
    text = (run.folder / "release" / part / "README.md").read_text()
    _, matter, body = text.split("---\n", 2)
    return yaml.safe_load(matter), body
