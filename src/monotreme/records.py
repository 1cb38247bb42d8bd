"""The nouns: what the stages hand to each other, and the Parquet form they travel in."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from monotreme.errors import InputError

Verdict = Literal["duplicate", "gray_area", "similar_but_different"]
VERDICTS: tuple[Verdict, ...] = ("duplicate", "gray_area", "similar_but_different")


def digest(*parts: str) -> str:
    """SHA-256 (hex) of texts; ("ab", "c") and ("a", "bc") differ because lengths are hashed too."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Question:
    """One training question: what is asked, what to answer, and where it comes from.

    Attributes:
        license: SPDX identifier, or "other"/"unknown" where none exists.
        llm_written: whether a language model wrote the answer.
        subject: the source's own subject or topic, "" when it has none.
    """

    instruction: str
    input: str
    output: str
    source: str
    license: str
    llm_written: bool
    subject: str = ""

    @property
    def id(self) -> str:
        """Content digest: equal for equal (instruction, input, output), wherever they come from."""
        return digest(self.instruction, self.input, self.output)

    @property
    def text(self) -> str:
        """What the similarity is measured on: instruction and input (paper, section 2.2)."""
        return f"{self.instruction}\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True, slots=True)
class Dropped:
    """A question that went, and the evidence.

    Attributes:
        question: as far as it could be read.
        reason: a code such as "bad_row", "no_keyword", "exact_duplicate", "near_duplicate".
        detail: the rule in words, or what was wrong with the row.
        twin: id of the kept question that it yields to, "" where there is none.
        similarity: cosine with the twin, None where none was measured.
    """

    question: Question
    reason: str
    detail: str = ""
    twin: str = ""
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkQuestion:
    """One benchmark item.

    Attributes:
        stem: the question without passage and options.
        options: the choices in the benchmark's order, empty for a free answer.
        labels: 1 for a right option, 0 for a wrong one; several may be right (TruthfulQA mc2).
        answer: the free answer where there are no options, else "".
        passage: text that the question is about, or what a HellaSwag ending continues, else "".
    """

    benchmark: str
    split: str
    subject: str
    stem: str
    options: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    answer: str = ""
    passage: str = ""

    @property
    def id(self) -> str:
        return digest(self.benchmark, self.subject, self.passage, self.stem, *self.options)

    @property
    def answers(self) -> tuple[str, ...]:
        """The texts of the right options, or the free answer."""
        if not self.options:
            return (self.answer,) if self.answer else ()
        return tuple(o for o, right in zip(self.options, self.labels, strict=True) if right)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What triage says of a pair; `reason` is a code such as "same_text" or "numbers_differ"."""

    verdict: Verdict
    reason: str
    confidence: float


@dataclass(slots=True)
class Counts:
    """Rows read, kept and dropped, in all, by source and by reason."""

    read: int = 0
    kept: int = 0
    dropped: int = 0
    by_source: dict[str, dict[str, int]] = field(default_factory=dict)
    by_reason: dict[str, int] = field(default_factory=dict)

    @classmethod
    def tally(cls, kept: Iterable[str], dropped: Iterable[tuple[str, str]]) -> "Counts":
        """Count kept sources and dropped (source, reason) pairs."""
        counts = cls()
        for source in kept:
            counts._add(source, "kept")
        for source, reason in dropped:
            counts._add(source, "dropped")
            counts.by_reason[reason] = counts.by_reason.get(reason, 0) + 1
        return counts

    def _add(self, source: str, fate: Literal["kept", "dropped"]) -> None:
        row = self.by_source.setdefault(source, {"read": 0, "kept": 0, "dropped": 0})
        row["read"] += 1
        row[fate] += 1
        self.read += 1
        setattr(self, fate, getattr(self, fate) + 1)

    def check(self) -> None:
        """Raise ValueError unless read = kept + dropped, everywhere and in every sum."""
        sums = {
            k: sum(row[k] for row in self.by_source.values()) for k in ("read", "kept", "dropped")
        }
        whole = {"read": self.read, "kept": self.kept, "dropped": self.dropped}
        rows = [whole, *self.by_source.values()]
        balanced = all(row["read"] == row["kept"] + row["dropped"] for row in rows)
        if not balanced or sums != whole or sum(self.by_reason.values()) != self.dropped:
            raise ValueError(f"counts do not balance: {asdict(self)}")


QUESTION_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("instruction", pa.string()),
        pa.field("input", pa.string()),
        pa.field("output", pa.string()),
        pa.field("source", pa.string()),
        pa.field("license", pa.string()),
        pa.field("llm_written", pa.bool_()),
        pa.field("subject", pa.string()),
    ]
)


DROPPED_SCHEMA = pa.schema(
    [
        *QUESTION_SCHEMA,
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("twin", pa.string()),
        pa.field("similarity", pa.float64()),
    ]
)


def question_row(question: Question) -> dict[str, Any]:
    return {name: getattr(question, name) for name in QUESTION_SCHEMA.names}


def question_table(questions: Sequence[Question]) -> pa.Table:
    """Questions as an Arrow table with `QUESTION_SCHEMA`, in the given order."""
    return pa.Table.from_pylist([question_row(q) for q in questions], QUESTION_SCHEMA)


def dropped_table(dropped: Sequence[Dropped]) -> pa.Table:
    """Dropped questions as an Arrow table with `DROPPED_SCHEMA`, in the given order."""
    rows = [
        {
            **question_row(d.question),
            "reason": d.reason,
            "detail": d.detail,
            "twin": d.twin,
            "similarity": d.similarity,
        }
        for d in dropped
    ]
    return pa.Table.from_pylist(rows, DROPPED_SCHEMA)


def read_table(
    path: Path, columns: list[str] | None = None, filters: pc.Expression | None = None
) -> pa.Table:
    """Read a Parquet file that a stage left: all of it, or some columns, or the rows of a filter.

    Raises:
        InputError: the file is missing or is not Parquet.
    """
    try:
        return pq.read_table(path, columns=columns, filters=filters)
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "Run the stage that makes it first") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is not a readable Parquet file ({error})", "Delete it and run the stage again"
        ) from None


def read_questions(path: Path) -> list[Question]:
    """Questions of a stage's Parquet file, in its order."""
    names = [name for name in QUESTION_SCHEMA.names if name != "id"]
    return [Question(**row) for row in read_table(path).select(names).to_pylist()]
