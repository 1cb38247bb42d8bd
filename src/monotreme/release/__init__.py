"""release: cards, licences and files, ready to publish (paper, section 6).

`dataset/`, `adapter/` and a `merged-<id>/` for each merge that the recipe names are whole
repositories: files, README.md, recipe.yaml and record.json, by which strangers check them; beside
them croissant.json and, where one licence does not cover the set, LICENSE.md; of a model
.eval_results. `manifest.json` holds size and SHA-256 of each.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.benchmarks import benchmark_of
from monotreme.errors import InputError, RecipeError
from monotreme.recall import FILE as SELF_TEST
from monotreme.recall import self_tested
from monotreme.recipe import dump_recipe
from monotreme.records import Counts, digest, read_table
from monotreme.release import croissant, licensing
from monotreme.release.cards import adapter_card, dataset_card, license_page, merged_card
from monotreme.release.evidence import DataFile, Evidence, Scored, on_hub, source_rows
from monotreme.release.intact import check_records
from monotreme.release.matter import eval_results
from monotreme.release.rebuild import pinned, released_verdicts
from monotreme.release.record import leave_record
from monotreme.run import Run
from monotreme.sources import SOURCES
from monotreme.storage import sha256
from monotreme.verdicts import FILE as VERDICTS

NAME = "release"

RECORDS = ("curate", "decontaminate", "train", "merge", "evaluate")
RATES = ("tokens_per_second",)  # facts that differ when a stage is merely repeated
PROVENANCE = ["id", "source", "license", "llm_written", "subject"]


def inputs(run: Run) -> dict[str, str]:
    """The files and records that the cards tell of, and the recipe that is copied beside them."""
    files = {
        "decontaminate": ["questions.parquet", "leaks.json", "pairs.parquet"],
        "train": ["adapter"],
        "evaluate": ["scores.json"],
        "merge": list(_named_merges(run)),
    }
    tested = {SELF_TEST: digest(json.dumps(found))} if (found := self_tested(run)) else {}
    return {
        **tested,
        "recipe": digest(dump_recipe(run.recipe), json.dumps(_revisions(run))),
        **{
            f"{stage}/{name}": sha256(run.output(stage, name))
            for stage, names in files.items()
            for name in names
        },
        **{f"{stage}/record.json": _record_digest(run.record(stage)) for stage in RECORDS},
    }


def _record_digest(record: dict[str, Any]) -> str:
    """Of what a card can show; not of durations and rates, which change with every repetition."""
    facts = {name: value for name, value in record["facts"].items() if name not in RATES}
    shown = [facts, *(record[key] for key in ("settings", "counts", "versions"))]
    return digest(json.dumps(shown, sort_keys=True))


def _named_merges(run: Run) -> dict[str, str]:
    """The merges to publish, id → Hub name.

    Raises:
        RecipeError: the recipe names one that it does not make.
    """
    made = list(run.merges())
    for name in run.recipe.release.merged:
        if name not in made:
            raise RecipeError(
                f"release.merged names {name!r}, merge makes {', '.join(made) or 'nothing'}",
                "Name a merge that the recipe makes",
            )
    return run.recipe.release.merged


def _revisions(run: Run) -> dict[str, str]:
    return dict(_read_json(run.folder / "run.json").get("revisions", {}))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})", "Run its stage again") from None
    return value


def _evidence(run: Run, questions: pa.Table) -> Evidence:
    records = {stage: run.record(stage) for stage in RECORDS}
    leaks = _read_json(run.output("decontaminate", "leaks.json"))
    columns = (questions[name].to_pylist() for name in ("source", "license", "llm_written"))
    base_digest = records["merge"]["inputs"]["base"]
    return Evidence(
        name=run.recipe.name,
        seed=run.recipe.seed,
        release=run.recipe.release.model_dump(mode="json"),
        records=records,
        leaks=leaks,
        self_test=self_tested(run),
        scores=_read_json(run.output("evaluate", "scores.json")),
        scored=_scored(run, records["evaluate"]["inputs"]),
        sources=source_rows(
            zip(*columns, strict=True),
            records["curate"],
            leaks["dropped_by_source"],
        ),
        base=_hub_name(base_digest),
        base_digest=base_digest,
        revisions=_revisions(run),
    )


def _scored(run: Run, digests: Mapping[str, str]) -> dict[str, Scored]:
    """The benchmarks that evaluate read from the Hub, by id."""
    found = {}
    for ref in run.recipe.evaluate.benchmarks:
        if read := on_hub(digests.get(f"benchmark/{ref.id}")):
            known = benchmark_of(ref)
            found[ref.id] = Scored(read[0], known.config, known.split, read[1], ref.limit is None)
    return found


def _hub_name(model_digest: str) -> str | None:
    found = on_hub(model_digest)
    return found[0] if found else None


def _data_source(source: str) -> str:
    """The released set's word for one of its sources; a source of the user's own has its id."""
    return SOURCES[source].data_source if source in SOURCES else source


def _write_dataset(
    folder: Path, questions: pa.Table, evidence: Evidence, rebuild: Mapping[str, str]
) -> None:
    (folder / "data").mkdir(parents=True)
    columns = {name: questions[name] for name in ("input", "output", "instruction")}
    columns["data_source"] = pa.array(
        map(_data_source, questions["source"].to_pylist()), pa.string()
    )
    files = {
        "default": _write_table(folder, "data/train.parquet", pa.table(columns)),
        "provenance": _write_table(folder, "data/provenance.parquet", questions.select(PROVENANCE)),
    }
    texts = {"README.md": dataset_card(evidence, files), **rebuild}
    if licensing.needs_page(evidence.sources):
        texts[licensing.FILE] = license_page(evidence)
    _write_texts(folder, texts)
    described = croissant.croissant(evidence, folder, files)
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    _write_texts(folder, {croissant.FILE: text})


def _write_table(folder: Path, name: str, table: pa.Table) -> DataFile:
    path = folder / name
    pq.write_table(table, path, compression="zstd")
    columns = {field.name: str(field.type) for field in table.schema}
    return DataFile(name, columns, table.num_rows, table.nbytes, path.stat().st_size, sha256(path))


def _write_model(folder: Path, source: Path, texts: Mapping[str, str]) -> None:
    """The files of a model folder with our texts in place of any card that came with them."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.as_posix() not in texts:
            _link(path, folder / name)
    _write_texts(folder, texts)


def _link(source: Path, place: Path) -> None:
    """A second name for the same bytes, or a copy where the file system has no such thing."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _rebuild(run: Run) -> dict[str, str]:
    """Name and text of the files by which the released set is made again."""
    verdicts = released_verdicts(read_table(run.output("decontaminate", "pairs.parquet")))
    recipe = dump_recipe(pinned(run.recipe, _revisions(run)))
    return {"recipe.yaml": recipe, **({VERDICTS: verdicts} if verdicts else {})}


def execute(run: Run) -> None:
    """Prepare the folders to publish.

    Raises:
        InputError: an earlier stage has not finished, or its files cannot be read.
        RecipeError: `release.merged` names a merge that the recipe does not make.
        MismatchError: a file of an earlier stage is not what its record says.
    """
    check_records(run, RECORDS)
    questions = read_table(run.output("decontaminate", "questions.parquet"))
    merges = _named_merges(run)
    given = inputs(run)
    evidence = _evidence(run, questions)
    rebuild = _rebuild(run)
    with run.stage(NAME, given) as work:
        with work.file("dataset") as folder:
            _write_dataset(folder, questions, evidence, rebuild)
        leave_record(work, "dataset", evidence, questions)
        with work.file("adapter") as folder:
            texts = {"README.md": adapter_card(evidence), **rebuild}
            texts |= eval_results(evidence, "adapter")
            _write_model(folder, run.output("train", "adapter"), texts)
        leave_record(work, "adapter", evidence, questions)
        for name in merges:
            into = _hub_name(evidence.records["merge"]["inputs"][f"into/{name}"])
            texts = {"README.md": merged_card(evidence, name, into), **rebuild}
            texts |= eval_results(evidence, f"merged-{name}")
            with work.file(f"merged-{name}") as folder:
                _write_model(folder, run.output("merge", name), texts)
            leave_record(work, f"merged-{name}", evidence, questions)
        files = [{"path": path, **entry} for path, entry in work.outputs.items()]
        work.json("manifest.json", files)
        work.counts = Counts.tally(questions["source"].to_pylist(), [])
        work.facts = {
            "num_files": len(files),
            "bytes": sum(file["bytes"] for file in files),
            "folders": ["dataset", "adapter", *(f"merged-{name}" for name in merges)],
        }
