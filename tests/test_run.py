"""The run folder tells the truth: a record is there only for whole, present, matching work."""

import json

import pytest
from conftest import finish, sums

from monotreme import pipeline
from monotreme.errors import BusyError, InputError, RemoteError
from monotreme.records import Counts, question_table
from monotreme.run import open_run


def test_a_finished_stage_is_current_until_something_changes(make_run):
    run = make_run()
    assert not run.is_current("curate", {})
    finish(run, "curate", sums(3))
    assert run.is_current("curate", {})
    assert not run.is_current("curate", {"sources/sums": "other"})
    assert not make_run(seed=7).is_current("curate", {})
    other = make_run(curate={"sources": ["sums"], "threshold": 0.9})
    assert not other.is_current("curate", {})
    assert make_run(train={"rank": 4}).is_current("curate", {})  # another table's business


def test_a_missing_or_cut_output_makes_the_stage_stale(make_run):
    run = make_run()
    finish(run, "curate", sums(3))
    path = run.folder / "curate" / "questions.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert not run.is_current("curate", {})
    path.unlink()
    assert not run.is_current("curate", {})


def test_a_stage_that_fails_before_it_writes_leaves_the_last_result(make_run):
    run = make_run()
    finish(run, "curate", sums(3))
    with pytest.raises(InputError), run.stage("curate", {"sources/sums": "new"}):
        raise InputError("a source is missing", "Find it")
    assert run.is_current("curate", {})


def test_a_stage_that_fails_after_it_wrote_has_no_record(make_run):
    run = make_run()
    finish(run, "curate", sums(3))
    with pytest.raises(RuntimeError, match="killed"), run.stage("curate", {}) as work:
        work.table("questions.parquet", question_table(sums(2)))
        raise RuntimeError("killed")
    with pytest.raises(InputError, match="curate has not finished"):
        run.output("curate", "questions.parquet")


def test_unbalanced_counts_never_become_a_record(make_run):
    run = make_run()
    with pytest.raises(ValueError, match="do not balance"), run.stage("curate", {}) as work:
        work.counts = Counts(read=3, kept=1, dropped=1)
    assert not run.is_current("curate", {})


def test_a_folder_holds_what_its_record_says_and_no_more(make_run):
    run = make_run()
    finish(run, "curate", sums(3))
    (run.folder / "curate" / "old").mkdir()
    (run.folder / "curate" / "old" / "left.txt").write_text("of another execution")
    finish(run, "curate", sums(3))
    names = sorted(p.name for p in (run.folder / "curate").iterdir())
    assert names == ["questions.parquet", "record.json"]


def test_the_record_names_digests_rows_versions_and_seed(make_run):
    run = make_run()
    finish(run, "curate", sums(3))
    record = run.record("curate")
    assert record["outputs"]["questions.parquet"]["rows"] == 3
    assert len(record["outputs"]["questions.parquet"]["sha256"]) == 64
    assert record["seed"] == 42
    assert {"python", "torch", "monotreme"} <= record["versions"].keys()
    assert record["peak_bytes"] > 1_000_000


def test_one_command_at_a_time(make_run):
    run = make_run()
    with run.open(), pytest.raises(BusyError, match="another command"), make_run().open():
        pytest.fail("two commands held one run")


def test_a_run_folder_opens_as_it_was(make_run):
    run = make_run(train={"rank": 4})
    with run.open():
        pass
    again = open_run(run.folder)
    assert (again.recipe, again.recipe_folder) == (run.recipe, run.recipe_folder)


def test_a_pinned_revision_stays(make_run):
    run = make_run()
    about = {"recipe_folder": ".", "revisions": {"dataset:a/b": "c0ffee"}}
    (run.folder / "run.json").write_text(json.dumps(about))
    assert run.pin("dataset", "a/b", None) == "c0ffee"
    assert run.pin("dataset", "a/b", "0" * 40) == "0" * 40
    with pytest.raises(RemoteError, match="a/b"):  # a branch is resolved, not believed
        run.pin("dataset", "a/b", "main")


def test_a_run_that_moved_with_its_recipe_still_opens(make_run, tmp_path):
    run = make_run()
    with run.open():
        pass
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    assert open_run(moved / "runs" / "test").recipe_folder == moved


def test_models_are_named_when_missing(make_run):
    run = make_run(train={"base": "./absent"})
    with pytest.raises(InputError, match=r"model folder .*absent does not exist"):
        run.model(run.recipe.train.base)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": {"base": "./absent"}}, "train.base: .*absent"),
        ({"merge": {"into": [{"id": "far", "model": "./absent"}]}}, "merge.far: .*absent"),
        ({"evaluate": {"texts": "absent.jsonl"}}, "evaluate.texts: .*absent"),
        (
            {"evaluate": {"benchmarks": [{"id": "mine", "path": "absent.jsonl"}]}},
            "evaluate.benchmarks, mine: .*absent",
        ),
    ],
)
def test_a_path_of_a_late_stage_is_missed_before_the_first(make_run, changes, named):
    run = make_run(**changes)
    with pytest.raises(InputError, match=rf"{named}\S* does not exist"):
        list(pipeline.plan(run))
    with pytest.raises(InputError, match=named):
        pipeline.execute(run)
    assert not (run.folder / "curate").exists()
