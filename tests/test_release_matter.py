"""What machines read of a release is what their own readers take, and what the records say."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import sums
from huggingface_hub import DatasetCard, ModelCard, parse_eval_result_entries
from released import NAMES, SCORES, card

from monotreme import release
from monotreme.records import Counts, Question
from monotreme.release.licensing import consequences, license_fields, licensed
from monotreme.release.matter import size_category
from monotreme.run import Run
from monotreme.storage import sha256

MIXED = ["MIT", "CC-BY-SA-4.0", "unknown", "CC-BY-NC-4.0"]


def mixed(licenses: list[str] = MIXED) -> list[Question]:
    return [
        replace(question, license=licenses[i % len(licenses)])
        for i, question in enumerate(sums(12))
    ]


def from_hub(run: Run, stage: str, **inputs: str) -> None:
    """Let a stage's record say that it read these inputs."""
    path = run.folder / stage / "record.json"
    record = json.loads(path.read_text())
    record["inputs"] |= {name.replace("__", "/"): value for name, value in inputs.items()}
    path.write_text(json.dumps(record))


def test_licences_are_one_identifier_or_are_listed() -> None:
    def fields(**licenses: int) -> dict[str, str]:
        return license_fields(
            licensed(
                [{"source": "sums", "licenses": {name: num}} for name, num in licenses.items()]
            )
        )

    assert fields(**{"Apache-2.0": 3}) == {"license": "apache-2.0"}
    assert fields(**{"GPL-3.0-only": 3}) == {"license": "gpl-3.0"}
    assert fields(**{"ODbL-1.0": 3}) == {"license": "odbl"}
    assert fields(unknown=3) == {"license": "unknown"}
    assert fields() == {}
    assert fields(**{"MIT": 2, "CC-BY-NC-4.0": 1}) == {
        "license": "other",
        "license_name": "mixed-by-source",
        "license_link": "LICENSE.md",
        "license_details": "CC-BY-NC-4.0 (1 questions), MIT (2 questions)",
    }
    assert fields(**{"LicenseRef-My licence": 1})["license_name"] == "licenseref-my-licence"
    assert fields(**{"0BSD": 1})["license"] == "other", "the Hub has no word for it"


def test_the_most_restrictive_licence_is_named_first_and_holds_for_the_whole() -> None:
    found = licensed(
        [
            {"source": "a", "licenses": {"MIT": 5, "CC-BY-SA-4.0": 1}},
            {"source": "b", "licenses": {"unknown": 2}},
            {"source": "c", "licenses": {"CC-BY-NC-4.0": 1}},
            {"source": "d", "licenses": {"CC-BY-NC-4.0": 3, "CC-BY-NC-SA-4.0": 1}},
        ]
    )
    names = ["CC-BY-NC-SA-4.0", "CC-BY-NC-4.0", "unknown", "CC-BY-SA-4.0", "MIT"]
    assert [one.license for one in found] == names
    assert str(found[1]) == "CC-BY-NC-4.0 (c, d: 4)"
    (first, due), *others = consequences(found)
    assert first.startswith("As a whole for non-commercial use only")
    assert [one.license for one in due] == names[:2]
    assert [[one.license for one in due] for _, due in others] == [
        ["unknown"],
        [names[0], names[3]],
    ]


def test_the_card_of_a_mixed_set_says_what_follows_and_lists_the_licences(
    finished: Callable[..., Run],
) -> None:
    run = finished(mixed())
    release.execute(run)
    matter, body = card(run, "dataset")
    assert matter["license_link"] == "LICENSE.md"
    page = (run.folder / "release" / "dataset" / "LICENSE.md").read_text()
    for text in (body, page):
        whole = "- **As a whole for non-commercial use only, because of** CC-BY-NC-4.0 (sums: 3)."
        assert whole in text
        assert "rights may be reserved:** unknown (sums: 3)." in text
        rows = [
            line
            for line in text.splitlines()
            if line.endswith((" |  |", "share-alike |", "commercial |", "unknown |"))
        ]
        assert [row.split(" | ")[0] for row in rows] == [
            "| CC-BY-NC-4.0", "| unknown", "| CC-BY-SA-4.0", "| MIT",
        ]  # fmt: skip


def test_one_free_licence_needs_no_page(finished: Callable[..., Run]) -> None:
    run = finished()
    release.execute(run)
    assert not (run.folder / "release" / "dataset" / "LICENSE.md").exists()
    assert "Commercial use is allowed" in card(run, "dataset")[1]


def test_sizes_are_the_hubs_words() -> None:
    found = [size_category(num) for num in (0, 999, 1000, 24_926, 10**6, 10**9)]
    assert found == ["n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "1M<n<10M", "n>1B"]


def test_the_data_sets_card_is_read_back_by_the_hubs_own_reader(
    finished: Callable[..., Run],
) -> None:
    words = {"language": ["en"], "intended_use": "To *learn* sums.", "limitations": "Only sums."}
    run = finished(mixed(), release={**NAMES, **words})
    from_hub(run, "curate", sources__sums="someone/all-sums@abc")
    release.execute(run)
    read = DatasetCard.load(run.folder / "release" / "dataset" / "README.md").data
    assert read.license == "other"
    assert read.language == ["en"]
    assert read.source_datasets == ["someone/all-sums"]
    assert read.size_categories == ["n<1K"]
    body = card(run, "dataset")[1]
    assert "## Intended use\n\nTo *learn* sums.\n" in body
    assert "## Limitations\n\nOnly sums.\n" in body


def test_a_language_or_a_source_that_no_record_names_is_absent(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    from_hub(run, "curate", sources__sums="0123abc")
    release.execute(run)
    matter, _ = card(run, "dataset")
    assert not {"language", "source_datasets"} & matter.keys()
    assert "language" not in card(run, "adapter")[0]


def test_a_source_that_lost_every_row_is_no_origin(finished: Callable[..., Run]) -> None:
    run = finished()
    read = {"sources/sums": "someone/all-sums@abc", "sources/lost": "someone/lost@abc"}
    with run.stage("curate", read) as work:
        work.counts = Counts.tally(["sums"] * 17, [("lost", "license")])
    release.execute(run)
    matter, body = card(run, "dataset")
    assert matter["source_datasets"] == ["someone/all-sums"]
    assert [origin["prov:label"] for origin in described(run)["prov:wasDerivedFrom"]] == ["sums"]
    assert "| lost | 1 | 1 | 0 | 0 | 0 |  |" in body


def test_the_released_folder_is_a_data_set_and_its_figures_are_right(
    finished: Callable[..., Run], tmp_path: Path
) -> None:
    """`datasets` itself compares the number of rows with the card's, and fails where they differ."""
    from datasets import load_dataset
    from datasets.exceptions import NonMatchingSplitsSizesError

    run = finished(mixed())
    release.execute(run)
    folder = run.folder / "release" / "dataset"
    questions = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "a"))
    origins = load_dataset(str(folder), "provenance", split="train", cache_dir=str(tmp_path / "b"))
    assert questions["output"] == [question.output for question in sums(12)]
    assert origins["license"] == [question.license for question in mixed()]
    infos = {info["config_name"]: info for info in card(run, "dataset")[0]["dataset_info"]}
    for name, read in (("default", questions), ("provenance", origins)):
        assert infos[name]["features"] == read.features._to_yaml_list()
        assert infos[name]["splits"][0]["num_examples"] == read.num_rows
        (split,) = infos[name]["splits"]
        assert split["num_bytes"] == infos[name]["dataset_size"] == read.data.nbytes
    path = folder / "data" / "train.parquet"
    assert infos["default"]["download_size"] == path.stat().st_size

    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("num_examples: 12", "num_examples: 13"))
    with pytest.raises(NonMatchingSplitsSizesError):
        load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "c"))


# ── models ───────────────────────────────────────────────────────────────────────────────────────


def test_a_model_cards_scores_are_read_back_with_their_standard_errors(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    from_hub(run, "evaluate", benchmark__arc_challenge="allenai/ai2_arc@fed")
    release.execute(run)
    (result,) = ModelCard.load(run.folder / "release" / "adapter" / "README.md").data.eval_results
    assert (result.dataset_type, result.dataset_config) == ("allenai/ai2_arc", "ARC-Challenge")
    assert (result.dataset_split, result.dataset_revision) == ("test", "fed")
    assert (result.metric_type, result.metric_value) == ("acc_norm", 55.2)
    assert result.metric_args == {
        "stderr": 1.43, "num_questions": 1172, "num_few_shot": 25, "protocol": "open-llm-2023",
    }  # fmt: skip


def entries(run: Run, part: str) -> list[Any]:
    files = sorted((run.folder / "release" / part / ".eval_results").glob("*.yaml"))
    return [
        e for file in files for e in parse_eval_result_entries(yaml.safe_load(file.read_text()))
    ]


def test_scores_on_hub_benchmarks_are_results_of_the_leaderboard(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    from_hub(run, "evaluate", benchmark__arc_challenge="allenai/ai2_arc@fed")
    release.execute(run)
    (entry,) = entries(run, "adapter")
    assert (entry.dataset_id, entry.task_id) == ("allenai/ai2_arc", "ARC-Challenge")
    assert (entry.dataset_revision, entry.value) == ("fed", 55.2)
    assert entry.notes == (
        "protocol open-llm-2023, 25-shot, acc_norm in points, standard error 1.43, 1,172 questions"
    )
    (merged,) = entries(run, "merged-base")
    assert merged.value == 55.25
    manifest = json.loads((run.folder / "release" / "manifest.json").read_text())
    assert "adapter/.eval_results/arc_challenge.yaml" in {file["path"] for file in manifest}


def test_a_local_benchmark_or_a_part_of_one_is_no_leaderboards(
    finished: Callable[..., Run],
) -> None:
    local = finished()
    from_hub(local, "evaluate", benchmark__arc_challenge="0123")
    release.execute(local)
    assert entries(local, "adapter") == []
    part = finished(evaluate={"benchmarks": [{"id": "arc_challenge", "limit": 5}]})
    from_hub(part, "evaluate", benchmark__arc_challenge="allenai/ai2_arc@fed")
    release.execute(part)
    assert entries(part, "adapter") == []


def test_a_models_own_file_of_the_same_name_is_not_written_through(
    finished: Callable[..., Run],
) -> None:
    """The prepared files are links to the stage's: a text of ours must not change what it left."""
    run = finished()
    with run.stage("evaluate", {}) as work:
        work.json("scores.json", SCORES)
    adapter = run.folder / "train" / "adapter"
    before = sha256(adapter)
    assert (adapter / "README.md").exists()
    release.execute(run)
    assert sha256(adapter) == before


# ── croissant ────────────────────────────────────────────────────────────────────────────────────


def described(run: Run) -> dict[str, Any]:
    path = run.folder / "release" / "dataset" / "croissant.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_croissant_names_every_file_column_licence_and_origin(finished: Callable[..., Run]) -> None:
    run = finished(mixed(), release={**NAMES, "language": ["en"]})
    from_hub(run, "curate", sources__sums="someone/all-sums@abc")
    release.execute(run)
    found, folder = described(run), run.folder / "release" / "dataset"
    files = {file["@id"]: file for file in found["distribution"]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files.keys() == there - {"croissant.json", "record.json"}
    for name, file in files.items():
        assert file["sha256"] == sha256(folder / name)
        assert file["contentSize"] == f"{(folder / name).stat().st_size} B"
    columns = {
        one["name"]: [field["source"]["extract"]["column"] for field in one["field"]]
        for one in found["recordSet"]
    }
    assert columns == {
        "default": ["input", "output", "instruction", "data_source"],
        "provenance": release.PROVENANCE,
    }
    assert found["license"][:2] == ["https://spdx.org/licenses/CC-BY-NC-4.0.html", "unknown"]
    (origin,) = found["prov:wasDerivedFrom"]
    assert origin["@id"] == "https://huggingface.co/datasets/someone/all-sums/tree/abc"
    assert found["url"] == "https://huggingface.co/datasets/someone/sums"
    assert found["inLanguage"] == ["en"]


def test_croissant_leaves_out_what_no_record_tells(finished: Callable[..., Run]) -> None:
    run = finished(release={})
    from_hub(run, "curate", sources__sums="0123abc")
    release.execute(run)
    found = described(run)
    assert not {"url", "inLanguage", "creator", "datePublished"} & found.keys()
    assert found["prov:wasDerivedFrom"][0]["@id"] == "urn:sha256:0123abc"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # rdflib's and mlcroissant's own
def test_croissants_own_reader_takes_it_and_reads_the_questions(
    finished: Callable[..., Run],
) -> None:
    mlcroissant = pytest.importorskip(
        "mlcroissant", reason="mlcroissant is not installed (extra dev)"
    )
    run = finished(mixed())
    from_hub(run, "curate", sources__sums="someone/all-sums@abc")
    release.execute(run)
    folder = run.folder / "release" / "dataset"
    read = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not read.metadata.ctx.issues.errors
    rows = [row["default/output"].decode() for row in read.records("default")]
    assert rows == [question.output for question in sums(12)]
    kept = {row["provenance/license"].decode() for row in read.records("provenance")}
    assert kept == set(MIXED)
    train = folder / "data" / "train.parquet"
    train.write_bytes(train.read_bytes()[:-1] + b"x")
    with pytest.raises(mlcroissant.GenerationError) as refused:
        list(mlcroissant.Dataset(jsonld=folder / "croissant.json").records("default"))
    assert "hash" in str(refused.value.__cause__).lower()


def test_a_set_whose_pairs_were_looked_for_in_lists_says_what_share_was_found(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    path = run.folder / "curate" / "record.json"
    record = json.loads(path.read_text())
    record["facts"]["join"] = {"recall_share": 0.9977, "recall_low": 0.9947, "recall_high": 0.9993, "recall_num_pairs": 2219}  # fmt: skip
    path.write_text(json.dumps(record))
    release.execute(run)
    assert (
        "of 2,219 near pairs of questions drawn, a share of 0.9977 was found"
        in card(run, "dataset")[1]
    )
