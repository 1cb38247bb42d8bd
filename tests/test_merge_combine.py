"""Several adapters or models into one: exact sums, agreed signs, seeds that know no order."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from merging import MLP, load, merged, weights, write_adapter
from torch import Tensor

from monotreme.errors import MismatchError, RefusedError
from monotreme.merge import read_adapter, read_target, write_merged
from monotreme.merge.change import Factors
from monotreme.merge.combine import (
    compressed,
    concatenated,
    dare,
    linear,
    mergekit_yaml,
    seed_of,
    slerp,
    task_arithmetic,
    ties,
)
from monotreme.merge.join import read_sum, write_joined


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"peft\.|torch\.")
        yield


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(rank: int, seed: int, scale: float = 1.5) -> Factors:
    return Factors(drawn(rank, 24, seed=seed), drawn(40, rank, seed=seed + 100), scale)


def exact(*factors: Factors) -> Tensor:
    return sum((f.scale * (f.b.double() @ f.a.double()) for f in factors), torch.zeros(40, 24))


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────


def test_concatenated_factors_are_the_sum_of_the_deltas() -> None:
    several = [pair(4, 0), pair(3, 1, -0.7), pair(5, 2)]
    joined = concatenated(several)
    assert joined.a.shape == (12, 24)
    assert torch.allclose(exact(joined), exact(*several), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 6, 8, 12])
def test_compressed_factors_are_the_nearest_of_their_rank(rank: int) -> None:
    joined = concatenated([pair(4, 0), pair(4, 1)])
    near, lost = compressed(joined, rank)
    values = torch.linalg.svdvals(exact(joined))
    error = (exact(near) - exact(joined)).norm()
    assert near.a.shape[0] == min(rank, 8)
    assert float(error) == pytest.approx(float(values[rank:].norm()), abs=1e-4)
    assert lost == pytest.approx(float((values[rank:] ** 2).sum() / (values**2).sum()), abs=1e-9)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("two")
    plain = {"target_modules": [*MLP, "q_proj"], "r": 4, "lora_alpha": 8}
    return [
        write_adapter(folder / "a", tiny_model, seed=1, **plain),
        write_adapter(folder / "b", tiny_model, seed=2, r=6, lora_alpha=9, use_rslora=True),
    ]


def expected_sum(base: Path, adapters: list[tuple[Path, float]]) -> dict[str, Tensor]:
    """The merged weights in float64."""
    found = {name: tensor.double() for name, tensor in weights(base).items()}
    for folder, weight in adapters:
        for name, slot in read_adapter(folder).items():
            (factors,) = slot.load(slot.shape).factors
            found[name] += weight * factors.scale * (factors.b.double() @ factors.a.double())
    return found


def test_several_adapters_are_added_to_one_model_exactly(
    tmp_path: Path, tiny_model: Path, two: list[Path]
) -> None:
    weighted = list(zip(two, (0.7, -0.4), strict=True))
    write_merged(read_target(tiny_model), read_sum(weighted), tmp_path)
    ours = weights(tmp_path)
    for name, tensor in expected_sum(tiny_model, weighted).items():
        assert torch.allclose(ours[name].double(), tensor, rtol=0, atol=2e-7), name


@pytest.mark.parametrize("rank", [None, 7])
def test_several_adapters_become_one_that_peft_reads(
    tmp_path: Path, tiny_model: Path, two: list[Path], rank: int | None
) -> None:
    weighted = list(zip(two, (0.7, -0.4), strict=True))
    lost = write_joined(weighted, tmp_path / "joined", rank)
    ours = weights(merged(tiny_model, tmp_path / "joined", tmp_path / "ours"))
    theirs = peft_merge(tiny_model, tmp_path / "joined")
    for name, tensor in expected_sum(tiny_model, weighted).items():
        assert torch.equal(ours[name], theirs[name])
        error = float((ours[name].double() - tensor).norm())
        size = float((tensor - weights(tiny_model)[name]).norm())
        assert error <= math.sqrt(lost.get(name, 0)) * size * 1.001 + 1e-5, name
    assert (max(lost.values()) > 0) == (rank is not None)


def peft_merge(base: Path, adapter: Path) -> dict[str, Tensor]:
    from peft import PeftModel

    found: dict[str, Tensor] = (
        PeftModel.from_pretrained(load(base), adapter).merge_and_unload().state_dict()
    )
    return found


def peft_combination(base: Path, adapters: list[Path], how: str) -> dict[str, Tensor]:
    """PEFT's merge of `add_weighted_adapter`, both adapters with weight 1."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(load(base), adapters[0], adapter_name="0")
    model.load_adapter(adapters[1], adapter_name="1")
    model.add_weighted_adapter(["0", "1"], [1.0, 1.0], "both", combination_type=how)
    model.set_adapter("both")
    found: dict[str, Tensor] = model.merge_and_unload().state_dict()
    return found


def error_of(found: dict[str, Tensor], base: Path, adapters: list[Path]) -> float:
    """Largest error of any weight, relative to the size of its exact change."""
    expected = expected_sum(base, [(adapter, 1.0) for adapter in adapters])
    before = weights(base)
    errors = []
    for name in read_adapter(adapters[0]):
        change = expected[name] - before[name]
        errors.append(float((found[name].double() - expected[name]).norm() / change.norm()))
    return max(errors)


def test_what_peft_calls_a_linear_combination_is_not_the_sum(
    tmp_path: Path, tiny_model: Path
) -> None:
    """It adds up the factors, so that every B also meets every other adapter's A."""
    adapters = [write_adapter(tmp_path / str(i), tiny_model, seed=i) for i in (1, 2)]
    assert error_of(peft_combination(tiny_model, adapters, "linear"), tiny_model, adapters) > 0.5
    assert error_of(peft_combination(tiny_model, adapters, "cat"), tiny_model, adapters) < 1e-4

    write_joined([(adapter, 1.0) for adapter in adapters], tmp_path / "joined")
    assert error_of(peft_merge(tiny_model, tmp_path / "joined"), tiny_model, adapters) < 1e-4


def test_pefts_concatenation_of_rslora_adapters_has_another_scale(
    tmp_path: Path, tiny_model: Path
) -> None:
    """The new adapter stays rsLoRA: alpha / √rank is √rank there, not 1."""
    adapters = [
        write_adapter(tmp_path / str(i), tiny_model, seed=i, use_rslora=True) for i in (1, 2)
    ]
    theirs = peft_combination(tiny_model, adapters, "cat")
    assert error_of(theirs, tiny_model, adapters) == pytest.approx(math.sqrt(32) - 1, rel=1e-3)

    write_joined([(adapter, 1.0) for adapter in adapters], tmp_path / "joined")
    assert error_of(peft_merge(tiny_model, tmp_path / "joined"), tiny_model, adapters) < 1e-4


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"use_dora": True}, RefusedError, "more than a delta"),
        ({"target_modules": ["lm_head"]}, RefusedError, "more than a delta"),
    ],
)
def test_what_is_no_delta_is_not_added(
    tmp_path: Path, tiny_model: Path, settings: Any, kind: type[Exception], says: str
) -> None:
    source = write_adapter(tmp_path / "lora", tiny_model, **settings)
    with pytest.raises(kind, match=says):
        read_sum([(source, 1.0), (source, 1.0)])
    with pytest.raises(kind, match=says):
        write_joined([(source, 1.0)], tmp_path / "joined")


def test_adapters_of_different_shapes_are_not_added(tmp_path: Path, tiny_model: Path) -> None:
    from conftest import write_model

    other = write_model(tmp_path / "other", intermediate_size=96)
    adapters = [
        write_adapter(tmp_path / str(i), base) for i, base in enumerate((tiny_model, other))
    ]
    with pytest.raises(MismatchError, match="two adapters change"):
        read_sum([(adapter, 1.0) for adapter in adapters])


# ── deltas and whole models ──────────────────────────────────────────────────────────────────────


def test_task_arithmetic_adds_up_and_rounds_once() -> None:
    base = drawn(9, 7).bfloat16()
    deltas = [drawn(9, 7, seed=i) * 0.01 for i in (1, 2, 3)]
    found = task_arithmetic(base, deltas, [1, -0.5, 2])
    total = deltas[0].double() - 0.5 * deltas[1].double() + 2 * deltas[2].double()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, (base.float() + total.float()).bfloat16())


def test_ties_by_hand() -> None:
    deltas = [torch.tensor([4.0, 1, -3, 2, 0]), torch.tensor([2.0, -5, -1, 0, 0])]
    # The two largest of each are (4, -3) and (2, -5); they agree on the first alone.
    assert ties(deltas, [1, 1], 0.4).tolist() == [3, -5, -3, 0, 0]
    assert ties(deltas, [1, 1], 1.0).tolist() == [3, -5, -2, 2, 0]
    assert ties(deltas, [3, 1], 1.0).tolist() == pytest.approx([3.5, -5, -2.5, 2, 0])


def test_ties_of_one_delta_only_trims_it() -> None:
    delta = drawn(30, 20)
    found = ties([delta], [1.0], 0.25)
    assert int((found != 0).sum()) == 150
    assert torch.equal(found[found != 0], delta[found != 0])
    assert delta[found == 0].abs().max() < found[found != 0].abs().min()


def test_dare_keeps_the_mean_and_knows_no_order() -> None:
    delta = torch.ones(400, 500)
    found = {name: dare(delta, 0.2, 42, name) for name in ("a", "b", "c")}
    again = {name: dare(delta, 0.2, 42, name) for name in ("c", "a", "b")}
    for name, tensor in found.items():
        assert set(tensor.unique().tolist()) == {0.0, 5.0}
        assert float(tensor.mean()) == pytest.approx(1, abs=5 * math.sqrt(4 / delta.numel()))
        assert torch.equal(tensor, again[name])
    assert not torch.equal(found["a"], found["b"])
    assert not torch.equal(found["a"], dare(delta, 0.2, 43, "a"))
    assert seed_of(42, "a") != seed_of(4, "2\0a")
    assert torch.equal(dare(delta, 1.0, 42, "a"), delta)


def test_a_linear_mix_is_the_weighted_mean() -> None:
    tensors = [drawn(5, 4, seed=i).half() for i in (1, 2)]
    found = linear(tensors, [1, 3])
    assert torch.equal(found, (0.25 * tensors[0].float() + 0.75 * tensors[1].float()).half())


def test_slerp_turns_from_one_weight_to_the_other() -> None:
    first, second = drawn(30, 20, seed=1), drawn(30, 20, seed=2)
    second *= first.norm() / second.norm()
    middle = slerp(first, second, 0.5)
    assert torch.allclose(slerp(first, second, 0), first)
    assert torch.allclose(slerp(first, second, 1), second)
    assert float(middle.norm()) == pytest.approx(float(first.norm()), rel=1e-6)  # a circle
    assert float((middle * first).sum()) == pytest.approx(float((middle * second).sum()), rel=1e-5)
    assert torch.allclose(slerp(first, 3 * first, 0.5), 2 * first)
    assert torch.allclose(slerp(first, 0 * first, 0.5), first / 2)


def test_mergekits_configuration_names_what_it_needs() -> None:
    text = mergekit_yaml(
        "della",
        [("org/a", {"weight": 0.5, "density": 0.3}), ("./b+./lora", {})],
        base="org/base",
        parameters={"normalize": True},
    )
    assert yaml.safe_load(text) == {
        "merge_method": "della",
        "base_model": "org/base",
        "dtype": "bfloat16",
        "models": [
            {"model": "org/a", "parameters": {"weight": 0.5, "density": 0.3}},
            {"model": "./b+./lora"},
        ],
        "parameters": {"normalize": True},
    }
