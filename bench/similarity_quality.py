"""What the similarity exclusion would drop of labelled question pairs, by family, beside MinHash.

    python bench/similarity_quality.py

Pairs: ../shared/data/pairs/labelled.jsonl. A label of duplicate or gray_area means that both sides
ask the same question (the positive class), similar_but_different that they do not. A method "drops"
a pair when it would let only one side stay: the exclusion where the cosine is over the threshold
and the rule of `curate.protect` does not keep the pair apart, a lexical method where the word
3-grams overlap by half. Almost every family is all of one class, so precision is a matter of how
the families are mixed: read a family's counts, and the total only within one run. The look-alikes
of gsm_plus were taken where their answers differ, so `different_answer` is right there by the
set's making; `different_numbers` is put to the test.
"""

import json
import re
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from monotreme.curate.duplicates import Unprotected
from monotreme.embed import embed
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.neighbors import Pairs
from monotreme.records import Question

PAIRS = Path(__file__).parents[1].parent / "shared" / "data" / "pairs" / "labelled.jsonl"
THRESHOLDS = (0.7, 0.8, 0.85, 0.9)
DEFAULT = 0.8  # of `curate.threshold`
RULES = ("none", "different_answer", "different_numbers")
JACCARD = 0.5  # over word 3-grams, as text-dedup and datatrove are commonly set
PERMUTATIONS = 128
PRIME = 2**31 - 1  # products of two 31-bit numbers stay within uint64


def unit_vectors(texts: list[str]) -> np.ndarray:
    """(len(texts), D) float32 unit rows of the built-in encoder."""
    with tempfile.TemporaryDirectory() as cache:
        encoder = find_encoder(BUILT_IN, Path(), str, truncate=True)
        return embed(texts, encoder, Path(cache), exact=True).rows


def train_question(row: dict[str, Any]) -> Question:
    """The training side; gsm8k_rephrased has "Question: … Answer: … #### x" in one field."""
    text, _, answer = row["train_instruction"].partition("\nAnswer:")
    output = row["train_output"] or answer.strip()
    return Question(text.removeprefix("Question: "), "", output, "train", "unknown", False)


def benchmark_question(row: dict[str, Any]) -> Question:
    return Question(
        row["benchmark_question"], "", row["benchmark_answer"], "benchmark", "unknown", False
    )


def grams(text: str) -> set[str]:
    """Word 3-grams, lower case; a shorter text is one gram."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def jaccard(one: str, other: str) -> float:
    """What MinHash estimates, so the most that it can find."""
    first, second = grams(one), grams(other)
    return len(first & second) / len(first | second)


def signatures(texts: list[str]) -> np.ndarray:
    """(len(texts), PERMUTATIONS) minima of (a h + b) mod p over the grams' hashes h."""
    random = np.random.default_rng(0)
    a, b = random.integers(1, PRIME, (2, PERMUTATIONS), dtype=np.uint64)
    rows = np.empty((len(texts), PERMUTATIONS), np.uint64)
    for row, text in enumerate(texts):
        hashes = np.array([zlib.crc32(gram.encode()) % PRIME for gram in grams(text)], np.uint64)
        rows[row] = ((hashes[:, None] * a + b) % np.uint64(PRIME)).min(0)
    return rows


def methods(train: list[Question], benchmark: list[Question]) -> dict[str, np.ndarray]:
    """Which pairs each method drops; (P,) bool each, the lexical ones last."""
    num = len(train)
    questions = [*train, *benchmark]
    texts = [question.text for question in questions]
    vectors = unit_vectors(texts).astype(np.float64)
    cosine = (vectors[:num] * vectors[num:]).sum(1)
    pairs = Pairs(np.arange(num), np.arange(num, 2 * num), cosine)
    dropped = {
        f"cosine {threshold}, {rule}": (cosine > threshold)
        & ~Unprotected(questions, [pairs], rule).is_protected(pairs)
        for rule in RULES
        for threshold in THRESHOLDS
    }
    overlap = [jaccard(one, other) for one, other in zip(texts[:num], texts[num:], strict=True)]
    hashed = signatures(texts)
    estimate = (hashed[:num] == hashed[num:]).mean(1)
    dropped["3-gram Jaccard, exact"] = np.array(overlap) >= JACCARD
    dropped[f"MinHash, {PERMUTATIONS} permutations"] = estimate >= JACCARD
    return dropped


def score(dropped: np.ndarray, same: np.ndarray) -> dict[str, float]:
    """Precision, recall and their harmonic mean; nan where nothing can be said."""
    right = float((dropped & same).sum())
    precision = right / dropped.sum() if dropped.any() else np.nan
    recall = right / same.sum() if same.any() else np.nan
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(2 * right / (dropped.sum() + same.sum())) if same.any() else np.nan,
    }


def print_families(dropped: dict[str, np.ndarray], same: np.ndarray, family: np.ndarray) -> None:
    """How many pairs of each family each method drops, its own classes apart."""
    columns = {
        **{f">{t}": dropped[f"cosine {t}, none"] for t in THRESHOLDS},
        "answer": dropped[f"cosine {DEFAULT}, different_answer"],
        "numbers": dropped[f"cosine {DEFAULT}, different_numbers"],
        **{
            name.split(",")[0].removeprefix("3-gram "): dropped[name] for name in list(dropped)[-2:]
        },
    }
    print(f"pairs dropped; answer, numbers: over {DEFAULT} and not protected by that rule")
    print(f"{'family':<45}{'same?':>6}{'pairs':>6}" + "".join(f"{c:>8}" for c in columns))
    for name in sorted(set(family)):
        for label in (True, False):
            rows = (family == name) & (same == label)
            if rows.any():
                counts = "".join(f"{int(d[rows].sum()):>8}" for d in columns.values())
                print(f"{name:<45}{'yes' if label else 'no':>6}{int(rows.sum()):>6}{counts}")


def print_family_scores(
    dropped: dict[str, np.ndarray], same: np.ndarray, family: np.ndarray
) -> None:
    lexical = list(dropped)[-2:]
    columns = {
        **{rule: dropped[f"cosine {DEFAULT}, {rule}"] for rule in RULES},
        **{name.split(",")[0]: dropped[name] for name in lexical},
    }
    print(f"\nprecision / recall over {DEFAULT} by family and `protect`")
    print(" " * 45 + "".join(f"{name:>18}" for name in columns))
    for name in sorted(set(family)):
        own = family == name
        scores = (score(found[own], same[own]) for found in columns.values())
        cells = (f"{one['precision']:.3f} / {one['recall']:.3f}" for one in scores)
        print(f"{name:<45}" + "".join(f"{cell.replace('nan', '-'):>18}" for cell in cells))


def main() -> None:
    if not PAIRS.is_file():
        print(f"skipped: the labelled pairs are not at {PAIRS}", file=sys.stderr)
        return
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").strip().split("\n")]
    same = np.array([row["label"] != "similar_but_different" for row in rows])
    family = np.array([row["family"] for row in rows])
    dropped = methods([train_question(r) for r in rows], [benchmark_question(r) for r in rows])
    print_families(dropped, same, family)
    print(f"\n{'all families':<45}{'precision':>10}{'recall':>8}{'F1':>8}")
    scores = {name: score(found, same) for name, found in dropped.items()}
    for name, one in scores.items():
        print(f"{name:<45}{one['precision']:>10.3f}{one['recall']:>8.3f}{one['f1']:>8.3f}")
    print_family_scores(dropped, same, family)
    peers = {name: scores[name]["f1"] for name in list(dropped)[-2:]}
    ours = scores[f"cosine {DEFAULT}, none"]["f1"]  # the settings that a recipe has unasked
    line = {
        "name": "similarity_quality", "ours": ours, "peers": peers,
        "ratio": ours / max(peers.values()), "target": None, "met": None, "floor_share": None,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
