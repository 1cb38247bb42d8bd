"""Benchmarks as one literal table, and their questions from the Hub or from local files.

Splits, shots and metrics are the paper's (arXiv 2308.07317, section 4: the Open LLM Leaderboard of
August 2023); licences are those of the dataset cards.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from monotreme.errors import InputError, RecipeError
from monotreme.recipe import BenchmarkRef
from monotreme.records import BenchmarkQuestion
from monotreme.rows import ENDINGS, BadRow, RawRow, Row, cell, mistyped, read_file, read_hub


@dataclass(frozen=True, slots=True)
class Item:
    """What a row says; see `BenchmarkQuestion` for the fields."""

    stem: str
    options: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    answer: str = ""
    subject: str = ""
    passage: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A test that training data must not hold and that models are scored on.

    Attributes:
        name: Hub dataset; "" for a local one.
        config: its configuration on the Hub.
        split: whose questions are scored and checked.
        shots: worked examples in the prompt, drawn from `shots_split` ("" where there is none).
        metric: "acc", "acc_norm" or "mc2"; None where it is only checked for leaks.
        license: SPDX identifier, or "unknown".
        reader: raw row → item; raises ValueError, with a predicate of the row, for a bad one.
    """

    id: str
    name: str
    config: str | None
    split: str
    shots: int
    shots_split: str
    metric: str | None
    license: str
    reader: Callable[[Row], Item]
    revision: str | None = None


# ── rows → items ─────────────────────────────────────────────────────────────────────────────────


def _value(row: Row, name: str, *kinds: type) -> Any:
    value = cell(row, name)
    if not isinstance(value, kinds):
        raise mistyped(value, name, " or ".join(kind.__name__ for kind in kinds))
    return value


def _texts(row: Row, name: str) -> tuple[str, ...]:
    values = _value(row, name, list)
    if not values or not all(isinstance(value, str) for value in values):
        raise mistyped(values, name, "texts")
    return tuple(values)


def _one_hot(num_options: int, right: int) -> tuple[int, ...]:
    if not 0 <= right < num_options:
        raise ValueError(f"has {num_options} options and none of them is number {right}")
    return tuple(int(number == right) for number in range(num_options))


def read_arc(row: Row) -> Item:
    """ARC: question, choices{text, label}, answerKey, whose labels are letters or digits."""
    choices = _value(row, "choices", dict)
    texts, labels = _texts(choices, "text"), _texts(choices, "label")
    key = _value(row, "answerKey", str)
    if len(texts) != len(labels):
        raise ValueError(f"has {len(texts)} choices and {len(labels)} labels")
    if labels.count(key) != 1:
        raise ValueError(f"has answerKey {key!r}, which is not one of {', '.join(labels)}")
    return Item(
        stem=_value(row, "question", str),
        options=texts,
        labels=_one_hot(len(texts), labels.index(key)),
        subject=_value(row, "subject", str) if "subject" in row else "",
    )


# After the end of a sentence, words that begin in lower case and end in no full stop.
_FRAGMENT = re.compile(r"(?s)(.*[.!?][\"'”’)\]]*)\s+([^\W\d_][^.!?]*)")


def read_hellaswag(row: Row) -> Item:
    """HellaSwag: what the endings go on from, which begins its last sentence with a capital.

    The capital is lm-evaluation-harness's (tasks/hellaswag, `ctx_b.capitalize()`). Where only the
    joined `ctx` is given, `ctx_b` is what follows the last full stop in lower case.
    """
    endings = _texts(row, "endings")
    if "ctx_a" in row:
        begun, rest = _value(row, "ctx_a", str), _value(row, "ctx_b", str, type(None)) or ""
    else:
        begun, rest = _split_context(_value(row, "ctx", str))
    label = _value(row, "label", str, int)
    if label != "" and not str(label).isdecimal():
        raise ValueError(f"has label {label!r}, which is no number")
    return Item(
        stem=f"{begun} {rest.capitalize()}".strip(),
        options=endings,
        labels=(0,) * len(endings) if label == "" else _one_hot(len(endings), int(label)),
        subject=_value(row, "activity_label", str),
    )


def _split_context(context: str) -> tuple[str, str]:
    found = _FRAGMENT.fullmatch(context.strip())
    if found and found[2][0].islower():
        return found[1], found[2]
    return context, ""


def read_mmlu(row: Row) -> Item:
    """MMLU: four choices; the answer is its number from 0, or its letter."""
    choices = _texts(row, "choices")
    answer = _value(row, "answer", int, str)
    if isinstance(answer, str):
        answer = ascii_uppercase.find(answer) if len(answer) == 1 else -1
    return Item(
        stem=_value(row, "question", str),
        options=choices,
        labels=_one_hot(len(choices), answer),
        subject=_value(row, "subject", str),
    )


def read_truthfulqa(row: Row) -> Item:
    """TruthfulQA: the options of mc2, of which several are right."""
    targets = _value(row, "mc2_targets", dict)
    choices, labels = _texts(targets, "choices"), _value(targets, "labels", list)
    if len(choices) != len(labels):
        raise ValueError(f"has {len(choices)} choices and {len(labels)} labels")
    if not all(label in (0, 1) for label in labels) or len(set(labels)) < 2:
        raise ValueError("has labels other than 0 and 1, or all the same")
    return Item(
        stem=_value(row, "question", str),
        options=choices,
        labels=tuple(int(label) for label in labels),
        subject=_value(row, "category", str) if "category" in row else "",
    )


def read_gsm8k(row: Row) -> Item:
    """GSM8K: a free answer, with its steps and the number after "####"."""
    return Item(stem=_value(row, "question", str), answer=_value(row, "answer", str))


COLUMNS = ("stem", "options", "answer", "passage", "subject")


def read_columns(row: Row, *, columns: Mapping[str, str]) -> Item:
    """A row of a file of the user's own, whose recipe says which column is what.

    Of options the right ones are given by number from 0, by letter or by text, one or a list of
    them; without options the answer is a text. An answer may be missing (null or "").
    """
    found = {name: _value(row, column, *KINDS[name]) for name, column in columns.items()}
    stem, options = found["stem"], tuple(found.get("options") or ())
    answer, passage = found.get("answer"), found.get("passage") or ""
    subject = found.get("subject") or ""
    if not stem.strip():
        raise ValueError(f"has no stem (column {columns['stem']!r} is empty)")
    if not all(isinstance(option, str) for option in options):
        raise mistyped(options, columns["options"], "texts")
    if not options:
        answer = "" if answer is None else str(answer)
        return Item(stem, answer=answer, subject=subject, passage=passage)
    given = answer if isinstance(answer, list) else [] if answer in (None, "") else [answer]
    right = {_place(options, one) for one in given}
    labels = tuple(int(number in right) for number in range(len(options)))
    return Item(stem, options, labels, subject=subject, passage=passage)


KINDS: Mapping[str, tuple[type, ...]] = {
    "stem": (str,),
    "options": (list, type(None)),
    "answer": (str, int, list, type(None)),
    "passage": (str, type(None)),
    "subject": (str, type(None)),
}


def _place(options: tuple[str, ...], answer: Any) -> int:
    """The number of the option that an answer names."""
    if isinstance(answer, str):
        if answer in options:
            return options.index(answer)
        letter = answer.strip().upper()
        answer = ascii_uppercase.find(letter) if len(letter) == 1 else -1
    if not isinstance(answer, int) or not 0 <= answer < len(options):
        raise ValueError(f"has {len(options)} options and an answer that is none of them")
    return answer


_TABLE = (
    Benchmark("arc_challenge", "allenai/ai2_arc", "ARC-Challenge", "test", 25, "train", "acc_norm", "CC-BY-SA-4.0", read_arc),
    Benchmark("arc_easy", "allenai/ai2_arc", "ARC-Easy", "test", 25, "train", "acc_norm", "CC-BY-SA-4.0", read_arc),
    Benchmark("hellaswag", "Rowan/hellaswag", None, "validation", 10, "train", "acc_norm", "MIT", read_hellaswag),
    Benchmark("mmlu", "cais/mmlu", "all", "test", 5, "dev", "acc", "MIT", read_mmlu),
    Benchmark("truthfulqa", "truthfulqa/truthful_qa", "multiple_choice", "validation", 0, "", "mc2", "Apache-2.0", read_truthfulqa),
    Benchmark("gsm8k", "openai/gsm8k", "main", "test", 5, "train", None, "MIT", read_gsm8k),
)  # fmt: skip

BENCHMARKS = {benchmark.id: benchmark for benchmark in _TABLE}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def benchmark_of(ref: BenchmarkRef) -> Benchmark:
    """The table's entry with the recipe's overrides, or a benchmark of the user's in ARC's layout.

    A Hub `name` of the recipe's is read in its default configuration.

    Raises:
        RecipeError: an unknown id with neither path nor name, or columns that it cannot have.
    """
    benchmark = BENCHMARKS.get(ref.id) or _own(ref)
    if ref.columns:
        benchmark = _with_columns(benchmark, ref)
    if ref.name:
        benchmark = replace(benchmark, name=ref.name, config=None)
    return replace(
        benchmark,
        license=ref.license or benchmark.license,
        revision=ref.revision or benchmark.revision,
        split=ref.split or benchmark.split,
        shots=benchmark.shots if ref.shots is None else ref.shots,
        shots_split=ref.shots_split or benchmark.shots_split,
    )


def _own(ref: BenchmarkRef) -> Benchmark:
    if not ref.path and not ref.name:
        near = difflib.get_close_matches(ref.id, BENCHMARKS, n=1)
        meant = f"did you mean {near[0]!r}" if near else f"known are {', '.join(BENCHMARKS)}"
        raise RecipeError(
            f"benchmark {ref.id!r} is not in the table ({meant})", "Correct it, or give it a `path`"
        )
    return Benchmark(
        ref.id, ref.name or "", None, "test", 0, "train", "acc_norm", "unknown", read_arc
    )


def _with_columns(benchmark: Benchmark, ref: BenchmarkRef) -> Benchmark:
    """Read by columns; what has no options is not scored."""
    unknown = sorted(set(ref.columns) - set(COLUMNS))
    if unknown or "stem" not in ref.columns:
        problem = f"names {unknown[0]!r}" if unknown else "has no stem"
        raise RecipeError(
            f"benchmark {ref.id}: columns {problem}",
            f"Map stem and any of {', '.join(COLUMNS[1:])}",
        )
    metric = benchmark.metric if "options" in ref.columns else None
    return replace(benchmark, reader=partial(read_columns, columns=ref.columns), metric=metric)


def read_benchmark(
    benchmark: Benchmark, split: str, path: Path | None, revision: str | None
) -> list[BenchmarkQuestion]:
    """The questions of one split, in its order.

    Args:
        path: a file, which is the benchmark's own split, or a folder with a file a split
            (`test.jsonl`, …); None reads the Hub.
        revision: Hub commit.

    Raises:
        InputError: no such split, or a row that is not as it should be.
        RemoteError: the Hub does not have it or cannot be reached.
    """
    if path is None:
        rows = read_hub(benchmark.name, benchmark.config, split, revision)
    else:
        rows = read_file(_split_file(benchmark, split, path))
    questions = [_question(benchmark, split, row) for row in rows]
    if not questions:
        raise InputError(
            f"benchmark {benchmark.id}: split {split} holds no questions", "Correct path or split"
        )
    return questions


def other_splits(benchmark: Benchmark, path: Path | None) -> list[str]:
    """The splits beside the scored one: a local folder's, or on the Hub that of the worked examples."""
    if path is None:
        found = {benchmark.shots_split} - {""}
    else:
        found = {file.stem for file in path.glob("*") if file.suffix in ENDINGS}
    return sorted(found - {benchmark.split})


def _question(benchmark: Benchmark, split: str, row: RawRow | BadRow) -> BenchmarkQuestion:
    if isinstance(row, BadRow):
        raise _bad_row(benchmark, row)
    try:
        item = benchmark.reader(row.values)
    except ValueError as error:
        raise _bad_row(benchmark, BadRow(row.where, str(error))) from None
    return BenchmarkQuestion(
        benchmark=benchmark.id,
        split=split,
        subject=item.subject,
        stem=item.stem,
        options=item.options,
        labels=item.labels,
        answer=item.answer,
        passage=item.passage,
    )


def _bad_row(benchmark: Benchmark, row: BadRow) -> InputError:
    problem = f"benchmark {benchmark.id}: {row.where} {row.problem}"
    return InputError(problem, "Mend the row, or take it out")


def _split_file(benchmark: Benchmark, split: str, path: Path) -> Path:
    """The file that holds a split."""
    if path.is_file():
        if split == benchmark.split:
            return path
        raise InputError(
            f"benchmark {benchmark.id}: {path} is one file, taken as split {benchmark.split}; "
            f"there is no {split}",
            f"Give a folder with a file for each split, such as {split}{path.suffix}",
        )
    for ending in ENDINGS:
        if (path / f"{split}{ending}").is_file():
            return path / f"{split}{ending}"
    if not path.is_dir():
        raise InputError(f"{path} does not exist", "Correct the path in the recipe")
    found = sorted(file.stem for file in path.iterdir() if file.suffix in ENDINGS)
    raise InputError(
        f"benchmark {benchmark.id}: {path} has no split {split} (found: {', '.join(found) or 'none'})",
        f"Add {split}.jsonl, or name another split in the recipe",
    )
