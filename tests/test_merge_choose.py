"""Choosing among candidates: by what is measured, level ones by simplicity, and only then is one made."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import finish, sums
from merging import leave_adapter, weights, write_adapter

from monotreme import evaluate, merge
from monotreme.errors import InputError, RecipeError, RefusedError
from monotreme.merge.asked import Asked
from monotreme.merge.choose import decide, overlap, simplicity
from monotreme.merge.target import Target
from monotreme.recipe import IntoRef
from monotreme.run import Run
from monotreme.scoring.results import Results
from monotreme.scoring.sheets import Candidate

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SELECT = [{"id": "pocket", "path": "pocket:validation.jsonl", "limit": 20}]
REPORTED = [{"id": "pocket", "path": "pocket:benchmark.jsonl", "limit": 20}]


def candidate(name: str, num_adapters: int = 1, weight: float = 1, model: str = "base") -> Asked:
    adapters = tuple((Path(f"adapter {i}"), weight) for i in range(num_adapters))
    return Asked(IntoRef(id=name, model=model), Target(Path(model), {}, {}), adapters, False)


def results(name: str, right: list[bool], subject: str = "") -> Results:
    num = len(right)
    ids = tuple(f"question {i}" for i in range(num))
    scores = np.array(right, np.float64)
    return Results(name, "bench", "acc", 0, scores, (subject,) * num, ids, ids)


def told(found: dict[str, list[bool]], candidates: list[Asked]) -> dict[str, Any]:
    rows = [results(name, right) for name, right in found.items()]
    return decide(rows, candidates, 0)


def test_the_best_is_chosen_where_the_others_are_surely_worse() -> None:
    simple, joined = candidate("simple"), candidate("joined", 2)
    found = {"base alone": [False] * 100, "simple": [True] * 20 + [False] * 80, "joined": [True] * 60 + [False] * 40}  # fmt: skip
    choice = told(found, [simple, joined])
    assert (choice["best"], choice["chosen"]) == ("joined", "joined")
    assert "no other candidate is level" in choice["reason"]
    rows = {row["id"]: row for row in choice["candidates"]}
    assert rows["joined"]["gain"]["delta"] == pytest.approx(60)
    assert rows["simple"]["against_best"]["delta"] == pytest.approx(-40)
    assert rows["joined"]["against_best"] is None


def test_of_level_candidates_the_simplest_is_chosen() -> None:
    """Two questions of a hundred are no evidence for a second adapter."""
    simple, joined = candidate("simple"), candidate("joined", 2)
    found = {"base alone": [False] * 100, "simple": [True] * 50 + [False] * 50, "joined": [True] * 52 + [False] * 48}  # fmt: skip
    for order in ([simple, joined], [joined, simple]):
        choice = told(found, order)
        assert (choice["best"], choice["chosen"]) == ("joined", "simple")
        assert "cannot be told from it, and simple is the simplest" in choice["reason"]


def test_of_equally_simple_level_candidates_the_better_is_chosen() -> None:
    one, other = candidate("one"), candidate("other")
    found = {"base alone": [False] * 100, "one": [True] * 50 + [False] * 50, "other": [True] * 52 + [False] * 48}  # fmt: skip
    for order in ([one, other], [other, one]):
        assert told(found, order)["chosen"] == "other"


def test_gains_are_told_by_subject_where_there_are_several() -> None:
    """A specialist gains in its own subject alone."""
    both = ("logic",) * 50 + ("science",) * 50
    rows = [
        replace(results("base alone", [False] * 100), subjects=both),
        replace(results("logician", [True] * 50 + [False] * 50), subjects=both),
    ]
    (row,) = decide(rows, [candidate("logician")], 0)["candidates"]
    gains = {domain: own["delta"] for domain, own in row["gain_by_domain"].items()}
    assert gains == pytest.approx({"bench": 50, "bench/logic": 100, "bench/science": 0})
    plain = [results("base alone", [False]), results("logician", [True])]
    (row,) = decide(plain, [candidate("logician")], 0)["candidates"]
    assert set(row["gain_by_domain"]) == {"bench"}


def test_targets_of_one_name_are_told_apart_and_one_target_has_one_name() -> None:
    """Two folders called `tuned`; and the base once as `base`, once by its path."""
    right, wrong = [True] * 100, [False] * 100
    first, second = candidate("a", model="one/tuned"), candidate("b", model="two/tuned")
    found = {"tuned alone": right, "tuned of b alone": wrong, "a": right, "b": right}
    gains = {row["id"]: row["gain"]["delta"] for row in told(found, [first, second])["candidates"]}
    assert gains == {"a": 0, "b": 100}
    named = replace(candidate("c", model="some/folder"), target=candidate("d").target)
    choice = told({"base alone": wrong, "d": right, "c": right}, [candidate("d"), named])
    assert [row["gain"]["delta"] for row in choice["candidates"]] == [100, 100]


def test_simple_is_fewer_adapters_then_the_base_then_whole_weights() -> None:
    order = [candidate("a"), candidate("b", weight=0.5), candidate("c", model="other"), candidate("d", 2)]  # fmt: skip
    assert sorted([*order[2:], *order[:2]], key=simplicity) == order


@pytest.fixture
def ready(make_run: Callable[..., Run], tiny_model: Path, tmp_path: Path) -> Callable[..., Run]:
    """A run with a trained adapter and a second one beside it; its candidates are those given."""
    own = write_adapter(tmp_path / "own", tiny_model, seed=1)
    write_adapter(tmp_path / "other", tiny_model, seed=2)

    def make(candidates: list[dict[str, Any]], **settings: Any) -> Run:
        table = {"candidates": candidates, "select": SELECT, **settings}
        run = make_run(merge=table, evaluate={"benchmarks": REPORTED, "precision": "fp32"})
        finish(run, "decontaminate", sums(6))
        leave_adapter(run, own)
        return run

    return make


def three(tmp_path: Path) -> list[dict[str, Any]]:
    other = {"path": str(tmp_path / "other"), "weight": 0.5}
    return [
        {"id": "whole", "model": "base"},
        {"id": "half", "model": "base", "weight": 0.5},
        {"id": "both", "model": "base", "weight": 0.5, "adapters": [other]},
    ]


def test_one_is_made_and_what_was_measured_of_it_is_what_it_says(
    ready: Callable[..., Run], tmp_path: Path
) -> None:
    run = ready(three(tmp_path))
    merge.execute(run)
    choice = json.loads(run.output("merge", "choice.json").read_text())
    chosen = choice["chosen"]
    made = {p.name for p in (run.folder / "merge").iterdir() if p.is_dir()}
    assert made == {chosen}
    assert list(run.merges()) == [chosen]
    counts = run.record("merge")["counts"]
    assert counts["by_reason"] == {"not_chosen": 2 * counts["kept"]}
    assert chosen in run.output("merge", "choice.md").read_text()

    items = pq.read_table(run.output("merge", "candidates.parquet")).to_pylist()
    assert {row["model"] for row in items} == {"base alone", "whole", "half", "both"}
    again = Candidate("again", run.output("merge", chosen), None, "", False)
    select = run.recipe.model_copy(
        update={
            "evaluate": run.recipe.evaluate.model_copy(
                update={"benchmarks": run.recipe.merge.select}
            )
        }
    )
    other = Run(run.folder.with_name("again"), select, run.recipe_folder)
    evaluate.score(other, {}, [again])
    written = pq.read_table(other.output("evaluate", "items.parquet")).to_pylist()
    measured = [row for row in items if row["model"] == chosen]
    assert [row["question_id"] for row in measured] == [row["question_id"] for row in written]
    for ours, theirs in zip(measured, written, strict=True):
        np.testing.assert_allclose(ours["log_likelihoods"], theirs["log_likelihoods"], atol=1e-3)


def test_evaluate_scores_the_chosen_one(ready: Callable[..., Run], tmp_path: Path) -> None:
    run = ready(three(tmp_path))
    merge.execute(run)
    evaluate.execute(run)
    scores = json.loads(run.output("evaluate", "scores.json").read_text())["scores"]
    models = {row["model"] for row in scores}
    assert models == {"base", "adapter", f"merged-{next(iter(run.merges()))}"}


def test_several_adapters_are_one_exact_sum(
    ready: Callable[..., Run], tiny_model: Path, tmp_path: Path
) -> None:
    """round(W + 0.5 · delta + 0.5 · delta'), in float32."""
    run = ready(three(tmp_path)[2:])
    merge.execute(run)
    before, after = weights(tiny_model), weights(run.output("merge", "both"))
    slots = [merge.read_adapter(folder, 0.5) for folder in (run.output("train", "adapter"), tmp_path / "other")]  # fmt: skip
    name = "model.layers.0.mlp.up_proj.weight"
    rows = before[name].shape[0]
    deltas = [one[name].load(one[name].shape).factors[0].delta(0, rows) for one in slots]
    assert (after[name] == before[name] + (deltas[0] + deltas[1])).all()


def test_overlap_is_the_share_with_a_neighbour(ready: Callable[..., Run], tmp_path: Path) -> None:
    known = tmp_path / "known.jsonl"
    mine = [{"instruction": q.instruction, "output": "x"} for q in sums(3)]
    mine.append({"instruction": "Who wrote the play about the prince of Denmark?", "output": "x"})
    known.write_text("".join(json.dumps(row) + "\n" for row in mine), encoding="utf-8")
    far = tmp_path / "far.jsonl"
    far.write_text(json.dumps(mine[-1]) + "\n", encoding="utf-8")
    other = str(tmp_path / "other")
    adapters = [{"path": other, "questions": str(path)} for path in (known, far)]
    run = ready([{"id": "x", "model": "base", "adapters": [*adapters, {"path": other}]}])
    found = overlap(run, merge.read_asked(run, run.recipe.merge.candidates[0]))
    assert len(found) == 2
    assert found[0] >= 0.5
    assert found[1] == 0
    known.write_text('{"x": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match="no row with an `instruction`"):
        overlap(run, merge.read_asked(run, run.recipe.merge.candidates[0]))


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_what_chooses_is_never_what_is_reported(make_run: Callable[..., Run]) -> None:
    table = {"candidates": [{"id": "a", "model": "base"}], "select": REPORTED}
    with pytest.raises(RecipeError, match=r"pocket is among evaluate\.benchmarks"):
        make_run(merge=table, evaluate={"benchmarks": REPORTED})


def test_candidates_without_measure_are_refused(make_run: Callable[..., Run]) -> None:
    with pytest.raises(RecipeError, match="go together"):
        make_run(merge={"candidates": [{"id": "a", "model": "base"}]})


@pytest.mark.parametrize("precision", ["fp8", "nf4"])
def test_an_adapter_of_a_base_in_few_bits_is_merged_only_if_accepted(
    make_run: Callable[..., Run], precision: str
) -> None:
    train = {"base_precision": precision}
    with pytest.raises(RecipeError, match=f"base in {precision}"):
        make_run(train=train)
    make_run(train=train, merge={"into": []})
    make_run(train=train, merge={"into": [{"id": "base", "accept": ["base_precision"]}]})


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("chat_template", "chat_template.jinja", "{{ messages }}"),
        ("license", "README.md", "---\nlicense: cc-by-nc-4.0\n---\n"),
    ],
)
def test_a_target_that_differs_is_refused_by_name_and_accepted_by_name(
    ready: Callable[..., Run], tiny_model: Path, tmp_path: Path, name: str, file: str, text: str
) -> None:
    base, other = tmp_path / "its base", tmp_path / "tuned"
    for folder in (base, other):
        shutil.copytree(tiny_model, folder)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    (other / file).write_text(text, encoding="utf-8")
    run = ready([{"id": "tuned", "model": str(other)}])
    train = run.recipe.train.model_copy(update={"base": run.recipe.train.base.model_copy(update={"model": str(base)})})  # fmt: skip
    run = Run(run.folder, run.recipe.model_copy(update={"train": train}), run.recipe_folder)
    with pytest.raises(RefusedError, match=f"merge tuned: {name} is"):
        merge.execute(run)
    (foretold,) = merge.preview(run)
    assert foretold["refused"] == [name]
    accepted = run.recipe.merge.candidates[0].model_copy(update={"accept": [name]})
    table = run.recipe.merge.model_copy(update={"candidates": [accepted]})
    run = Run(run.folder, run.recipe.model_copy(update={"merge": table}), run.recipe_folder)
    merge.execute(run)
    assert list(run.merges()) == ["tuned"]


def test_the_preview_writes_nothing_and_tells_of_every_candidate(
    ready: Callable[..., Run], tmp_path: Path
) -> None:
    run = ready(three(tmp_path))
    before = sorted(run.folder.rglob("*"))
    whole, half, both = merge.preview(run)
    assert sorted(run.folder.rglob("*")) == before
    assert half["adapters"][0]["norm"] == pytest.approx(whole["adapters"][0]["norm"] / 2, rel=1e-5)
    assert [pair.keys() for pair in both["pairs"]] == [
        {"first", "second", "cosine", "sign_conflicts"}
    ]
    assert (
        0.3 < both["pairs"][0]["sign_conflicts"] < 0.7
    )  # two random adapters know nothing of each other
    assert not whole["refused"]
    json.dumps([whole, half, both])
    merge.execute(run)
    (chosen,) = run.merges()
    (foretold,) = [each for each in (whole, half, both) if each["id"] == chosen]
    recorded = run.record("merge")["facts"][chosen]
    for key in ("adapters", "pairs", "differences"):
        assert recorded[key] == foretold[key]
