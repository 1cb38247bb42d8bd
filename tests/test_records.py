"""Laws of the nouns: content decides identity, counts balance, Parquet keeps everything."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import sums
from hypothesis import given
from hypothesis import strategies as st

from monotreme.errors import InputError
from monotreme.records import (
    BenchmarkQuestion,
    Counts,
    digest,
    question_table,
    read_questions,
    read_table,
)

names = st.sampled_from(["math", "arb", "reclor"])
reasons = st.sampled_from(["bad_row", "exact_duplicate", "near_duplicate"])


def test_digest_depends_on_where_texts_are_cut():
    assert digest("ab", "c") != digest("a", "bc")


def test_id_is_of_the_content_and_not_of_the_source():
    one, other = sums(2)
    assert one.id != other.id
    assert type(one)(one.instruction, "", one.output, "elsewhere", "MIT", True).id == one.id


@given(st.lists(names), st.lists(st.tuples(names, reasons)))
def test_tallied_counts_always_balance(kept, dropped):
    counts = Counts.tally(kept, dropped)
    counts.check()
    assert (counts.read, counts.kept) == (len(kept) + len(dropped), len(kept))


@pytest.mark.parametrize("field", ["read", "kept", "dropped"])
def test_counts_that_lost_a_row_are_refused(field):
    counts = Counts.tally(["math"], [("arb", "bad_row")])
    setattr(counts, field, getattr(counts, field) + 1)
    with pytest.raises(ValueError, match="do not balance"):
        counts.check()


def test_questions_survive_parquet(tmp_path: Path):
    questions = sums(3)
    pq.write_table(question_table(questions), tmp_path / "q.parquet")
    assert read_questions(tmp_path / "q.parquet") == questions


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path):
    (tmp_path / "q.parquet").write_text("hello")
    with pytest.raises(InputError, match=r"q\.parquet is not a readable Parquet file"):
        read_table(tmp_path / "q.parquet")


def test_right_answers_of_a_benchmark_question():
    item = BenchmarkQuestion("b", "test", "", "Which?", ("a", "b", "c"), (0, 1, 1))
    assert item.answers == ("b", "c")
    assert BenchmarkQuestion("b", "test", "", "How many?", answer="7").answers == ("7",)
