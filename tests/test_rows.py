"""Raw rows: whatever the file, each row or its defect comes once, in order, with its place."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monotreme import rows
from monotreme.errors import InputError, RemoteError
from monotreme.rows import BadRow, RawRow, cell, read_file, read_hub

TABLE = [{"question": "2 + 2 = ?", "answer": "4"}, {"question": 'a "b",\nc', "answer": "ü"}]


def write(path: Path, table: Sequence[dict[str, str]]) -> Path:
    """The same table in the form that the ending says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(table)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(table), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    else:
        quoted = [[f'"{text}"'.replace('"b"', '""b""') for text in row.values()] for row in table]
        lines = [",".join(table[0]), *(",".join(row) for row in quoted)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def values(found: rows.Rows) -> list[rows.Row]:
    return [row.values for row in found if isinstance(row, RawRow)]


@pytest.mark.parametrize("ending", rows.ENDINGS)
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    assert values(read_file(write(tmp_path / f"train{ending}", TABLE))) == TABLE


def test_a_row_says_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert [row.where for row in read_file(path)] == ["train.jsonl, line 2", "train.jsonl, line 4"]


def test_a_folder_is_its_data_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json", "sub/c.csv", ".hidden.jsonl", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, [{"name": name}]) if name != "readme.md" else None
    assert [row["name"] for row in values(read_file(tmp_path))] == [
        "a.json",
        "b.jsonl",
        "sub/c.csv",
    ]
    assert [row["name"] for row in values(read_file(tmp_path, ["*.csv"]))] == ["sub/c.csv"]
    with pytest.raises(InputError, match=r"holds no \*\.parquet"):
        list(read_file(tmp_path, ["*.parquet"]))


def test_json_may_hold_one_object_or_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(TABLE[0], indent=2))
    assert values(read_file(tmp_path / "one.json")) == TABLE[:1]
    shutil.copy(write(tmp_path / "lines.jsonl", TABLE), tmp_path / "lines.json")
    assert values(read_file(tmp_path / "lines.json")) == TABLE


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": "cut of', "is not JSON"),
        (b'{"a": "\xff"}', "is not UTF-8 at byte 8"),
        (b"[1, 2]", "is a JSON list, not an object"),
        (b"null", "is a JSON NoneType"),
        (b'{"a": "\\ud800"}', "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
    ],
)
def test_a_bad_line_is_one_bad_row_and_the_rest_is_read(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}')
    first, bad, last = read_file(path)
    assert isinstance(bad, BadRow)
    assert bad.where == "train.jsonl, line 2"
    assert problem in bad.problem
    assert values(iter([first, last])) == [{"a": 1}, {"a": 2}]


def test_a_row_over_the_limit_is_a_bad_row_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 100)
    for ending in (".jsonl", ".json", ".parquet"):
        table = [{"a": "x"}, {"a": "ü" * 300}, {"a": "y"}]
        found = list(read_file(write(tmp_path / f"train{ending}", table)))
        assert [type(row) for row in found] == [RawRow, BadRow, RawRow], ending


def test_a_csv_row_with_other_fields_than_its_header_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\n1,2\n3\n4,5,6\n\n"x\ny",\xff\n7,8\n"open,9\n')
    found = list(read_file(path))
    assert values(iter(found)) == [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}]
    bad = [(row.where, row.problem) for row in found if isinstance(row, BadRow)]
    assert bad[0] == ("train.csv, line 3", "has 1 fields, the header 2")
    assert bad[1] == ("train.csv, line 4", "has 3 fields, the header 2")
    assert bad[2] == ("train.csv, line 6", "holds a character that is not UTF-8")
    assert bad[3][0] == "train.csv, line 9"
    assert len(bad) == 4


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b'[{"a": 1}, {"a"', "is not JSON"),
        ("a.json", b"[" * 200_000, "is not JSON"),
        ("a.parquet", b"PAR1 no more", "is not readable Parquet"),
        ("a.csv", b"", "has no header"),
        ("a.csv", b"a,a\n1,2\n", "has no header with a different name"),
        ("a.txt", b"hello", "ends in .txt"),
    ],
)
def test_a_file_that_is_broken_as_a_whole_is_one_error(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        list(read_file(tmp_path / name))


def test_limits_of_whole_files_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ARRAY_BYTES", 10)
    with pytest.raises(InputError, match=r"a \.json file may have 10"):
        list(read_file(write(tmp_path / "a.json", TABLE)))
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 5)
    with pytest.raises(InputError, match="line 1 is longer than 5 bytes"):
        list(read_file(write(tmp_path / "a.csv", TABLE)))
    with pytest.raises(InputError, match="does not exist"):
        list(read_file(tmp_path / "b.csv"))


@settings(deadline=None)  # a slow machine is no failure
@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b""))))
def test_any_bytes_give_a_row_or_a_bad_row_a_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    path.write_bytes(b"\n".join(lines))
    assert len(list(read_file(path))) == sum(bool(line.strip()) for line in lines)


def test_a_missing_column_is_named_with_those_there_are() -> None:
    assert cell({"b": 0}, "a", "b") == 0
    with pytest.raises(ValueError, match=r"no column 'x' \(its columns: a, b\)"):
        cell({"a": 1, "b": 2}, "x")


# ── the Hub: the library's own reading of a local repository, and of a repository in its cache ───


def test_a_dataset_is_read_through_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo" / "test.parquet", TABLE)
    found = list(read_hub(str(tmp_path / "repo"), None, "test", None))
    assert values(iter(found)) == TABLE
    assert found[1].where.endswith("repo/test, row 2")
    with pytest.raises(RemoteError, match="split dev") as error:
        list(read_hub(str(tmp_path / "repo"), None, "dev", None))
    assert "\n" not in str(error.value)


def test_the_hub_out_of_reach_is_one_line() -> None:
    with pytest.raises(RemoteError, match="dataset nobody/nothing") as error:
        list(read_hub("nobody/nothing", None, "train", None))
    assert "\n" not in str(error.value)
    with pytest.raises(RemoteError, match="dataset nobody/nothing"):
        list(read_hub("nobody/nothing", None, "", None, ["*.json"]))


def test_files_of_a_repository_are_read_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "datasets--some--data" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    write(snapshot / "a.json", [{"x": "1"}])
    write(snapshot / "b.json", [{"x": "2", "y": "other columns"}])
    write(snapshot / "c.jsonl", [{"x": "3"}])
    found = values(read_hub("some/data", None, "", commit, ["*.json"]))
    assert found == [{"x": "1"}, {"x": "2", "y": "other columns"}]
