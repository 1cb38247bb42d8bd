"""The stage: every model on every benchmark, records first, nothing lost to a kill."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from monotreme import evaluate
from monotreme.benchmarks import benchmark_of, read_benchmark
from monotreme.errors import InputError, MismatchError, RecipeError
from monotreme.recipe import BenchmarkRef
from monotreme.records import read_table
from monotreme.run import Run
from monotreme.scoring import pieces
from monotreme.storage import sha256

MakeRun = Callable[..., Run]


def arc_row(number: int) -> dict[str, Any]:
    letters = ["A", "B", "C"]
    texts = [f"The answer is {number + step}." for step in range(3)]
    return {
        "question": f"What is {number} plus two?",
        "choices": {"text": texts, "label": letters},
        "answerKey": letters[number % 3],
        "subject": "sums" if number % 2 else "metals",
    }


def qa_row(number: int) -> dict[str, Any]:
    targets = {"choices": ["iron", f"wood {number}", "glass"], "labels": [0, 1, 1]}
    return {"question": f"Which of these is {number}?", "mc2_targets": targets}


def mmlu_row(number: int) -> dict[str, Any]:
    return {
        "question": f"Which is a metal, {number}?",
        "choices": ["iron", "wood", "glass", "two"],
        "answer": number % 4,
        "subject": "anatomy" if number < 7 else "global_facts",
    }


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def ready(tmp_path: Path, make_run: MakeRun, trained: Path) -> Callable[..., Run]:
    """A run whose train and merge have finished, three small benchmarks and three texts."""
    data = tmp_path / "data"
    write_lines(data / "sums/test.jsonl", [arc_row(i) for i in range(9)])
    write_lines(data / "sums/train.jsonl", [arc_row(i) for i in range(20, 26)])
    write_lines(data / "mmlu/test.jsonl", [mmlu_row(i) for i in range(10)])
    write_lines(data / "mmlu/dev.jsonl", [mmlu_row(i) for i in range(10)])
    write_lines(data / "truthfulqa/validation.jsonl", [qa_row(i) for i in range(6)])
    texts = ["What is two plus three? The answer is 12.", "Which of these is a metal?", "A"]
    write_lines(data / "texts.jsonl", [{"text": text} for text in texts])

    def make(**settings: Any) -> Run:
        benchmarks = [
            {"id": "sums", "path": "data/sums", "shots": 2, "limit": 7},
            {"id": "mmlu", "path": "data/mmlu", "shots": 1},
            {"id": "truthfulqa", "path": "data/truthfulqa"},
            {"id": "gsm8k", "path": "data/gsm8k"},
        ]
        table = {"benchmarks": benchmarks, "texts": "data/texts.jsonl", "precision": "fp32"}
        run = make_run(
            decontaminate={"benchmarks": [{"id": "sums", "path": "data/sums"}]},
            evaluate={**table, "batch_tokens": 256, **settings},
        )
        leave(run, "train", "adapter", trained / "adapter")
        leave(run, "merge", "base", trained / "merged")
        return run

    return make


def leave(run: Run, stage: str, name: str, folder: Path) -> None:
    with run.stage(stage, {}) as work, work.file(name) as path:
        shutil.copytree(folder, path)


def check_for_leaks(run: Run, *verdicts: tuple[int, str], split: str = "test") -> None:
    """Leave what decontaminate would: pairs with questions of `sums`, of which duplicates go."""
    ref = BenchmarkRef(id="sums", path="data/sums")
    asked = read_benchmark(benchmark_of(ref), "test", run.locate("data/sums"), None)
    pairs = [
        {"benchmark": "sums", "benchmark_id": asked[number].id, "verdict": verdict}
        for number, verdict in verdicts
    ]
    listed = sorted(pair["benchmark_id"] for pair in pairs if pair["verdict"] == "duplicate")
    data = run.dataset_digest("data/sums", "", None)
    with run.stage("decontaminate", {"benchmarks/sums": data}) as work:
        work.table("pairs.parquet", pa.Table.from_pylist(pairs))
        leaks = {"benchmarks": [{"id": "sums", "split": split}]}
        work.json("leaks.json", {**leaks, "leaked_benchmark_ids": {"sums": listed}})


def scores_of(run: Run) -> Any:
    return json.loads(run.output("evaluate", "scores.json").read_text(encoding="utf-8"))


def test_every_model_is_scored_on_every_benchmark(ready: Callable[..., Run]) -> None:
    run = ready()
    evaluate.execute(run)
    scores = scores_of(run)
    benchmarks = ["sums", "mmlu", "truthfulqa", "mean"]
    models = ["base", "adapter", "merged-base"]
    found = [(row["model"], row["benchmark"]) for row in scores["scores"]]
    assert found == [(model, benchmark) for model in models for benchmark in benchmarks]
    assert {(row["model"], row["benchmark"]) for row in scores["deltas"]} == {
        (model, benchmark) for model in models[1:] for benchmark in benchmarks
    }
    assert [row["metric"] for row in scores["scores"][:4]] == ["acc_norm", "acc", "mc2", "mean"]
    assert "| merged-base |" in run.output("evaluate", "scores.md").read_text(encoding="utf-8")
    assert ">anatomy</text>" in run.output("evaluate", "heatmap.svg").read_text(encoding="utf-8")
    assert not (run.folder / "evaluate/parts").exists()


def test_base_and_adapter_share_one_load(
    ready: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ready()
    loaded = count_loads(monkeypatch)
    evaluate.execute(run)
    assert loaded == [run.locate(run.recipe.train.base.model), run.output("merge", "base")]
    scoring = {"base": "shared", "adapter": "shared", "merged-base": "shared"}
    assert run.record("evaluate")["facts"]["scoring"] == scoring


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are loaded from here on."""
    loaded: list[Path] = []
    load = pieces.load_scorer

    def counted(folder: Path, **kwargs: Any) -> Any:
        loaded.append(folder)
        return load(folder, **kwargs)

    monkeypatch.setattr(pieces, "load_scorer", counted)
    return loaded


def test_questions_over_the_limit_are_counted_as_dropped(ready: Callable[..., Run]) -> None:
    run = ready()
    evaluate.execute(run)
    counts = run.record("evaluate")["counts"]
    assert counts["by_source"]["sums"] == {"read": 9, "kept": 7, "dropped": 2}
    assert (counts["read"], counts["by_reason"]) == (25, {"limit": 2})
    assert run.is_current("evaluate", evaluate.inputs(run))


def test_scores_follow_from_the_records_alone(ready: Callable[..., Run]) -> None:
    run = ready(texts=None)
    evaluate.execute(run)
    items = read_table(run.output("evaluate", "items.parquet"))
    assert evaluate.summarise(items, {}, run.recipe.seed) == scores_of(run)
    rows = [r for r in items.to_pylist() if (r["model"], r["benchmark"]) == ("base", "sums")]
    assert len(rows) == 7
    right = 0
    for row in rows:
        by_character = [x / n for x, n in zip(row["log_likelihoods"], row["lengths"], strict=True)]
        right += row["labels"][by_character.index(max(by_character))]
    (score,) = [
        s for s in scores_of(run)["scores"] if (s["model"], s["benchmark"]) == ("base", "sums")
    ]
    assert score["score"] == pytest.approx(100 * right / 7)


def test_the_adapter_scores_as_the_model_it_is_merged_into(ready: Callable[..., Run]) -> None:
    run = ready()
    evaluate.execute(run)
    rows = read_table(run.output("evaluate", "items.parquet")).to_pylist()
    base, adapter, merged = (
        [x for row in rows if row["model"] == model for x in row["log_likelihoods"]]
        for model in ("base", "adapter", "merged-base")
    )
    assert adapter == pytest.approx(merged, abs=1e-3)
    assert adapter != pytest.approx(base, abs=0.1)
    first, second, third = scores_of(run)["perplexity"]
    assert (first["delta_log_loss"], second["num_tokens"]) == (None, first["num_tokens"])
    assert second["delta_log_loss"] == pytest.approx(third["delta_log_loss"], abs=1e-4)
    difference = second["log_loss"] - first["log_loss"]
    assert second["delta_log_loss"] == pytest.approx(difference)


def test_the_clean_subset_is_what_decontaminate_did_not_list(ready: Callable[..., Run]) -> None:
    """Nine sums of which seven are scored: one leaked, one gray, one only similar."""
    run = ready(texts=None)
    verdicts = [(0, "gray_area"), (1, "similar_but_different"), (2, "duplicate")]
    check_for_leaks(run, *verdicts, (2, "gray_area"), (3, "gray_area"))
    evaluate.execute(run)
    rows = {row["benchmark"]: row for row in scores_of(run)["scores"] if row["model"] == "base"}
    asked = read_benchmark(
        benchmark_of(BenchmarkRef(id="sums", path="x")), "test", run.locate("data/sums"), None
    )
    items = read_table(run.output("evaluate", "items.parquet")).to_pylist()
    scored = {i["question_id"]: i["score"] for i in items if i["model"] == "base"}
    clean = [s for id_, s in scored.items() if id_ in {q.id for q in asked} - {asked[2].id}]
    assert rows["sums"]["clean"]["num_questions"] == len(clean) == 6
    assert rows["sums"]["clean"]["score"] == pytest.approx(100 * sum(clean) / len(clean))
    exposed = {level: part["num_questions"] for level, part in rows["sums"]["by_exposure"].items()}
    gray = sum(asked[number].id in scored for number in (0, 3))
    assert (exposed["gray"], exposed["leaked"]) == (gray, 1)  # the gravest of a question's pairs
    assert sum(exposed.values()) == 7
    assert "clean" not in rows["mmlu"]  # decontaminate did not check it
    deltas = {row["benchmark"]: row for row in scores_of(run)["deltas"]}
    assert deltas["sums"]["clean"]["num_questions"] == len(clean)
    assert "clean" not in deltas["mmlu"]
    assert "# Scores by exposure" in run.output("evaluate", "scores.md").read_text(encoding="utf-8")


def test_other_verdicts_make_other_scores_from_the_same_records(
    ready: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model is asked again, and the files are those of an evaluation from the start."""
    run = ready()
    check_for_leaks(run, (1, "duplicate"))
    evaluate.execute(run)
    before = run.record("evaluate")
    check_for_leaks(run, (1, "duplicate"), (2, "similar_but_different"))
    assert run.is_current("evaluate", evaluate.inputs(run))
    check_for_leaks(run, (1, "gray_area"))
    assert not run.is_current("evaluate", evaluate.inputs(run))
    with monkeypatch.context() as patch:
        patch.setattr(pieces, "load_scorer", _interrupt)
        evaluate.execute(run)
        assert run.is_current("evaluate", evaluate.inputs(run))
        with pytest.raises(KeyboardInterrupt):  # forced, with nothing changed: from the start
            evaluate.execute(run)
    again = run.record("evaluate")
    assert (again["counts"], again["facts"]) == (before["counts"], before["facts"])
    names = ("items.parquet", "scores.json", "scores.md", "heatmap.svg")
    files = {name: sha256(run.output("evaluate", name)) for name in names}
    shutil.rmtree(run.folder / "evaluate")
    evaluate.execute(run)
    assert {name: sha256(run.output("evaluate", name)) for name in names} == files


def test_leaks_of_another_split_say_nothing(ready: Callable[..., Run]) -> None:
    run = ready(texts=None)
    check_for_leaks(run, (1, "duplicate"), split="train")
    evaluate.execute(run)
    assert all("clean" not in row for row in scores_of(run)["scores"])


def test_perplexity_is_that_of_transformers_loss(
    ready: Callable[..., Run], tiny_model: Path
) -> None:
    run = ready()
    evaluate.execute(run)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    loss = num_tokens = 0
    for line in run.locate("data/texts.jsonl").read_text(encoding="utf-8").splitlines():
        ids = torch.tensor([tokenizer(json.loads(line)["text"])["input_ids"]])
        num = ids.shape[1] - 1
        with torch.no_grad():
            loss += num * model(ids, labels=ids).loss.item()
        num_tokens += num
    (row, *_) = scores_of(run)["perplexity"]
    assert row["num_tokens"] == num_tokens
    assert row["perplexity"] == pytest.approx(math.exp(loss / num_tokens), rel=1e-4)


KILLED = """
import os, signal, sys
from pathlib import Path
from monotreme import evaluate
from monotreme.run import open_run
from monotreme.scoring import pieces

load, loaded = pieces.load_scorer, []

def load_then_die(*args, **kwargs):
    loaded.append(args)
    if len(loaded) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return load(*args, **kwargs)

pieces.load_scorer = load_then_die
run = open_run(Path(sys.argv[1]))
with run.open():
    evaluate.execute(run)
"""


def test_killed_and_resumed_equals_uninterrupted(
    ready: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process dies before the merged model; the next one loads only that and ends the same."""
    run = ready()
    with run.open():
        evaluate.execute(run)
    folder = run.folder / "evaluate"
    names = ("items.parquet", "scores.json", "scores.md")
    whole = {name: sha256(folder / name) for name in names}
    facts = run.record("evaluate")["facts"]
    shutil.rmtree(folder)

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(run.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (folder / "record.json").exists()
    assert len(list((folder / "parts").glob("*.parquet"))) == 8

    loaded = count_loads(monkeypatch)
    evaluate.execute(run)
    assert loaded == [run.output("merge", "base")]
    assert run.record("evaluate")["facts"] == facts
    assert {name: sha256(folder / name) for name in names} == whole


def test_parts_of_another_adapter_are_not_taken(
    ready: Callable[..., Run], trained: Path, tmp_path: Path
) -> None:
    """An evaluation fails at its third model; before the next one the adapter is trained anew."""
    run = ready(texts=None)
    leave(run, "merge", "base", trained / "adapter")  # not a model
    with pytest.raises(InputError, match="cannot be loaded"):
        evaluate.execute(run)
    assert len(list((run.folder / "evaluate/parts").glob("adapter-sums-*"))) == 1

    changed = tmp_path / "changed"
    shutil.copytree(trained / "adapter", changed)
    weights = changed / "adapter_model.safetensors"
    save_file({name: -2 * tensor for name, tensor in load_file(weights).items()}, weights)
    leave(run, "train", "adapter", changed)
    leave(run, "merge", "base", trained / "merged")
    evaluate.execute(run)
    resumed = sha256(run.output("evaluate", "items.parquet"))

    shutil.rmtree(run.folder / "evaluate")
    evaluate.execute(run)
    assert sha256(run.output("evaluate", "items.parquet")) == resumed


def test_a_delta_between_different_prompts_is_refused(ready: Callable[..., Run]) -> None:
    few = ready(texts=None)
    evaluate.execute(few)
    items = read_table(few.output("evaluate", "items.parquet"))
    base = items.filter([m == "base" for m in items["model"].to_pylist()])
    benchmarks = [{"id": "mmlu", "path": "data/mmlu", "shots": 2}]
    many = ready(texts=None, benchmarks=benchmarks)
    evaluate.execute(many)
    others = read_table(many.output("evaluate", "items.parquet"))
    others = others.filter([m == "adapter" for m in others["model"].to_pylist()])
    with pytest.raises(MismatchError, match="mmlu: adapter"):
        evaluate.summarise(pa.concat_tables([base, others]), {}, 0)


@pytest.mark.parametrize(
    ("line", "problem"),
    [('{"words": "a"}', "line 2 has no `text`"), ('{"text": ', "line 2 is not JSON")],
)
def test_bad_texts_are_one_clear_error(ready: Callable[..., Run], line: str, problem: str) -> None:
    run = ready()
    run.locate("data/texts.jsonl").write_text('{"text": "a"}\n' + line, encoding="utf-8")
    with pytest.raises(InputError, match=problem):
        evaluate.execute(run)


def test_texts_without_a_character_are_refused(ready: Callable[..., Run]) -> None:
    run = ready()
    run.locate("data/texts.jsonl").write_text('{"text": ""}\n', encoding="utf-8")
    with pytest.raises(InputError, match="holds 0 texts"):
        evaluate.execute(run)


def test_benchmarks_without_a_metric_are_no_evaluation(ready: Callable[..., Run]) -> None:
    run = ready(benchmarks=["gsm8k"])
    with pytest.raises(RecipeError, match=r"\(gsm8k\) has a metric"):
        evaluate.execute(run)


def test_an_adapter_in_a_pickle_is_refused(
    ready: Callable[..., Run], trained: Path, tmp_path: Path
) -> None:
    run = ready()
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(trained / "adapter/adapter_config.json", pickled)
    torch.save({}, pickled / "adapter_model.bin")
    leave(run, "train", "adapter", pickled)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        evaluate.execute(run)


def test_an_adapter_of_another_model_is_refused(
    ready: Callable[..., Run], trained: Path, tmp_path: Path
) -> None:
    """PEFT alone would go on with random weights where the adapter has none."""
    run = ready()
    partial = tmp_path / "partial"
    shutil.copytree(trained / "adapter", partial)
    weights = partial / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: t for name, t in tensors.items() if "layers.1." not in name}, weights)
    leave(run, "train", "adapter", partial)
    with pytest.raises(InputError, match="missing adapter keys"):
        evaluate.execute(run)


def test_mended_labels_are_scored_anew(ready: Callable[..., Run]) -> None:
    """What a killed evaluation left counts only for the very same questions and answers."""
    run = ready(benchmarks=[{"id": "sums", "path": "data/sums"}])
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "summarise", _interrupt)
        evaluate.execute(run)
    path = run.locate("data/sums/test.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    for row in rows:
        labels = row["choices"]["label"]
        row["answerKey"] = next(label for label in labels if label != row["answerKey"])
    write_lines(path, rows)
    evaluate.execute(run)
    items = pq.read_table(run.output("evaluate", "items.parquet")).to_pylist()
    right = [row["choices"]["label"].index(row["answerKey"]) for row in rows]
    for item in items:
        assert item["labels"].index(1) in right
    by_base = [i["labels"].index(1) for i in items if i["model"] == "base"]
    assert sorted(by_base) == sorted(right)


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
