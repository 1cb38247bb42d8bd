"""What a stage leaves does not tell in how many pieces it was made."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monotreme import work as work_module
from monotreme.storage import sha256
from monotreme.work import StageWork

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def pieces(sizes: list[int]) -> Iterator[pa.Table]:
    start = 0
    for size in sizes:
        numbers = range(start, start + size)
        yield pa.table({"n": list(numbers), "text": [str(n) * 3 for n in numbers]}, SCHEMA)
        start += size


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(st.integers(0, 20), max_size=8))
def test_pieces_change_no_byte_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    monkeypatch.setattr(work_module, "GROUP_ROWS", 7)
    cut, whole = StageWork(tmp_path / "cut"), StageWork(tmp_path / "whole")
    cut.tables("t.parquet", SCHEMA, pieces(sizes))
    whole.tables("t.parquet", SCHEMA, pieces([sum(sizes)]))
    assert cut.outputs == whole.outputs
    assert cut.outputs["t.parquet"]["rows"] == sum(sizes)
    assert sha256(tmp_path / "cut/t.parquet") == sha256(tmp_path / "whole/t.parquet")
