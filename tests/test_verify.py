"""Whoever has a released folder can check what it claims; a claim that is false does not pass."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from monotreme import curate, decontaminate, merge, release, verdicts
from monotreme.benchmarks import benchmark_of, read_benchmark
from monotreme.cli import app
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.errors import InputError, UsageError
from monotreme.recipe import check_recipe, locate
from monotreme.records import Question, digest, read_questions
from monotreme.release import PROVENANCE
from monotreme.release.rebuild import pinned
from monotreme.release.record import FolderRecord
from monotreme.run import Run
from monotreme.storage import sha256
from monotreme.verify import Options, Report, verify
from monotreme.verify.folder import check_files, check_no_code, read_record
from monotreme.verify.questions import Sample, check_near, draw, read_released

COMMIT = "0123456789" * 4
SCORES: dict[str, Any] = {"protocol": "open-llm-2023", "scores": [], "deltas": [], "perplexity": []}
pytestmark = pytest.mark.usefixtures("one_thread")


# ── a release that is real up to its tables: questions, leaks, verdicts, adapter, merge ──────────


def tables(base: Path) -> dict[str, Any]:
    sources = [
        {"id": name, "path": f"pocket:{name}.jsonl", "license": "Apache-2.0", "limit": 70}
        for name in ("science", "logic")
    ]
    return {
        "name": "small",
        "curate": {"sources": sources, "protect": "different_answer"},
        "decontaminate": {"benchmarks": [{"id": "pocket", "path": "pocket:benchmark.jsonl"}]},
        "train": {"base": str(base), "base_precision": "fp32"},
        "release": {"merged": {"base": "someone/small-merged"}},
    }


@pytest.fixture(scope="module")
def made(tiny_model: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release folder of a run whose leak check a person has overruled once."""
    home = tmp_path_factory.mktemp("made")
    run = Run(home / "runs" / "small", check_recipe(tables(tiny_model), "test"), home)
    with run.open():
        curate.execute(run)
        decontaminate.execute(run)
        leak = pq.read_table(run.output("decontaminate", "leaked.parquet")).to_pylist()[0]
        pair = leak["id"], leak["benchmark_id"]
        line = verdicts.Line(*pair, "similar_but_different", "ada", verdicts.now())
        verdicts.append(run.folder / verdicts.FILE, [line])
        decontaminate.execute(run)
        base = {"base": run.model_digest(run.recipe.train.base)}
        with run.stage("train", base) as work, work.file("adapter") as folder:
            shutil.copytree(trained / "adapter", folder)
        merge.execute(run)
        with run.stage("evaluate", {}) as work:
            work.json("scores.json", SCORES)
        release.execute(run)
    return run.folder / "release"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture
def part(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a released folder, somewhere else."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(made / name, tmp_path / "got" / name))

    return copy


@pytest.fixture
def look(vectors: Path) -> Callable[..., Report]:
    """Check a folder, all of it; what is asked of more folders is the first one's."""

    def check(*folders: Path, **options: Any) -> Report:
        asked = {"sample": None, "seed": 0, "benchmarks": {}, "cache": vectors, **options}
        return verify(folders, Options(**asked))[0]

    return check


def status(report: Report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


def detail(report: Report, name: str) -> str:
    return next(check.detail for check in report.checks if check.name == name)


# ── lies: a folder altered by someone who also corrects its record ───────────────────────────────


def sign(folder: Path, **claims: Any) -> None:
    """Let the record tell of the files as they are now, and of `claims`."""
    path = folder / "record.json"
    record = json.loads(path.read_text()) | claims
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != path)
    record["files"] = [
        {
            "path": file.relative_to(folder).as_posix(),
            "bytes": file.stat().st_size,
            "sha256": sha256(file),
        }
        for file in files
    ]
    path.write_text(json.dumps(record))


def write_questions(folder: Path, questions: list[Question], ids: list[str] | None = None) -> None:
    """Put other questions into a released set."""
    rows = [asdict(q) | {"data_source": q.source} for q in questions]
    train = pa.Table.from_pylist(rows).select(["input", "output", "instruction", "data_source"])
    columns = {name: [row.get(name) for row in rows] for name in PROVENANCE}
    columns["id"] = ids or [question.id for question in questions]
    pq.write_table(train, folder / "data" / "train.parquet")
    pq.write_table(pa.table(columns), folder / "data" / "provenance.parquet")


def claim_of(questions: list[Question]) -> dict[str, Any]:
    sources = [question.source for question in questions]
    return {
        "rows": len(questions),
        "by_source": {name: sources.count(name) for name in sources},
        "content_digest": digest(*(question.id for question in questions)),
    }


def add(folder: Path, *questions: Question) -> list[Question]:
    """Add questions to a released set whose record then counts them."""
    whole = [*read_released(folder).questions, *questions]
    write_questions(folder, whole)
    sign(folder, questions=claim_of(whole))
    return whole


def change_recipe(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    change(recipe)
    path.write_text(yaml.safe_dump(recipe))
    sign(folder)


# ── what is true passes ──────────────────────────────────────────────────────────────────────────


def test_a_true_release_passes_and_is_left_as_it_was(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folders = [part(name) for name in ("dataset", "adapter", "merged-base")]
    before = [sha256(folder) for folder in folders]
    dataset, adapter, merged = (look(folder) for folder in folders)
    pairs = look(folders[1], folders[0]), look(folders[2], folders[0])

    assert set(status(dataset).values()) == {"ok"} | {"not checked"}
    assert [name for name, told in status(dataset).items() if told != "ok"] == ["rebuild"]
    assert status(adapter)["weights"] == status(adapter)["base"] == "ok"
    assert status(merged)["weights"] == "ok"
    assert status(adapter)["trained on"] == "not checked"
    assert [status(pair)["trained on"] for pair in pairs] == ["ok", "ok"]
    assert [sha256(folder) for folder in folders] == before


def test_the_record_lists_every_other_file_and_tells_no_day_name_or_place(
    made: Path, tiny_model: Path
) -> None:
    for name in ("dataset", "adapter", "merged-base"):
        record = read_record(made / name)
        there = {
            p.relative_to(made / name).as_posix() for p in (made / name).rglob("*") if p.is_file()
        }
        assert {claim.path for claim in record.files} == there - {"record.json"}
        text = (made / name / "record.json").read_text()
        assert str(tiny_model) not in text
        assert "ada" not in (made / name / "verdicts.jsonl").read_text()
    manifest = {entry["path"] for entry in json.loads((made / "manifest.json").read_text())}
    assert "dataset/record.json" in manifest
    record = read_record(made / "dataset")
    leaks = json.loads((made.parent / "decontaminate" / "leaks.json").read_text())
    assert record.decontaminate.dropped_by_source == leaks["dropped_by_source"]
    assert sum(record.decontaminate.dropped_by_verdict.values()) > 0


def test_the_released_recipe_makes_the_same_questions_elsewhere(
    part: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = part("dataset")
    claimed = read_record(folder).questions.content_digest

    def rebuild(runs: Path) -> str:
        for stage in ("curate", "decontaminate"):
            words = [stage, str(folder / "recipe.yaml"), "--runs", str(runs), "--quiet"]
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
        questions = read_questions(runs / "small" / "decontaminate" / "questions.parquet")
        return digest(*(question.id for question in questions))

    assert rebuild(tmp_path / "without") != claimed, "the verdict of a person changes nothing"
    runs = tmp_path / "runs"  # as the card says
    (runs / "small").mkdir(parents=True)
    shutil.copy(folder / "verdicts.jsonl", runs / "small")
    assert "cp verdicts.jsonl runs/small/" in (folder / "README.md").read_text()
    assert rebuild(runs) == claimed


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: flip(f / "data" / "train.parquet"), "data/train.parquet has SHA-256"),
        (lambda f: (f / "README.md").write_text("x"), "README.md has 1 bytes, recorded are"),
        (lambda f: (f / "recipe.yaml").unlink(), "recipe.yaml is missing"),
        (lambda f: (f / "more.txt").touch(), "more.txt is not in the record"),
        (lambda f: link(f / "README.md", Path("/etc/hostname")), "README.md is a link out of the folder"),
        (lambda f: link(f / "README.md", f / "README.md"), "README.md does not exist"),
        (lambda f: ((f / "README.md").unlink(), os.mkfifo(f / "README.md")), "README.md is no file"),
        (lambda f: (f / "all").symlink_to("/"), "all is not in the record"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_as_recorded_is_named(
    part: Callable[[str], Path],
    look: Callable[..., Report],
    spoil: Callable[[Path], object],
    says: str,
) -> None:
    folder = part("dataset")
    spoil(folder)
    report = look(folder)
    assert status(report)["files"] == "failed"
    assert says in detail(report, "files")


def test_a_folder_that_cannot_be_read_is_named(part: Callable[[str], Path]) -> None:
    """A path of more than 4,095 bytes cannot be opened by anyone."""
    folder = part("dataset")
    record, home = read_record(folder), Path.cwd()
    try:
        os.chdir(folder)
        for _ in range(20):
            Path("d" * 250).mkdir()
            os.chdir("d" * 250)
    finally:
        os.chdir(home)
    for check in (lambda: check_files(folder, record), lambda: check_no_code(folder)):
        with pytest.raises(InputError, match=r"/d+ cannot be read \(File name too long\)"):
            check()
    shutil.rmtree(folder)


def without_a_row(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 3), table.slice(4)])


def with_another_answer(table: pa.Table) -> pa.Table:
    answers = table["output"].to_pylist()
    answers[3] = "The answer is another."
    place = table.column_names.index("output")
    return table.set_column(place, table.field("output"), pa.array(answers))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_a_row, "1 missing: {}"),
        (with_another_answer, "1 changed: row 3 ({})"),
        (lambda table: pa.concat_tables([table, table.slice(3, 1)]), "1 added: {}"),
        (lambda table: table.slice(0, 0), "missing: "),
    ],
)
def test_rows_that_were_changed_are_named(
    part: Callable[[str], Path],
    look: Callable[..., Report],
    change: Callable[[pa.Table], pa.Table],
    says: str,
) -> None:
    folder = part("dataset")
    path = folder / "data" / "train.parquet"
    claimed = pq.read_table(folder / "data" / "provenance.parquet")["id"].to_pylist()
    pq.write_table(change(pq.read_table(path)), path)
    report = look(folder)
    assert status(report)["questions"] == "failed"
    assert says.format(claimed[3][:12]) in detail(report, "questions")


def test_of_two_files_that_were_changed_neither_tells_of_the_other(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    write_questions(folder, read_released(folder).questions[1:])
    assert status(look(folder))["questions"] == "not checked"


def test_what_was_altered_is_not_taken_for_evidence(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    flip(folder / "data" / "train.parquet")
    told = status(look(folder))
    assert told["questions"] != "ok"
    assert not {"counts", "ids", "exact duplicates", "near-duplicates"} & told.keys()
    record = json.loads((folder / "record.json").read_text())
    shutil.rmtree(folder / "data")
    record["files"] = [f for f in record["files"] if not f["path"].startswith("data")]
    (folder / "record.json").write_text(json.dumps(record))
    assert "record.json lists no data/provenance.parquet" in detail(look(folder), "files")


def test_what_the_hub_lays_beside_the_files_is_passed_over(
    part: Callable[[str], Path], look: Callable[..., Report], tmp_path: Path
) -> None:
    folder = part("adapter")
    (folder / ".gitattributes").touch()
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x.lock").touch()
    assert status(look(folder))["files"] == "ok"
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "abc", tmp_path / "cache" / "blobs"
    shutil.copytree(folder, snapshot)
    blobs.mkdir()
    (snapshot / "README.md").rename(blobs / "1234")
    (snapshot / "README.md").symlink_to("../../blobs/1234")
    assert status(look(snapshot))["files"] == "ok"


@pytest.mark.parametrize("name", ["model.pkl", "modeling.py", "data/x.PT"])
def test_code_is_named_although_the_record_lists_it(
    part: Callable[[str], Path], look: Callable[..., Report], name: str
) -> None:
    folder = part("dataset")
    (folder / name).write_text("x")
    sign(folder)
    assert status(look(folder))["files"] == "ok"
    assert detail(look(folder), "no code") == f"{name} is code"


# ── hostile records and files ────────────────────────────────────────────────────────────────────


def with_path(path: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["files"][0].update(path=path)


@pytest.mark.parametrize(
    "spoil",
    [
        with_path("../../etc/passwd"), with_path("/etc/passwd"), with_path("a/../b"),
        with_path("a\\b"), with_path("a\x1b[31m"), with_path(""), with_path("."),
        lambda record: record["files"][0].update(bytes=-1),
        lambda record: record["files"][0].update(bytes="12"),
        lambda record: record["files"][0].update(sha256="x"),
        lambda record: record.update(files={}),
        lambda record: record.update(format=2),
        lambda record: record.update(kind="other"),
        lambda record: record.update(stranger=1),
        lambda record: record.pop("questions"),
        lambda record: record["questions"].update(rows=1.5),
        lambda record: record["curate"].update(threshold="0.8"),
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_one_line(
    part: Callable[[str], Path], spoil: Callable[[dict[str, Any]], object]
) -> None:
    folder = part("adapter")
    record = json.loads((folder / "record.json").read_text())
    spoil(record)
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="is no record of a released folder"):
        read_record(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"format": 1e999}', "\xff"]
)
def test_a_record_that_is_no_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="is no record of a released folder") as caught:
        read_record(tmp_path)
    assert len(str(caught.value)) < 1000


def test_a_folder_that_is_no_release_is_said_to_be_none(made: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", made):  # `made` holds the record of a stage
        with pytest.raises(InputError, match="Name a folder that `monotreme release` made"):
            read_record(folder)
    (tmp_path / "record.json").symlink_to(made / "dataset" / "record.json")
    with pytest.raises(InputError, match="is a link out of the folder"):
        read_record(tmp_path)


def test_huge_claims_only_differ(part: Callable[[str], Path], look: Callable[..., Report]) -> None:
    folder = part("dataset")
    claims = {"rows": 10**30, "by_source": {"x": 10**30}, "content_digest": "0" * 64}
    sign(folder, questions=claims)
    assert status(look(folder))["counts"] == status(look(folder))["ids"] == "failed"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "is not a readable Parquet file"),
        (lambda p: p.write_bytes(b"PAR1"), "is not a readable Parquet file"),
        (lambda p: pq.write_table(pa.table({"input": [1]}), p), "has no column 'instruction'"),
        (lambda p: pq.write_table(pq.read_table(p).slice(1), p), "provenance.parquet"),
        (lambda p: pq.write_table(nulls(pq.read_table(p)), p), "has a row without output"),
        (lambda p: pq.write_table(no_text(pq.read_table(p)), p), "is not a readable Parquet file"),
    ],
)
def test_questions_that_cannot_be_read_are_one_failed_check(
    part: Callable[[str], Path],
    look: Callable[..., Report],
    spoil: Callable[[Path], object],
    says: str,
) -> None:
    folder = part("dataset")
    spoil(folder / "data" / "train.parquet")
    sign(folder)
    report = look(folder)
    assert status(report)["questions"] == "failed"
    assert says in detail(report, "questions")


def nulls(table: pa.Table) -> pa.Table:
    column = pa.nulls(table.num_rows, pa.string())
    return table.set_column(table.column_names.index("output"), "output", column)


def no_text(table: pa.Table) -> pa.Table:
    """Bytes that are no UTF-8 in a column of texts."""
    column = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
    return table.set_column(table.column_names.index("output"), "output", column)


@pytest.mark.parametrize(
    "text", ["- 1\n", "name: [", "[" * 5000, f"seed: {'1' * 5000}", "name: x\n"]
)
def test_a_recipe_that_is_none_fails_and_what_rests_on_it_is_open(
    part: Callable[[str], Path], look: Callable[..., Report], text: str
) -> None:
    folder = part("dataset")
    (folder / "recipe.yaml").write_text(text)
    sign(folder)
    told = status(look(folder))
    assert told["recipe"] == "failed"
    assert told["near-duplicates and leaks"] == "not checked"


def test_a_recipe_that_says_other_than_the_record_fails(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    change_recipe(folder, lambda recipe: recipe["curate"].update(threshold=0.99))
    assert "curate.threshold is 0.99 in recipe.yaml, 0.8 in record.json" in detail(
        look(folder), "recipe"
    )


# ── questions ────────────────────────────────────────────────────────────────────────────────────


def test_a_row_that_went_is_missed(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    write_questions(folder, read_released(folder).questions[1:])
    sign(folder)
    report = look(folder)
    assert "rows, recorded are" in detail(report, "counts")
    assert "the content digest is" in detail(report, "ids")


def test_an_answer_that_was_altered_has_another_id(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    released = read_released(folder)
    altered = [replace(released.questions[0], output="Another."), *released.questions[1:]]
    write_questions(folder, altered, released.ids)
    sign(folder)
    assert detail(look(folder), "ids").startswith(f"row 0 has id '{released.ids[0][:16]}'")


def test_a_question_that_is_there_twice_is_found(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    first = read_released(folder).questions[0]
    whole = add(folder, replace(first, instruction=f"{first.instruction.upper()}  ", output="No."))
    report = look(folder)
    assert status(report)["counts"] == status(report)["ids"] == "ok", "the lie is consistent"
    assert detail(report, "exact duplicates") == f"row {len(whole) - 1} asks the same as row 0"


def test_a_near_duplicate_is_found_unless_the_rule_protects_it(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    first = read_released(folder).questions[0]
    twin = replace(first, instruction=f"Tell me: {first.instruction}")
    add(folder, twin)
    check = next(c for c in look(folder).checks if c.name == "near-duplicates")
    assert check.status == "failed"
    assert [{pair["left"], pair["right"]} for pair in check.found] == [{first.id, twin.id}]
    assert all(pair["similarity"] > 0.8 for pair in check.found)
    other = part_of(folder, lambda q: q != twin)
    add(
        other,
        replace(twin, output="The answer is 123456."),
        replace(first, output="The answer is 7."),
    )
    assert "pairs kept by protect: different_answer" in detail(look(other), "near-duplicates")
    change_recipe(folder, lambda recipe: recipe["curate"]["sources"][0].update(exclusion=False))
    assert "left out by the recipe: science" in detail(look(folder), "near-duplicates")


def part_of(folder: Path, keep: Callable[[Question], bool]) -> Path:
    questions = [q for q in read_released(folder).questions if keep(q)]
    write_questions(folder, questions)
    sign(folder, questions=claim_of(questions))
    return folder


def test_a_drawn_row_finds_its_neighbour_drawn_or_not(
    part: Callable[[str], Path], vectors: Path
) -> None:
    folder = part("dataset")
    first = read_released(folder).questions[0]
    whole = add(folder, replace(first, instruction=f"Tell me: {first.instruction}"))
    settings = check_recipe(yaml.safe_load((folder / "recipe.yaml").read_text()), "test").curate
    encoder = find_encoder(BUILT_IN, Path(), str)
    last = len(whole) - 1
    told = {(0,): "failed", (last,): "failed", (0, last): "failed", (1, 2): "ok", (): "not checked"}
    for rows, says in told.items():
        sample = Sample(np.array(rows, np.int64), len(whole), 0)
        assert check_near(whole, settings, sample, encoder, vectors).status == says, rows


@given(st.integers(0, 60), st.integers(1, 80), st.integers(0, 5))
def test_a_sample_is_as_large_as_asked_and_of_distinct_rows(
    total: int, num: int, seed: int
) -> None:
    sample = draw(total, num, seed)
    assert len(sample.rows) == min(num, total)
    assert sorted(set(sample.rows.tolist())) == sample.rows.tolist()
    assert draw(total, None, seed).is_all
    assert set(sample.rows.tolist()) <= set(range(total))


def test_a_sample_says_how_far_it_speaks_for_all() -> None:
    half = Sample(np.arange(100), 200, 7)
    assert half.says("x", 0) == "0 of 100 rows drawn (--seed 7) have x; of all 200 therefore 0.00% to 3.70% (95 %)"  # fmt: skip
    assert Sample(np.arange(200), 200, 7).says("x", 3) == "3 of all 200 rows have x"


# ── leaks ────────────────────────────────────────────────────────────────────────────────────────


def benchmark_question(folder: Path) -> Question:
    """A question of the benchmark, in a training set's clothes."""
    recipe = check_recipe(yaml.safe_load((folder / "recipe.yaml").read_text()), "test")
    [ref] = recipe.decontaminate.benchmarks
    path = locate("pocket:benchmark.jsonl", folder)
    item = read_benchmark(benchmark_of(ref), "test", path, None)[0]
    return Question(item.stem, "", item.answers[0], "logic", "Apache-2.0", False)


def test_a_leak_is_found_unless_a_released_verdict_keeps_it(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    assert "1 pairs kept by verdicts.jsonl alone" in detail(look(folder), "leaks of pocket")
    leak = benchmark_question(folder)
    add(folder, leak)
    check = next(c for c in look(folder).checks if c.name == "leaks of pocket")
    assert check.status == "failed"
    assert {pair["question"] for pair in check.found} == {leak.id}
    lines = [
        verdicts.Line(leak.id, pair["benchmark_question"], "similar_but_different", "people", "")
        for pair in check.found
    ]
    verdicts.append(folder / "verdicts.jsonl", lines)
    assert status(look(folder))["leaks of pocket"] == "failed", "the record does not list them so"
    sign(folder)
    assert status(look(folder))["leaks of pocket"] == "ok"
    (folder / "verdicts.jsonl").write_text("{}\n")
    sign(folder)
    assert "is no verdict" in detail(look(folder), "leaks")


def test_verdicts_that_the_record_does_not_list_keep_nothing(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    data = (folder / "verdicts.jsonl").read_bytes()
    (folder / "verdicts.jsonl").unlink()
    sign(folder)
    (folder / "verdicts.jsonl").write_bytes(data)
    told = status(look(folder))
    assert told["files"] == told["leaks of pocket"] == "failed"


def test_a_benchmark_that_is_not_here_is_left_open_until_it_is_given(
    part: Callable[[str], Path], look: Callable[..., Report], tmp_path: Path
) -> None:
    folder = part("dataset")
    change_recipe(
        folder,
        lambda recipe: recipe["decontaminate"]["benchmarks"][0].update(path="../mine/bench.jsonl"),
    )
    (folder.parent / "mine").mkdir()
    (folder.parent / "mine" / "bench.jsonl").write_text(
        "secret"
    )  # no file of the reader's is opened
    report = look(folder)
    assert status(report)["leaks of pocket"] == "not checked"
    assert "../mine/bench.jsonl is a local file of its maker's" in detail(report, "leaks of pocket")
    right = locate("pocket:benchmark.jsonl", folder)
    assert status(look(folder, benchmarks={"pocket": right}))["leaks of pocket"] == "ok"
    other = tmp_path / "other.jsonl"
    other.write_text("".join(right.read_text().splitlines(keepends=True)[:-1]))
    report = look(folder, benchmarks={"pocket": other})
    assert "are not the recorded ones" in detail(report, "leaks of pocket")
    with pytest.raises(UsageError, match="--benchmark unknown: no folder names it"):
        look(folder, benchmarks={"unknown": right})
    with pytest.raises(InputError, match=r"--benchmark pocket: .* does not exist"):
        look(folder, benchmarks={"pocket": tmp_path / "nowhere"})


def test_a_benchmark_on_a_hub_that_cannot_be_reached_is_left_open(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    record = json.loads((folder / "record.json").read_text())
    record["decontaminate"]["benchmarks"][0]["id"] = "arc_challenge"
    origins = record["origins"] | {"benchmarks/arc_challenge": f"allenai/ai2_arc@{COMMIT}"}
    sign(folder, decontaminate=record["decontaminate"], origins=origins)
    change_recipe(
        folder,
        lambda recipe: recipe["decontaminate"].update(benchmarks=["arc_challenge"]),
    )
    report = look(folder)
    assert status(report)["leaks of arc_challenge"] == "not checked"
    assert "allenai/ai2_arc" in detail(report, "leaks of arc_challenge")
    sign(folder, origins=record["origins"])
    assert "tells no commit of allenai/ai2_arc" in detail(look(folder), "leaks of arc_challenge")


def test_another_encoder_than_the_recorded_one_decides_nothing(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    record = json.loads((folder / "record.json").read_text())
    sign(folder, curate=record["curate"] | {"encoder_digest": "0" * 64})
    told = status(look(folder))
    assert told["near-duplicates"] == told["leaks of pocket"] == "not checked"


# ── what a rebuild reads ─────────────────────────────────────────────────────────────────────────


def test_a_rebuild_names_what_only_its_maker_has(
    part: Callable[[str], Path], look: Callable[..., Report], tiny_model: Path
) -> None:
    folder = part("dataset")
    told = detail(look(folder), "rebuild")
    assert f"base is a local file of its maker's, {tiny_model}" in told
    assert told.endswith("pinned: sources/science, sources/logic, benchmarks/pocket")

    def to_the_hub(recipe: dict[str, Any]) -> None:
        recipe["train"]["base"] = {"model": "someone/base"}
        recipe["curate"]["sources"][0]["path"] = "~nobody-here/x.jsonl"
        recipe["curate"]["sources"][1]["path"] = "pocket:../../../outside"

    change_recipe(folder, to_the_hub)
    origins = json.loads((folder / "record.json").read_text())["origins"]
    sign(folder, origins=origins | {"base": f"someone/base@{COMMIT}"})
    told = detail(look(folder), "rebuild")
    assert "base is someone/base on the Hub at whatever commit is the newest" in told
    assert "sources/science is a local file of its maker's" in told
    assert "sources/logic is a local file of its maker's" in told
    change_recipe(folder, lambda recipe: recipe["train"]["base"].update(revision=COMMIT))
    assert "base" in detail(look(folder), "rebuild").partition("pinned: ")[2]


def test_a_file_beside_the_recipe_must_be_the_one_that_was_read(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("dataset")
    change_recipe(folder, lambda recipe: recipe["curate"]["sources"][0].update(path="mine.jsonl"))
    shutil.copy(locate("pocket:science.jsonl", folder), folder / "mine.jsonl")
    sign(folder)
    assert "sources/science" in detail(look(folder), "rebuild").partition("pinned: ")[2]
    (folder / "mine.jsonl").write_text("{}")
    sign(folder)
    assert "sources/science is another mine.jsonl" in detail(look(folder), "rebuild")


def test_the_released_recipe_has_the_commits_that_the_run_resolved() -> None:
    recipe = check_recipe(
        {
            "name": "x",
            "curate": {
                "sources": [
                    {"id": "mine", "name": "someone/mine", "license": "MIT"},
                    {"id": "here", "path": "x.jsonl", "license": "MIT"},
                    {"id": "gone", "name": "someone/gone", "license": "MIT", "optional": True},
                ]
            },
            "decontaminate": {"benchmarks": ["arc_challenge"]},
            "train": {"base": {"model": "someone/base", "revision": "main"}},
            "merge": {"into": ["base", {"id": "chat", "model": "someone/chat"}]},
        },
        "test",
    )
    revisions = {
        "dataset:someone/mine": "1" * 40,
        "dataset:allenai/ai2_arc": "2" * 40,
        "model:someone/base@main": "3" * 40,
        "model:someone/chat": "4" * 40,
    }
    found = pinned(recipe, revisions)
    assert [ref.revision for ref in found.curate.sources] == ["1" * 40, None, None]
    assert found.decontaminate.benchmarks[0].revision == "2" * 40
    assert found.evaluate.benchmarks[0].revision == "2" * 40
    assert found.train.base.revision == "3" * 40
    assert [into.revision for into in found.merge.into] == [None, "4" * 40]
    assert pinned(recipe, {}).model_dump() == recipe.model_dump()
    assert pinned(found, revisions) == found


# ── weights ──────────────────────────────────────────────────────────────────────────────────────


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(
        {name: t.contiguous() for name, t in tensors.items()}, path, metadata={"format": "pt"}
    )


def change_config(folder: Path, **keys: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def smaller(tensors: dict[str, torch.Tensor]) -> None:
    """One layer of a lower rank."""
    module = next(iter(sorted(tensors))).rpartition(".lora_")[0]
    tensors[f"{module}.lora_A.weight"] = tensors[f"{module}.lora_A.weight"][:2]
    tensors[f"{module}.lora_B.weight"] = tensors[f"{module}.lora_B.weight"][:, :2]


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values())).view(-1)[0] = float("nan")


def without_rows(tensors: dict[str, torch.Tensor]) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name][:0]


WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: change_tensors(f / WEIGHTS, not_finite), "not finite"),
        (lambda f: change_tensors(f / WEIGHTS, smaller), "has rank 2, adapter_config.json says 4"),
        (lambda f: change_tensors(f / WEIGHTS, without_rows), "has the shape (0, "),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-8]), "not a whole safetensors"),
        (lambda f: change_config(f, r=8), "has rank 4, adapter_config.json says 8"),
        (lambda f: change_config(f, target_modules=["up_proj"]), "is none of the layers that"),
        (lambda f: change_config(f, target_modules=["gate_proj", "up_proj", "down_proj", "q_proj"]), "names q_proj, of which there is no tensor"),
        (lambda f: change_config(f, r="four"), "adapter_config.json: r: "),
        (lambda f: change_config(f, modules_to_save=3), "adapter_config.json: modules_to_save: "),
        (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "cannot be read"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_what_it_says_fails(
    part: Callable[[str], Path],
    look: Callable[..., Report],
    spoil: Callable[[Path], object],
    says: str,
) -> None:
    folder = part("adapter")
    spoil(folder)
    sign(folder)
    report = look(folder)
    assert status(report)["weights"] == "failed"
    assert says in detail(report, "weights")


def test_a_pattern_that_could_take_for_ever_is_not_tried(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("adapter")
    change_config(folder, alpha_pattern={"(a+)+$": 4.0})
    sign(folder)
    assert status(look(folder))["weights"] == "not checked"


def test_an_adapter_of_another_base_or_other_questions_fails(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    adapter, dataset = part("adapter"), part("dataset")
    change_config(adapter, base_model_name_or_path="someone/else")
    sign(adapter)
    assert "names someone/else, the record" in detail(look(adapter), "base")
    part_of(dataset, lambda q: "metal" not in q.text and q.source != "logic")
    assert status(look(adapter, dataset))["trained on"] == "failed"
    flip(dataset / "data" / "train.parquet")
    assert status(look(adapter, dataset))["trained on"] == "not checked"


def test_a_merged_model_with_a_number_that_is_none_fails(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("merged-base")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    change_tensors(folder / "model.safetensors", not_finite)
    sign(folder)
    assert "holds values that are not finite" in detail(look(folder), "weights")


def test_shards_must_be_those_of_their_index(
    part: Callable[[str], Path], look: Callable[..., Report]
) -> None:
    folder = part("merged-base")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = dict.fromkeys(load_file(folder / "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors")  # fmt: skip
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    sign(folder)
    assert status(look(folder))["weights"] == "ok"
    index.write_text(
        json.dumps({"weight_map": names | {"more": "model-00001-of-00001.safetensors"}})
    )
    sign(folder)
    assert "disagree about more" in detail(look(folder), "weights")


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_the_command_prints_a_line_a_check_and_fails_when_one_does(
    part: Callable[[str], Path], vectors: Path
) -> None:
    folder = part("dataset")
    words = ["verify", str(folder), "--cache", str(vectors), "--sample", "20", "--seed", "3"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    num = sum(path.is_file() for path in folder.rglob("*")) - 1  # the record itself
    assert f"  ok          files: {num} files" in done.output
    assert "0 of 20 rows drawn (--seed 3)" in done.output
    flip(folder / "README.md")
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["ok"] is False
    assert told["folders"][0]["checks"][0]["status"] == "failed"


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--benchmark", "x"], "names no path"), (["--cache", "{}/vectors"], "which is only read")],
)
def test_a_wrong_option_is_said_at_once(
    part: Callable[[str], Path], more: list[str], says: str
) -> None:
    folder = part("adapter")
    done = CliRunner().invoke(app, ["verify", str(folder), *(word.format(folder) for word in more)])
    assert isinstance(done.exception, UsageError)
    assert says in str(done.exception)


def test_the_record_can_be_read_back_as_it_was_written(made: Path) -> None:
    record = read_record(made / "dataset")
    assert FolderRecord.model_validate_json(record.model_dump_json()) == record
