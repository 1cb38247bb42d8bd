"""A card says what the records say and no more."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import sums
from hypothesis import given
from hypothesis import strategies as st
from released import SCORES, card, score

from monotreme import release
from monotreme.errors import InputError, MismatchError, RecipeError
from monotreme.records import Counts
from monotreme.release.cards import cell
from monotreme.release.evidence import source_rows
from monotreme.release.intact import check_records
from monotreme.run import Run
from monotreme.storage import sha256


def test_the_data_set_is_the_checked_questions_in_the_released_columns(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    release.execute(run)

    data = run.output("release", "dataset") / "data"
    train, provenance = (
        pq.read_table(data / "train.parquet"),
        pq.read_table(data / "provenance.parquet"),
    )
    assert train.column_names == ["input", "output", "instruction", "data_source"]
    assert provenance.column_names == ["id", "source", "license", "llm_written", "subject"]
    rows = zip(train.to_pylist(), provenance.to_pylist(), sums(12), strict=True)
    for row, origin, question in rows:
        assert row["instruction"] == question.instruction
        assert row["output"] == question.output
        assert row["data_source"] == origin["source"] == question.source
        assert origin["id"] == question.id
    assert run.record("release")["counts"]["kept"] == 12


def test_the_data_sets_card_tells_its_sources_licences_and_leaks(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    release.execute(run)
    matter, body = card(run, "dataset")
    assert matter["license"] == "cc0-1.0"
    assert matter["size_categories"] == ["n<1K"]
    assert "| sums | 17 | 0 | 5 | 12 | 0 | CC0-1.0 |" in body
    assert "| arc_challenge | test | 1,172 | CC-BY-SA-4.0 |" in body
    assert "| sums | 17 | 5 | 29.4 % | 13.3 to 53.1 % |" in body
    assert "People judged 4 of the 12 pairs and changed 1 of the proposed verdicts." in body
    assert "2 questions of arc_challenge test stand in its split train too." in body
    assert "| duplicate (dropped) | gray_area (dropped) | similar_but_different |" in body
    assert "| sums | arc_challenge | 3 | 2 | 7 |" in body
    assert "What was not checked" in body


def test_the_adapters_card_tells_scores_deltas_and_settings(finished: Callable[..., Run]) -> None:
    run = finished()
    release.execute(run)
    matter, body = card(run, "adapter")
    assert matter["library_name"] == "peft"
    assert matter["datasets"] == ["someone/sums"]
    result = matter["model-index"][0]["results"][0]
    assert len(matter["model-index"][0]["results"]) == 1, "the mean is no benchmark"
    assert result["dataset"]["type"] == "arc_challenge"
    assert result["metrics"][0]["value"] == 55.2
    assert result["metrics"][0]["args"]["stderr"] == 1.43
    row = "| 53.07 ± 1.43 | 55.20 ± 1.43 | +2.13 | +0.37 to +3.89 | 0.018 |"
    assert f"| arc_challenge | acc_norm | 25 | 1,172 {row}" in body
    assert "| mean | acc_norm |  | 1,172 |  | 56.10 |  |  |  |" in body
    assert "text: 7.25 over 8,100 tokens; log-loss to the base -0.0312 ± 0.004." in body
    assert "| num_trainable_parameters | 9,216 |" in body
    assert "| learning_rate | 0.0004 |" in body


def test_a_merged_models_card_tells_its_merge_and_its_folder_holds_the_model(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    release.execute(run)
    matter, body = card(run, "merged-base")
    assert matter["library_name"] == "transformers"
    assert matter["base_model"] == "someone/sums-adapter"  # the base is a local folder
    assert "2 matrices adapted, 19 tensors copied, stored as F32" in body
    folder = run.output("release", "merged-base")
    made = run.output("merge", "base") / "model.safetensors"
    assert sha256(folder / "model.safetensors") == sha256(made)


def test_a_base_on_the_hub_is_named_with_its_commit(finished: Callable[..., Run]) -> None:
    run = finished()
    path = run.folder / "merge" / "record.json"
    record = json.loads(path.read_text())
    record["inputs"] |= {"base": "someone/base-7b@abc123", "into/base": "someone/base-7b@abc123"}
    path.write_text(json.dumps(record))
    release.execute(run)
    matter, body = card(run, "adapter")
    assert matter["base_model"] == "someone/base-7b"
    assert matter["base_model_relation"] == "adapter"
    assert "A LoRA adapter for someone/base-7b@abc123." in body
    matter, _ = card(run, "merged-base")
    assert matter["base_model"] == ["someone/base-7b", "someone/sums-adapter"]
    assert matter["base_model_relation"] == "merge"


def test_benchmarks_that_were_scored_but_not_checked_are_named(
    finished: Callable[..., Run],
) -> None:
    run = finished(scores={**SCORES, "scores": [*SCORES["scores"], score("base", 40, "mmlu")]})
    release.execute(run)
    _, body = card(run, "dataset")
    assert "- Scored, yet not compared with the training questions: mmlu.\n" in body


def test_what_no_record_tells_is_absent(finished: Callable[..., Run]) -> None:
    run = finished(
        scores={"protocol": "open-llm-2023", "scores": [], "perplexity": [], "deltas": []},
        release={},
    )
    release.execute(run)
    for part in ("dataset", "adapter"):
        matter, body = card(run, part)
        assert all(value not in (None, [], "", {}) for value in matter.values())
        for placeholder in ("Information Needed", "None", "TODO", "undefined", "Intended use"):
            assert placeholder not in body
    matter, body = card(run, "adapter")
    assert not {"base_model", "base_model_relation", "datasets", "model-index"} & matter.keys()
    assert "Scores" not in body
    assert "first_loss" not in body
    assert not (run.folder / "release" / "merged-base").exists()


def test_cards_do_not_tell_where_the_base_model_lies(
    finished: Callable[..., Run], tiny_model: Path
) -> None:
    run = finished()
    release.execute(run)
    for part in ("dataset", "adapter", "merged-base"):
        assert str(tiny_model) not in (run.folder / "release" / part / "README.md").read_text()


def test_hostile_values_stay_text_in_a_card(finished: Callable[..., Run]) -> None:
    evil = "x | y\n<script>alert(1)</script> [link](http://evil) `code`"
    questions = [replace(q, license=evil) for q in sums(3)]
    run = finished(questions, release={"title": "A: <b>title</b>\n# second"})
    release.execute(run)
    matter, body = card(run, "dataset")
    assert matter["license_name"] == "x-y-script-alert-1-script-link-http-evil-code"
    assert "<script>" not in (run.folder / "release" / "dataset" / "LICENSE.md").read_text()
    assert "<script>" not in body
    assert "<b>" not in body
    assert "\n# second" not in body
    line = next(line for line in body.splitlines() if line.startswith("| sums | 17"))
    assert line.replace("\\|", "").count("|") == 8, "a value broke the table"


@given(st.text())
def test_a_cell_is_one_line_without_markup(text: str) -> None:
    shown = cell(text)
    assert "\n" not in shown
    assert not set("<>") & set(shown)
    assert "|" not in shown.replace("\\\\", "").replace("\\|", "")


def test_a_source_that_lost_every_row_is_still_listed() -> None:
    counts = {"a": {"read": 4, "kept": 2, "dropped": 2}, "b": {"read": 1, "kept": 0, "dropped": 1}}
    curated = {"counts": {"by_source": counts}, "inputs": {"sources/a": "x/y@1"}}
    rows = source_rows([("a", "MIT", True), ("a", "X", False)], curated, {"a": 0})
    assert [row["source"] for row in rows] == ["a", "b"]
    assert [row["digest"] for row in rows] == ["x/y@1", None]
    assert [row["released"] for row in rows] == [2, 0]
    assert [row["llm_written"] for row in rows] == [1, 0]
    assert rows[0]["licenses"] == {"MIT": 1, "X": 1}


def test_the_manifest_lists_every_file_with_its_digest(finished: Callable[..., Run]) -> None:
    run = finished()
    release.execute(run)
    folder = run.folder / "release"
    manifest = json.loads((folder / "manifest.json").read_text())
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {f["path"] for f in manifest} == there - {"manifest.json", "record.json"}
    for file in manifest:
        data = (folder / file["path"]).read_bytes()
        assert file["bytes"] == len(data)
        assert file["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_release_is_current_until_something_it_tells_of_changes(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    release.execute(run)
    assert run.is_current("release", release.inputs(run))
    first = sha256(run.folder / "release" / "manifest.json")
    release.execute(run)
    assert sha256(run.folder / "release" / "manifest.json") == first
    with run.stage("evaluate", {}) as work:
        work.json("scores.json", {**SCORES, "protocol": "another"})
    assert not run.is_current("release", release.inputs(run))


def test_a_merge_that_is_not_made_cannot_be_released(make_run: Callable[..., Run]) -> None:
    run = make_run(release={"merged": {"other": "someone/x"}})
    with pytest.raises(RecipeError, match=r"release\.merged names 'other'"):
        release.inputs(run)


def test_a_release_needs_the_stages_before_it(make_run: Callable[..., Run]) -> None:
    with pytest.raises(InputError, match="curate has not finished"):
        release.execute(make_run())


def test_a_source_of_the_table_is_released_under_its_own_word() -> None:
    assert release._data_source("prm800k") == "MATH/PRM-800K"
    assert release._data_source("mine") == "mine"


def test_the_self_test_is_on_the_card_only_where_it_was_of_this_check(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    record = run.record("decontaminate")
    found = [{"benchmark": "arc_challenge", "kind": "verbatim", "planted": 100, "caught": 97, "is_leak": True, "interval": [0.915, 0.99]}]  # fmt: skip
    test = {"settings": record["settings"], "inputs": {}, "versions": record["versions"], "found": found}  # fmt: skip
    (run.folder / "self_test.json").write_text(json.dumps(test))
    release.execute(run)
    assert "| arc_challenge | verbatim | 100 | 97 | 91.5 to 99.0 % |" in card(run, "dataset")[1]
    other = {**test, "settings": {**record["settings"], "threshold": 0.7}}
    (run.folder / "self_test.json").write_text(json.dumps(other))
    assert not run.is_current("release", release.inputs(run))
    release.execute(run)
    assert "verbatim" not in card(run, "dataset")[1]


# ── only from records that hold ──────────────────────────────────────────────────────────────────


def flip(path: Path) -> None:
    """Alter one bit of the last byte; the size stays."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("curate", "questions.parquet"),
        ("decontaminate", "questions.parquet"),
        ("decontaminate", "leaks.json"),
        ("train", "adapter/adapter_model.safetensors"),
        ("merge", "base/model.safetensors"),
        ("evaluate", "scores.json"),
    ],
)
def test_one_altered_byte_and_there_is_no_card(
    finished: Callable[..., Run], stage: str, name: str
) -> None:
    run = finished()
    flip(run.folder / stage / name)
    with pytest.raises(MismatchError) as refused:
        release.execute(run)
    assert str(refused.value).startswith(f"{stage}: {run.folder / stage / name} is not what")
    assert refused.value.remedy == f"Run `monotreme {stage} --force`"
    assert not (run.folder / "release").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda counts: counts.update(dropped=1), "counts do not balance"),
        (lambda counts: counts["by_source"]["sums"].update(read=16), "counts do not balance"),
        (
            lambda counts: counts.update(asdict(Counts.tally(["sums"] * 16, []))),
            "has 17 rows, the record counts 16 kept",
        ),
    ],
)
def test_counts_that_do_not_balance_make_no_card(
    finished: Callable[..., Run], change: Callable[[dict[str, Any]], object], says: str
) -> None:
    run = finished()
    path = run.folder / "curate" / "record.json"
    record = json.loads(path.read_text())
    change(record["counts"])
    path.write_text(json.dumps(record))
    with pytest.raises(MismatchError, match=f"^curate: .*{says}"):
        release.execute(run)


def test_questions_that_were_trained_on_unchecked_are_those_that_train_read(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    flip(run.folder / "decontaminate" / "questions.parquet")
    path = run.folder / "train" / "record.json"
    record = json.loads(path.read_text())
    record["facts"]["checked"] = False
    record["inputs"]["decontaminate/questions.parquet"] = "of another file"
    path.write_text(json.dumps(record))
    with pytest.raises(MismatchError, match=r"^decontaminate: .*questions\.parquet"):
        release.execute(run)
    changed = sha256(run.folder / "decontaminate" / "questions.parquet")
    record["inputs"]["decontaminate/questions.parquet"] = changed
    path.write_text(json.dumps(record))
    check_records(run, release.RECORDS)
