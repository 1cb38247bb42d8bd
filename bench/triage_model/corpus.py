"""The pairs that triage's model is fitted and measured on, from real questions with a known class.

Three kinds: labelled pairs (with and without their answers), edits of real questions (`edits.py`), and
natural look-alikes, which are near in the embedding but have another answer.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triage_model.edits import OTHER, SAME, wrapped

from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.neighbors import joined
from monotreme.similar import Texts, similar_between
from monotreme.wording import final_answer, last_boxed, normalize, same_answer

Row = dict[str, Any]
NEAR = 0.77  # similarity from which two questions count as look-alikes here


@dataclass(frozen=True, slots=True)
class Base:
    """A real question; `options` and `answer` (a text) may be empty."""

    text: str
    options: tuple[str, ...]
    answer: str


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").strip().split("\n")]


def bases(data: Path) -> dict[str, list[Base]]:
    """Set name → its questions, the training and the test side of each set apart."""
    found: dict[str, list[Base]] = {}
    for split in ("train", "test"):
        rows = lines(data / "sources/gsm8k" / f"{split}.jsonl")
        found[f"gsm8k_{split}"] = [
            Base(r["question"], (), final_answer(r["answer"]) or "") for r in rows
        ]
        for name in ("arc_challenge", "arc_easy"):
            rows = lines(data / "benchmarks" / name / f"{split}.jsonl")
            found[f"{name}_{split}"] = [
                _choice(r["question"], r["choices"], r["answerKey"]) for r in rows
            ]
        rows = lines(data / "sources/openbookqa" / f"{split}.jsonl")
        found[f"openbookqa_{split}"] = [
            _choice(r["question_stem"], r["choices"], r["answerKey"]) for r in rows
        ]
    found["math_train"] = [
        Base(r["problem"], (), r["answer"])
        for r in lines(data / "sources/math/train_answers.jsonl")
    ]
    found["math_test"] = [
        Base(r["problem"], (), last_boxed(r["solution"]) or "")
        for r in lines(data / "sources/math/test.jsonl")
    ]
    for split in ("test", "validation", "dev"):
        rows = lines(data / "benchmarks/mmlu" / f"{split}.jsonl")
        found[f"mmlu_{split}"] = [
            Base(r["question"], tuple(r["choices"]), r["choices"][r["answer"]]) for r in rows
        ]
    return found


def _choice(text: str, choices: dict[str, list[str]], key: str) -> Base:
    return Base(text, tuple(choices["text"]), choices["text"][choices["label"].index(key)])


def row(family: str, label: str, bench: Base, train: Base, number: int) -> Row:
    return {
        "id": f"{family}-{number}", "family": family, "label": label, "benchmark_question": bench.text,
        "benchmark_choices": list(bench.options), "benchmark_answer": bench.answer,
        "train_instruction": train.text, "train_output": train.answer,
    }  # fmt: skip


# ── answers and layouts ──────────────────────────────────────────────────────────────────────────


def dressed(base: Base, rng: random.Random, options: bool) -> Base:
    """A question as training sets write it: options by letter, the answer with words around it."""
    text, answer = base.text, base.answer
    if options and base.options:
        mixed = rng.sample(base.options, len(base.options))
        style = rng.choice(("{}. {}", "({}) {}", "{}) {}", "{}: {}"))
        layout = rng.choice(("\n", "\n", "  "))
        text = text + "\n" + layout.join(style.format(chr(65 + i), o) for i, o in enumerate(mixed))
        if answer in mixed and rng.random() < 0.6:
            letter = chr(65 + mixed.index(answer))
            answer = rng.choice(
                (letter, f"{letter}.", f"The answer is {letter}", style.format(letter, answer))
            )
    elif answer:
        number = bool(re.fullmatch(r"-?[\d,./]+", answer))
        ways = ["{}", "The answer is {}.", "Working it out step by step, one finds it.\n#### {}"]
        ways += ["So we get $\\boxed{{{}}}$."] if number or "\\" in answer else []
        answer = rng.choice(ways).format(answer)
    if answer and not base.options and rng.random() < 0.15:
        return Base(f"Question: {text}\nAnswer: {answer}", base.options, "")
    return Base(text, base.options, answer)


def wrong(base: Base, rng: random.Random) -> str:
    """Another answer than the right one."""
    others = [option for option in base.options if not same_answer(option, base.answer)]
    if others:
        return rng.choice(others)
    if re.fullmatch(r"-?[\d,]+(\.\d+)?", base.answer):
        value = float(base.answer.replace(",", ""))
        return f"{rng.choice((value + rng.randint(1, 9), value * 2, abs(value - 3) + 0.5, value * 10 + 1)):g}"
    return rng.choice((str(rng.randint(2, 60)), f"{rng.randint(1, 9)}x", "none of them"))


def hidden(pair: Row, rng: random.Random) -> Row:
    """Without the answer on one side, on both or on neither."""
    way = rng.random()
    if way < 0.35:
        return pair
    if way < 0.75:
        pair = {**pair, "train_output": ""}
    return {**pair, "benchmark_answer": ""} if way > 0.5 else pair


def edited(found: dict[str, list[Base]], per_set: int, seed: int) -> Iterator[Row]:
    """Several edits of each sampled question."""
    rng = random.Random(seed)
    for name in sorted(found):
        usable = [base for base in found[name] if 5 <= len(base.text.split()) <= 250]
        for base in rng.sample(usable, min(per_set, len(usable))):
            for kind in rng.sample(sorted(SAME), 5):
                label, edit = SAME[kind]
                text = edit(base.text, rng)
                if text and text.strip():
                    yield _finish(f"edit/{kind}", label, base, text, base.answer, rng)
            for kind in rng.sample(sorted(OTHER), 8):
                text = OTHER[kind](base.text, rng)
                if text and normalize(text) != normalize(base.text):
                    chance = rng.random() < 0.06
                    answer = base.answer if chance else wrong(base, rng)
                    yield _finish(f"edit/{kind}", "similar_but_different", base, text, answer, rng)


def _finish(family: str, label: str, base: Base, text: str, answer: str, rng: random.Random) -> Row:
    train = dressed(Base(text, base.options, answer), rng, options=rng.random() < 0.4)
    if rng.random() < 0.15:
        train = Base(wrapped(train.text, rng) or train.text, train.options, train.answer)
    return hidden(row(family, label, base, train, rng.randrange(10**9)), rng)


# ── natural look-alikes ──────────────────────────────────────────────────────────────────────────

SETS = (
    ("gsm8k_train", "gsm8k_test"), ("math_train", "math_test"), ("mmlu_validation", "mmlu_test"), ("arc_easy_train", "arc_easy_test"),
    ("arc_challenge_train", "arc_challenge_test"), ("openbookqa_train", "openbookqa_test"), ("mmlu_dev", "mmlu_test"),
)  # fmt: skip


def natural(found: dict[str, list[Base]], per_set: int, cache: Path, seed: int) -> Iterator[Row]:
    """Look-alikes between the training and the test side of one set that have other answers."""
    rng = random.Random(seed)
    encoder = find_encoder(BUILT_IN, Path(), str)
    for left, right in SETS:
        ours = rng.sample(found[left], min(2000, len(found[left])))
        theirs = rng.sample(found[right], min(2000, len(found[right])))
        left_texts, right_texts = ([base.text for base in side] for side in (ours, theirs))
        blocks, _ = similar_between(
            Texts(left_texts, encoder, cache), Texts(right_texts, encoder, cache), NEAR
        )
        rows = []
        for i, j, _ in zip(*joined(list(blocks)), strict=True):
            label = _natural_label(ours[int(i)], theirs[int(j)])
            if label:
                train = dressed(ours[int(i)], rng, options=rng.random() < 0.4)
                rows.append(
                    hidden(
                        row(f"natural/{right}", label, theirs[int(j)], train, rng.randrange(10**9)),
                        rng,
                    )
                )
        templates = [
            r for r in rows if "scenarios does the main character" in r["benchmark_question"]
        ]
        others = [r for r in rows if r not in templates]
        for name, some in ((f"template/{right}", templates), (f"natural/{right}", others)):
            for pair in rng.sample(some, min(per_set, len(some))):
                yield {**pair, "family": name}


def _natural_label(train: Base, bench: Base) -> str | None:
    """None where the class cannot be known: other words but the same answer."""
    same = normalize(train.text) == normalize(bench.text)
    if same_answer(train.answer, bench.answer):
        return (
            "duplicate"
            if same
            else ("similar_but_different" if "scenarios does the main" in bench.text else None)
        )
    return None if same and not bench.options else "similar_but_different"


# ── labelled ─────────────────────────────────────────────────────────────────────────────────────


def labelled(path: Path) -> list[Row]:
    return lines(path)


def without_answers(pair: Row) -> Row:
    """The same pair with no answer on either side, nor inside the instruction."""
    text = re.split(r"\nAnswer:", pair["train_instruction"])[0]
    return {
        **pair,
        "family": f"{pair['family']}, no answers",
        "train_instruction": text,
        "train_output": "",
        "benchmark_answer": "",
    }
