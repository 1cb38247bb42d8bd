"""A store gives back what was put in, row by row or many at once, and holds none of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import sums

from monotreme import mapped as mapped_module
from monotreme.errors import InputError, StorageError
from monotreme.mapped import MappedQuestions, open_questions, spilled
from monotreme.records import QUESTION_SCHEMA, question_table

QUESTIONS = sums(23)


@pytest.fixture(params=[1, 5, 4096])
def stored(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MappedQuestions:
    monkeypatch.setattr(mapped_module, "BATCH_ROWS", request.param)
    tables = [question_table(QUESTIONS[:7]), question_table([]), question_table(QUESTIONS[7:])]
    return MappedQuestions(spilled(tmp_path, QUESTION_SCHEMA, tables))


def test_rows_come_back_as_they_were(stored: MappedQuestions) -> None:
    assert len(stored) == len(QUESTIONS)
    assert list(stored) == QUESTIONS
    assert [stored[row] for row in range(len(stored))] == QUESTIONS
    assert stored[3:9] == QUESTIONS[3:9]
    with pytest.raises(IndexError):
        stored[len(QUESTIONS)]


def test_rows_are_taken_in_the_order_asked_for(stored: MappedQuestions) -> None:
    rows = np.array([22, 0, 7, 7, 6, 13])
    wanted = [QUESTIONS[row] for row in rows]
    assert stored.take(rows).to_pylist() == question_table(wanted).to_pylist()
    assert stored.take(np.empty(0, np.int64)).num_rows == 0
    texts = stored.texts(rows)
    assert list(texts) == [texts[place] for place in range(6)] == [q.text for q in wanted]


def test_a_file_of_a_stage_is_opened_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    pq.write_table(question_table(QUESTIONS), tmp_path / "q.parquet", row_group_size=4)
    assert list(open_questions(tmp_path / "q.parquet", tmp_path / "cache")) == QUESTIONS
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(InputError, match=r"gone\.parquet is missing"):
        open_questions(tmp_path / "gone.parquet", tmp_path)
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        open_questions(tmp_path / "bad.parquet", tmp_path)


def test_no_rows_are_a_store_too(tmp_path: Path) -> None:
    empty = MappedQuestions(spilled(tmp_path, QUESTION_SCHEMA, []))
    assert len(empty) == 0
    assert list(empty) == []
    assert empty.take(np.empty(0, np.int64)).schema == QUESTION_SCHEMA


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        spilled(tmp_path / "file" / "under", QUESTION_SCHEMA, [pa.table({})])
