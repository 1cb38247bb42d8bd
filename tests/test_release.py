"""A card says what the records say and no more; a push sends what was prepared and no more."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import finish, sums
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from monotreme import merge, release
from monotreme.decontaminate import PAIR_SCHEMA
from monotreme.errors import InputError, MismatchError, RecipeError, RefusedError
from monotreme.records import Counts, Question, question_table
from monotreme.release.cards import cell, license_fields, size_category, source_rows
from monotreme.release.push import push, uploads
from monotreme.run import Run, open_run
from monotreme.storage import sha256

NAMES = {
    "dataset": "someone/sums",
    "adapter": "someone/sums-adapter",
    "merged": {"base": "someone/sums-merged"},
}
LEAKS = {
    "benchmarks": [
        {"id": "arc_challenge", "license": "CC-BY-SA-4.0", "split": "test", "num_questions": 1172}
    ],
    "table": [
        {
            "source": "sums",
            "benchmark": "arc_challenge",
            "duplicate": 3,
            "gray_area": 2,
            "similar_but_different": 7,
        }
    ],
    "dropped_by_source": {"sums": 5},
    "rates": [
        {"source": "sums", "read": 17, "leaked": 5, "rate": 0.294118, "interval": [0.133, 0.531]}
    ],
    "review": {"pairs": 12, "judged": 4, "changed": 1, "reviewers": ["ada"]},
    "between_splits": [
        {
            "benchmark": "arc_challenge",
            "split": "test",
            "other_split": "train",
            "duplicate": 2,
            "gray_area": 0,
            "similar_but_different": 0,
            "duplicate_ids": ["a", "b"],
        }
    ],
    "threshold": 0.8,
    "drop": ["duplicate", "gray_area"],
    "encoder": "all-MiniLM-L6-v2",
}


def score(model: str, value: float, benchmark: str = "arc_challenge") -> dict[str, Any]:
    return {
        "model": model,
        "benchmark": benchmark,
        "metric": "acc_norm",
        "score": value,
        "stderr": 1.43,
        "num_questions": 1172,
        "shots": 25,
    }


SCORES: dict[str, Any] = {
    "protocol": "open-llm-2023",
    "scores": [
        score("base", 53.07),
        score("adapter", 55.2),
        {**score("adapter", 56.1, "mean"), "stderr": None, "shots": None},
        score("merged-base", 55.25),
    ],
    "perplexity": [
        {
            "model": "adapter",
            "perplexity": 7.2512,
            "num_tokens": 8100,
            "delta_log_loss": -0.0312,
            "delta_stderr": 0.004,
        }
    ],
    "deltas": [
        {
            "model": "adapter",
            "benchmark": "arc_challenge",
            "delta": 2.13,
            "stderr": 0.9,
            "low": 0.37,
            "high": 3.89,
            "p_value": 0.018,
            "num_questions": 1172,
            "test": "mcnemar",
        }
    ],
}
TRAIN_FACTS = {"num_steps": 3, "num_tokens": 4321, "num_trainable_parameters": 9216}


def write_adapter(folder: Path, model: Path) -> None:
    """A PEFT adapter of rank 2 on the down projections, with PEFT's own empty card."""
    from peft import LoraConfig

    folder.mkdir()
    LoraConfig(
        r=2, lora_alpha=2, target_modules=["down_proj"], task_type="CAUSAL_LM"
    ).save_pretrained(folder)
    torch.manual_seed(3)
    tensors = {}
    for name, weight in load_file(model / "model.safetensors").items():
        if "down_proj" in name:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(2, weight.shape[1])
            tensors[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], 2) / 50
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "README.md").write_text("[More Information Needed]")


@pytest.fixture
def finished(make_run: Callable[..., Run], tiny_model: Path) -> Callable[..., Run]:
    """A run whose stages up to evaluate are done."""

    def make(
        questions: list[Question] | None = None,
        scores: dict[str, Any] = SCORES,
        **tables: Any,
    ) -> Run:
        questions = sums(12) if questions is None else questions
        run = make_run(**{"release": NAMES, **tables})
        with run.open():
            finish(run, "curate", sums(17))
            with run.stage("decontaminate", {}) as work:
                work.table("questions.parquet", question_table(questions))
                work.table("pairs.parquet", PAIR_SCHEMA.empty_table())
                work.json("leaks.json", LEAKS)
            with run.stage("train", {}) as work:
                with work.file("adapter") as folder:
                    write_adapter(folder, tiny_model)
                work.facts = TRAIN_FACTS
                work.counts = Counts.tally([q.source for q in questions], [])
            merge.execute(run)
            with run.stage("evaluate", {}) as work:
                work.json("scores.json", scores)
        return run

    return make


def card(run: Run, part: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a prepared README.md."""
    text = (run.folder / "release" / part / "README.md").read_text()
    _, matter, body = text.split("---\n", 2)
    return yaml.safe_load(matter), body


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
    assert matter["license"] == evil.lower()
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


def test_licences_are_one_identifier_or_are_listed() -> None:
    assert license_fields({"Apache-2.0": 3}) == {"license": "apache-2.0"}
    mixed = license_fields({"MIT": 2, "CC-BY-4.0": 1})
    assert mixed["license"] == "other"
    assert mixed["license_details"] == "CC-BY-4.0 (1 rows), MIT (2 rows)"
    assert license_fields({"LicenseRef-x": 1})["license"] == "other"
    assert license_fields({}) == {}


def test_sizes_are_the_hubs_words() -> None:
    found = [size_category(num) for num in (0, 999, 1000, 24_926, 10**6, 10**9)]
    assert found == ["n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "1M<n<10M", "n>1B"]


def test_a_source_that_lost_every_row_is_still_listed() -> None:
    curated = {"a": {"read": 4, "kept": 2, "dropped": 2}, "b": {"read": 1, "kept": 0, "dropped": 1}}
    rows = source_rows([("a", "MIT", True), ("a", "X", False)], curated, {"a": 0})
    assert [row["source"] for row in rows] == ["a", "b"]
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
    with pytest.raises(InputError, match="decontaminate has not finished"):
        release.execute(make_run())


# ── push ─────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_pushed_before_release_or_without_a_name_or_a_yes(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    with pytest.raises(RefusedError, match="release has not been done"):
        uploads(run)
    release.execute(run)
    assert [str(upload).split(":")[0] for upload in uploads(run)] == [
        "private dataset someone/sums",
        "private model someone/sums-adapter",
        "private model someone/sums-merged",
    ]
    with pytest.raises(RefusedError, match="not confirmed"):
        push(run, confirm=lambda _: False)
    nameless = finished(release={})
    release.execute(nameless)
    with pytest.raises(RefusedError, match="names no repository"):
        uploads(nameless)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: append(f / "dataset" / "data" / "train.parquet"), "has changed"),
        (lambda f: (f / "adapter" / "recipe.yaml").unlink(), "is missing"),
        (lambda f: (f / "adapter" / "secret.txt").write_text("x"), "is not in the manifest"),
    ],
)
def test_a_folder_that_is_not_as_prepared_is_not_pushed(
    finished: Callable[..., Run], spoil: Callable[[Path], object], says: str
) -> None:
    run = finished()
    release.execute(run)
    spoil(run.folder / "release")
    with pytest.raises(MismatchError, match=says):
        push(run, confirm=lambda _: True)


def test_what_is_out_of_date_is_not_pushed(finished: Callable[..., Run]) -> None:
    run = finished()
    release.execute(run)
    finish(run, "curate", sums(18))
    with pytest.raises(RefusedError, match="out of date"):
        uploads(run)


class Hub(BaseHTTPRequestHandler):
    """The few calls of the Hub that an upload makes: repositories, commits, large files."""

    repositories: dict[str, dict[str, Any]]
    objects: dict[str, bytes]
    private: list[bool]

    def do_GET(self) -> None:
        """What a repository is; one whose name ends in "public" was there before, and is public."""
        name = self.path.removeprefix("/api/").split("?")[0]
        told = {"id": name.split("/", 1)[1], "private": not name.endswith("public")}
        self._reply({**told, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0], self._body()
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._reply({"warnings": [], "errors": []})
        elif "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._reply({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif "/commit/" in path:
            self._commit(path, [json.loads(line) for line in body.splitlines()])
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        data = self._body()
        assert hashlib.sha256(data).hexdigest() == self.path.rsplit("/", 1)[1]
        self.objects[self.path.rsplit("/", 1)[1]] = data
        self._reply({})

    def _create(self, asked: dict[str, Any]) -> None:
        kind, name = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        self.private.append(asked["visibility"] == "private")
        self.repositories[f"{kind}s/{name}"] = {}
        prefix = "datasets/" if kind == "dataset" else ""
        self._reply({"url": f"http://{self.headers['Host']}/{prefix}{name}"})

    def _batch(self, asked: dict[str, Any]) -> None:
        address = f"http://{self.headers['Host']}/objects"
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{address}/{wanted['oid']}"}}}
            for wanted in asked["objects"]
        ]
        self._reply({"transfer": "basic", "objects": objects})

    def _commit(self, path: str, lines: list[dict[str, Any]]) -> None:
        repository = path.removeprefix("/api/").split("/commit/")[0]
        files = self.repositories[repository]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            else:
                files[line["key"]] = value["summary"]
        address = f"http://{self.headers['Host']}/{repository.removeprefix('models/')}"
        self._reply({"commitUrl": f"{address}/commit/{'1' * 40}", "commitOid": "1" * 40})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Nothing: a test's output is for failures."""


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".parquet"))


@contextmanager
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """A Hub on loopback: its address, and what it has received."""
    handler = type("FreshHub", (Hub,), {"repositories": {}, "objects": {}, "private": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", handler
        finally:
            server.shutdown()
            thread.join()


# huggingface_hub reads its settings when it is imported, so the push has a process of its own
PUSH = """
import json, sys
from pathlib import Path
from monotreme.errors import MonotremeError
from monotreme.release.push import push
from monotreme.run import open_run

try:
    print(json.dumps(push(open_run(Path(sys.argv[1])), confirm=lambda planned: True)))
except MonotremeError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def push_to(address: str, run: Run, home: Path) -> subprocess.CompletedProcess[str]:
    settings = {
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_test",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-c", PUSH, str(run.folder)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_push_sends_every_prepared_file_and_nothing_else(
    tmp_path: Path, finished: Callable[..., Run]
) -> None:
    run = finished()
    release.execute(run)
    assert open_run(run.folder).is_current("release", release.inputs(run))

    with hub() as (address, received):
        done = push_to(address, run, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        f"{address}/datasets/someone/sums",
        f"{address}/someone/sums-adapter",
        f"{address}/someone/sums-merged",
    ]
    assert received.private == [True, True, True]
    manifest = json.loads((run.folder / "release" / "manifest.json").read_text())
    parts = {
        "datasets/someone/sums": "dataset",
        "models/someone/sums-adapter": "adapter",
        "models/someone/sums-merged": "merged-base",
    }
    assert received.repositories.keys() == parts.keys()
    for repository, part in parts.items():
        files = dict(received.repositories[repository])
        assert files.pop("header") == "Release of test"
        wanted = {
            file["path"].removeprefix(f"{part}/"): (file["bytes"], file["sha256"])
            for file in manifest
            if file["path"].startswith(f"{part}/")
        }
        found = {name: (len(d), hashlib.sha256(d).hexdigest()) for name, d in files.items()}
        assert found == wanted


def test_a_public_repository_gets_nothing_that_should_be_private(
    tmp_path: Path, finished: Callable[..., Run]
) -> None:
    run = finished(release={"dataset": "someone/public"})
    release.execute(run)
    with hub() as (address, received):
        done = push_to(address, run, tmp_path / "home")
    assert "dataset someone/public is public, the recipe says private" in done.stderr
    assert received.repositories == {"datasets/someone/public": {}}


def test_a_source_of_the_table_is_released_under_its_own_word() -> None:
    assert release._data_source("prm800k") == "MATH/PRM-800K"
    assert release._data_source("mine") == "mine"


def test_a_hub_that_says_no_is_one_line(tmp_path: Path, finished: Callable[..., Run]) -> None:
    run = finished(release={"dataset": "someone/sums"})
    release.execute(run)

    with hub() as (address, received):
        received.do_POST = lambda self: self.send_error(403)  # type: ignore[method-assign]
        received.do_GET = received.do_POST  # type: ignore[method-assign]
        done = push_to(address, run, tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith("RemoteError: dataset someone/sums was refused by the Hub")
    assert len(done.stderr.strip().splitlines()) == 1


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
