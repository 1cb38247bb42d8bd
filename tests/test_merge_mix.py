"""Methods that take weights whole: what the stage writes is what the pure functions say."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from merging import leave_adapter, load, weights, write_adapter

from monotreme import merge
from monotreme.errors import MismatchError, RecipeError, RefusedError
from monotreme.merge.combine import dare, slerp, ties
from monotreme.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def ready(make_run: Callable[..., Run], tiny_model: Path, tmp_path: Path) -> Callable[..., Run]:
    """A run with a trained adapter; beside it are another adapter and a fine-tuned model."""
    own = write_adapter(tmp_path / "own", tiny_model, seed=1)
    write_adapter(tmp_path / "other", tiny_model, seed=2)
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_model, tuned)
    model = load(tiny_model)
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape)
    model.save_pretrained(tuned)

    def make(**into: Any) -> Run:
        run = make_run(merge={"into": [{"id": "mix", "model": "base", **into}]})
        leave_adapter(run, own)
        return run

    return make


def deltas(tmp_path: Path, tiny_model: Path) -> list[torch.Tensor]:
    """Of the two adapters and of the model, for one weight."""
    found = []
    for name in ("own", "other"):
        slot = merge.read_adapter(tmp_path / name)[NAME]
        found.append(slot.load(slot.shape).factors[0].delta(0, slot.shape[0]))
    return [*found, weights(tmp_path / "tuned")[NAME] - weights(tiny_model)[NAME]]


@pytest.mark.parametrize("method", ["ties", "dare", "dare_ties"])
def test_adapters_and_models_are_mixed_as_the_method_says(
    ready: Callable[..., Run], tmp_path: Path, tiny_model: Path, method: str
) -> None:
    run = ready(
        method=method,
        density=0.4,
        adapters=[{"path": str(tmp_path / "other"), "weight": 0.5}],
        models=[{"model": str(tmp_path / "tuned"), "weight": 2}],
    )
    merge.execute(run)
    before, after = weights(tiny_model)[NAME], weights(run.output("merge", "mix"))[NAME]
    own, other, tuned = deltas(tmp_path, tiny_model)
    parts, scales = [own, 0.5 * other, tuned], [1.0, 1.0, 2.0]
    if method != "ties":
        parts = [dare(d, 0.4, run.recipe.seed, f"{NAME}\0{i}") for i, d in enumerate(parts)]
    if method == "dare":
        wanted = sum(scale * part for scale, part in zip(scales, parts, strict=True))
    else:
        wanted = ties(parts, scales, 0.4 if method == "ties" else 1.0)
    torch.testing.assert_close(after, before + wanted, rtol=1e-6, atol=1e-7)
    proof = run.record("merge")["facts"]["mix"]["verify"]
    assert proof["perplexity_merged"] > 1


def test_a_whole_model_is_added_by_its_difference_in_every_weight(
    ready: Callable[..., Run], tmp_path: Path
) -> None:
    run = ready(weight=0, models=[{"model": str(tmp_path / "tuned")}])
    merge.execute(run)
    after, tuned = weights(run.output("merge", "mix")), weights(tmp_path / "tuned")
    for name, weight in tuned.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-6, atol=1e-7)


def test_slerp_goes_from_the_target_to_the_model(
    ready: Callable[..., Run], tmp_path: Path, tiny_model: Path
) -> None:
    run = ready(method="slerp", weight=0, share=0.25, models=[{"model": str(tmp_path / "tuned")}])
    merge.execute(run)
    before, tuned = weights(tiny_model), weights(tmp_path / "tuned")
    for name, weight in weights(run.output("merge", "mix")).items():
        assert torch.equal(weight, slerp(before[name], tuned[name], 0.25))


def test_the_same_seed_drops_the_same_whatever_else_is_merged(
    ready: Callable[..., Run], tmp_path: Path
) -> None:
    found = []
    for adapters in ([], [{"path": str(tmp_path / "other"), "weight": 0.0}]):
        run = ready(method="dare", adapters=adapters)
        merge.execute(run)
        found.append(weights(run.output("merge", "mix"))[NAME])
    assert torch.equal(*found)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_models_of_another_shape_are_refused(ready: Callable[..., Run], tmp_path: Path) -> None:
    wide = write_model(tmp_path / "wide", intermediate_size=80)
    with pytest.raises(MismatchError, match=r"has model\.layers\.0\.mlp"):
        merge.execute(ready(method="ties", models=[{"model": str(wide)}]))


def test_an_adapter_that_is_no_delta_is_refused(
    ready: Callable[..., Run], tiny_model: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "dora", tiny_model, use_dora=True)
    with pytest.raises(RefusedError, match="by more than a delta"):
        merge.execute(ready(method="ties", adapters=[{"path": str(tmp_path / "dora")}]))


@pytest.mark.parametrize(
    ("into", "said"),
    [
        ({"method": "slerp"}, "slerp is between two models"),
        ({"weight": 0}, "every weight is 0"),
        ({"method": "ties", "density": 0}, "density"),
        ({"method": "magic"}, "method"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_recipe(
    ready: Callable[..., Run], into: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        ready(**into)


def test_only_sums_of_adapters_are_candidates(make_run: Callable[..., Run]) -> None:
    table = {
        "candidates": [{"id": "mix", "model": "base", "method": "ties"}],
        "select": [{"id": "pocket", "path": "pocket:validation.jsonl"}],
    }
    with pytest.raises(RecipeError, match="no sum of adapters"):
        make_run(merge=table)
