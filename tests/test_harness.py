"""Tasks of lm-evaluation-harness through our scorer: its own model class is the referee."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_model

from monotreme.errors import InputError, RecipeError
from monotreme.evaluate import harness
from monotreme.recipe import Evaluate
from monotreme.scoring.scorer import Scorer, load_scorer

installed = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not installed, reason="lm-eval is not installed (extra eval)")
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own dependencies are old

SETTINGS = Evaluate(precision="fp32", batch_tokens=2048)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("harness") / "tiny")


@pytest.fixture(scope="module")
def scorer(model: Path) -> Scorer:
    return load_scorer(model, precision="fp32", batch_tokens=2048, trust_remote_code=False)


@pytest.fixture(scope="module")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks of the harness's kinds over a local file: choices, a text, an answer to write."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"q": f"What is {i} plus {i}?", "a": ["one", "two", str(2 * i)], "gold": 2, "text": f"{i} and {i} are {2 * i}."} for i in range(6)]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}, "test_split": "test"}  # fmt: skip
    kinds: dict[str, dict[str, Any]] = {
        "tiny_choice": {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "a", "doc_to_target": "gold"},
        "tiny_text": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}", "metric_list": [{"metric": "word_perplexity"}]},
        "tiny_answer": {"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a[2]}}", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "temperature": 0}, "metric_list": [{"metric": "exact_match"}]},
    }  # fmt: skip
    for name, own in kinds.items():
        text = yaml.safe_dump({"task": name, **common, **own, "metadata": {"version": 1}})
        (folder / f"{name}.yaml").write_text(text)
    return folder


@needs_harness
def test_every_kind_of_task_says_what_the_harnesss_own_model_says(
    model: Path, task_files: Path, tmp_path: Path
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks = ["tiny_choice", "tiny_text", "tiny_answer"]
    ours = harness.evaluate_model(str(model), None, tasks, SETTINGS, tmp_path / "out", limit=5, data=task_files)  # fmt: skip
    theirs = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32", "device": "cpu"},
        tasks=tasks,
        limit=5,
        bootstrap_iters=0,
        log_samples=True,
        task_manager=TaskManager(include_path=str(task_files)),
    )
    for task in tasks:
        for own, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            assert own["doc_hash"] == other["doc_hash"]
            assert own["prompt_hash"] == other["prompt_hash"]
        for key, value in theirs["results"][task].items():
            if isinstance(value, float):
                assert ours["results"][task][key] == pytest.approx(value, rel=1e-4), key
    choices = [(a["filtered_resps"], b["filtered_resps"]) for a, b in zip(ours["samples"]["tiny_choice"], theirs["samples"]["tiny_choice"], strict=True)]  # fmt: skip
    for own, other in choices:
        assert [flag for _, flag in own] == [flag for _, flag in other]
        assert [nats for nats, _ in own] == pytest.approx([nats for nats, _ in other], abs=1e-4)
    written = json.loads((tmp_path / "out/harness.json").read_text())
    assert written["results"] == json.loads(json.dumps(ours["results"], default=str))
    assert len((tmp_path / "out/harness.jsonl").read_text().splitlines()) == 15
    assert any(line.startswith("tiny_choice") for line in harness.lines(ours))


@needs_harness
def test_a_task_that_is_not_known_is_one_line(scorer: Scorer) -> None:
    with pytest.raises(InputError, match="no task 'nothing_like_it'"):
        harness.run_tasks(scorer, ["nothing_like_it"], None, None)


def test_an_empty_context_is_the_token_that_texts_begin_with(scorer: Scorer) -> None:
    """As the harness does it; the others stay in their places."""
    pairs = [("Two and two", " are four"), ("", "Two and two"), ("Two", " and two")]
    found = harness.likelihoods(scorer, pairs)
    alone = [harness.likelihoods(scorer, [pair])[0] for pair in pairs]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in alone], abs=1e-5)
    loss, _ = scorer.texts(["Two and two"], "texts")[0]
    assert found[1][0] == pytest.approx(
        -loss, abs=1e-5
    )  # the tokenizer puts that token there itself


def test_an_answer_ends_before_what_ends_it(scorer: Scorer) -> None:
    whole = harness.answer(scorer, "What is 2 plus 2?", {"until": [], "max_gen_toks": 12})
    assert whole
    stop = whole[len(whole) // 2]
    cut = harness.answer(scorer, "What is 2 plus 2?", {"until": [stop], "max_gen_toks": 12})
    assert cut == whole[: whole.find(stop)]
    none = harness.answer(scorer, "What is 2 plus 2?", {"until": [""], "max_gen_toks": 12})
    assert none == whole  # as the harness has it: an empty text ends nothing


def test_an_answer_that_leaves_no_room_for_its_question_is_refused(scorer: Scorer) -> None:
    with pytest.raises(InputError, match=r"answers of 512 tokens, the model reads 512 in all"):
        harness.answer(scorer, "What is 2 plus 2?", {"max_gen_toks": scorer.max_length})


def test_ours_and_theirs_are_not_mixed() -> None:
    assert harness.names("lm-eval:a, lm-eval:b") == ["a", "b"]
    assert harness.names("arc_challenge,mmlu") == []
    with pytest.raises(RecipeError, match="two commands"):
        harness.names("arc_challenge,lm-eval:a")


def test_without_the_harness_it_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"monotreme\[eval\]"):
        harness.evaluate_model(str(model), None, ["x"], SETTINGS, tmp_path, limit=1, data=None)
