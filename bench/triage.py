"""The three-way triage on pairs whose class is known: precision, recall and F1 of "this is a leak".

    python bench/triage.py [--quick] [--data ../shared/data]

Every pair is judged by a model that has not seen its benchmark question (five folds); intervals are
95 % by bootstrap over benchmark questions. Labelled pairs are judged as they are and again without any
answer; edits and natural look-alikes are made as for the fit (triage_model/). The peers are what is
used without triage: every pair over the threshold is a leak, and 8-gram overlap (open-r1).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from triage_model.corpus import Row, bases, edited, labelled, natural, without_answers
from triage_model.fit import (
    ROOT,
    bounds_of,
    design_of,
    evidence_of,
    figures_of,
    held_out,
    leaks_of,
)

from monotreme.records import BenchmarkQuestion, Judgement, Question
from monotreme.triage import background, triage
from monotreme.triage.cascade import decide
from monotreme.triage.pairs import read_pair
from monotreme.wording import words

TARGET = 0.97
DRAWS = 1000


def leak_flags(judgements: Sequence[Judgement]) -> np.ndarray:
    return np.array([judgement.verdict != "similar_but_different" for judgement in judgements])


def scores(found: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1; nan where there is nothing to find."""
    both = float((found & true).sum())
    precision = both / found.sum() if found.any() else float("nan")
    recall = both / true.sum() if true.any() else float("nan")
    return precision, recall, 2 * both / max(found.sum() + true.sum(), 1)


def interval(found: np.ndarray, true: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of F1, drawing benchmark questions."""
    random = np.random.default_rng(0)
    _, place = np.unique(groups, return_inverse=True)
    size = place.max() + 1
    sums = [np.bincount(place, weights=w, minlength=size) for w in (found & true, found, true)]
    drawn = random.integers(size, size=(DRAWS, size))
    both, ours, wanted = (values[drawn].sum(1) for values in sums)
    low, high = np.quantile(2 * both / np.maximum(ours + wanted, 1), (0.025, 0.975))
    return float(low), float(high)


def report(title: str, rows: Sequence[Row], found: np.ndarray) -> float:
    """Print one line for the whole and one for each family; the F1 of the whole."""
    true, groups = leaks_of(rows) > 0, np.array([row["benchmark_question"] for row in rows])
    families = np.array([row["family"] for row in rows])
    print(f"\n{title}\n{'':<44}{'pairs':>6} {'right':>6} {'P':>6} {'R':>6} {'F1':>6}  95 %")
    for name in ("all", *sorted(set(families))):
        mine = np.full(len(rows), True) if name == "all" else families == name
        precision, recall, f1 = scores(found[mine], true[mine])
        low, high = interval(found[mine], true[mine], groups[mine])
        right = (found[mine] == true[mine]).mean()
        line = f"{name.replace(', no answers', ''):<44}{mine.sum():>6} {right:>6.3f}"
        mixed = 0 < true[mine].sum() < mine.sum()
        tail = (
            f" {precision:>6.3f} {recall:>6.3f} {f1:>6.3f}  {low:.3f}-{high:.3f}" if mixed else ""
        )
        print(line + tail)
    return scores(found, true)[2]


def eight_grams(rows: Sequence[Row]) -> np.ndarray:
    """What an n-gram script says: a run of eight words in common is a leak."""

    def grams(text: str) -> set[tuple[str, ...]]:
        found = words(text)
        return {tuple(found[i : i + 8]) for i in range(len(found) - 7)}

    return np.array(
        [bool(grams(r["train_instruction"]) & grams(r["benchmark_question"])) for r in rows]
    )


def mmlu(data: Path) -> tuple[float, float]:
    """MMLU test × dev and validation: (share of true twins found, share of template pairs called leaks)."""
    found = bases(data)
    test = [
        read_pair(
            {
                "benchmark_question": b.text,
                "benchmark_choices": list(b.options),
                "benchmark_answer": b.answer,
                "train_instruction": "",
            }
        )[1]
        for b in found["mmlu_test"]
    ]
    known = background(test)
    train = [
        Question(b.text, "", b.answer, "mmlu", "MIT", False)
        for s in ("mmlu_dev", "mmlu_validation")
        for b in found[s]
    ]

    def share(pairs: list[tuple[Question, BenchmarkQuestion]]) -> float:
        return float(leak_flags([triage(q, b, known) for q, b in pairs]).mean())

    same: Callable[[str], str] = lambda text: " ".join(words(text))  # noqa: E731
    by_text: dict[str, list[Question]] = {}
    for question in train:
        by_text.setdefault(same(question.instruction), []).append(question)
    twins = [
        (q, b)
        for b in test
        for q in by_text.get(same(b.stem), [])
        if same(q.output) == same(b.answers[0])
    ]
    frame = "two scenarios does the main character"
    templates = [(q, b) for b in test if frame in b.stem for q in train if frame in q.instruction]
    templates = [pair for pair in templates if same(pair[0].instruction) != same(pair[1].stem)][::5]
    print(
        f"\nMMLU test × dev and validation: {len(twins)} twins, {len(templates):,} template pairs"
    )
    return share(twins), share(templates)


def pairs_a_second(rows: Sequence[Row]) -> float:
    pairs = [read_pair(row) for row in rows]
    known = background(benchmark for _, benchmark in pairs)
    started = time.process_time()
    for question, benchmark in pairs:
        triage(question, benchmark, known)
    return len(pairs) / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="without natural look-alikes, fewer edits"
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "triage_cache")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        print(f"no data at {asked.data}: nothing measured")
        return
    known = labelled(asked.data / "pairs" / "labelled.jsonl")
    sets = bases(asked.data)
    made = list(edited(sets, 60 if asked.quick else 200, seed=0))
    made += [] if asked.quick else natural(sets, 400, asked.cache, seed=0)
    rows = [*known, *map(without_answers, known), *made]
    evidence = evidence_of(rows)
    names, values = figures_of(evidence)
    odds = held_out(rows, design_of(names, values), bounds_of(names))
    judgements = [
        decide(e, float(1 / (1 + np.exp(-o)))) for e, o in zip(evidence, odds, strict=True)
    ]
    found, num = leak_flags(judgements), len(known)
    ours = report("labelled pairs", rows[:num], found[:num])
    blind = report("labelled pairs without answers", rows[num : 2 * num], found[num : 2 * num])
    report("edits and natural look-alikes", rows[2 * num :], found[2 * num :])
    true = leaks_of(known) > 0
    peers = {
        "every pair is a leak": scores(np.full(num, True), true)[2],
        "8-grams": scores(eight_grams(known), true)[2],
    }
    twins, templates = mmlu(asked.data)
    speed = pairs_a_second(rows)
    print(
        f"twins found {twins:.3f}, template pairs called leaks {templates:.4f}; {speed:,.0f} pairs a second on one core"
    )
    met = ours >= TARGET and twins == 1.0 and templates <= 0.01 and speed >= 1000
    line = {
        "name": "triage", "ours": ours, "without_answers": blind, "peers": peers, "ratio": ours / max(peers.values()),
        "target": TARGET, "met": met, "floor_share": None,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
