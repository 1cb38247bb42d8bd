"""What is foretold of a merge is what the dense deltas say, and what the merge then does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from merging import DTYPES, cast, merged, weights, write_adapter
from torch import Tensor

from monotreme.errors import RefusedError
from monotreme.merge import read_adapter, read_target
from monotreme.merge.asked import Asked, check
from monotreme.merge.change import Factors
from monotreme.merge.differences import differences
from monotreme.merge.preview import (
    cosine,
    delta_norm,
    needs,
    preview_of,
    sampled_rows,
    sign_conflicts,
    unchanged_share,
)
from monotreme.recipe import IntoRef


def drawn(rank: int, seed: int, outputs: int = 40, inputs: int = 24) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, inputs, generator=generator)
    return Factors(a, torch.randn(outputs, rank, generator=generator), 0.5 + seed)


def dense(factors: Factors) -> Tensor:
    return factors.scale * (factors.b.double() @ factors.a.double())


def test_norm_and_cosine_are_those_of_the_dense_deltas() -> None:
    first, second = [drawn(4, 0), drawn(7, 1)], [drawn(3, 2), drawn(7, 3)]
    for factors in first:
        assert delta_norm(factors) == pytest.approx(float(dense(factors).norm()))
    flat = [torch.cat([dense(f).flatten() for f in side]) for side in (first, second)]
    expected = float(flat[0] @ flat[1] / flat[0].norm() / flat[1].norm())
    assert cosine(list(zip(first, second, strict=True))) == pytest.approx(expected)
    assert cosine([(f, f) for f in first]) == pytest.approx(1)
    assert cosine([(first[0], Factors(first[0].a, 0 * first[0].b, 1))]) == 0


def test_sign_conflicts_of_few_rows_are_counted_and_of_many_sampled() -> None:
    first, second = drawn(4, 0), drawn(3, 1)
    expected = float((dense(first).sign() * dense(second).sign() < 0).double().mean())
    assert sign_conflicts(first, second, (40, 24)) == expected
    assert sign_conflicts(first, first, (40, 24)) == 0
    assert sign_conflicts(first, Factors(first.a, -first.b, 1), (40, 24)) == 1
    many = [drawn(4, seed, 5000, 50) for seed in (0, 1)]
    expected = float((dense(many[0]).sign() * dense(many[1]).sign() < 0).double().mean())
    assert sign_conflicts(*many, (5000, 50)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("num", [1, 63, 64, 65, 100, 10_000])
def test_samples_are_rows_of_the_weight_each_once(num: int) -> None:
    rows = [row for start, stop in sampled_rows(num) for row in range(start, stop)]
    assert len(rows) == len(set(rows)) == min(num, 64)
    assert (min(rows), max(rows)) == (0, num - 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}], ids=["plain", "dora"])
def test_the_unchanged_share_is_what_the_merge_leaves(
    tmp_path: Path, tiny_model: Path, dtype: str, settings: dict[str, bool]
) -> None:
    target = cast(tiny_model, tmp_path / "target", DTYPES[dtype])
    source = write_adapter(tmp_path / "lora", target, lora_alpha=0.5, **settings)
    foretold = unchanged_share(read_target(target), read_adapter(source))
    before, after = weights(target), weights(merged(target, source, tmp_path / "merged"))
    same = [before[name] == after[name] for name in read_adapter(source)]
    # the weights have at most 64 rows, so all of them are in the sample
    assert foretold == sum(int(s.sum()) for s in same) / sum(s.numel() for s in same)


def test_the_bytes_needed_are_those_of_the_tensors(tmp_path: Path, tiny_model: Path) -> None:
    found = needs(read_target(tiny_model), tmp_path)
    assert found.num_bytes == sum(tensor.nbytes for tensor in weights(tiny_model).values())
    assert found.free_bytes > 0 < found.seconds


def test_what_decides_how_a_model_is_used_is_compared(tmp_path: Path, tiny_model: Path) -> None:
    base = read_target(tiny_model)
    assert differences(base, base) == {}
    other = write_model(tmp_path / "other", vocab_size=400, seed=7)
    edited = json.loads((other / "tokenizer_config.json").read_text())
    edited |= {"eos_token": {"content": "<end>"}, "chat_template": "{{ messages }}"}
    (other / "tokenizer_config.json").write_text(json.dumps(edited))
    assert differences(read_target(other), base) == {
        "vocab_size": (384, 400),
        "eos_token": ("</s>", "<end>"),
        "chat_template": ("absent", "{{ messages }}"),
    }
    shutil.copy(tiny_model / "tokenizer_config.json", other)
    (other / "chat_template.jinja").write_text("other")
    found = differences(read_target(other), base)
    assert found["chat_template"] == ("absent", "other")
    assert "eos_token" not in found


def test_a_card_that_is_no_utf_8_is_no_reason_to_stop(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    (other / "README.md").write_bytes("---\nlicense: mit\n---\nun café".encode("latin-1"))
    (other / "chat_template.jinja").write_bytes(b"caf\xe9")
    found = differences(read_target(other), read_target(tiny_model))
    assert found == {"license": ("absent", "mit"), "chat_template": ("absent", r"caf\xe9")}


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_what_is_no_delta_is_refused_before_anything_is_written(
    tiny_model: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    """With a weight, or beside an adapter that leaves that layer alone."""
    odd = write_adapter(tmp_path / "odd", tiny_model, **kind)
    other = write_adapter(tmp_path / "other", tiny_model, target_modules=["q_proj"])
    base = read_target(tiny_model)
    for adapters in [((odd, 0.5),), ((odd, 1.0), (other, 1.0))]:
        asked = Asked(IntoRef(id="x"), base, adapters, False)
        for refuse in (check, lambda asked, base: preview_of(asked, base, tmp_path)):
            with pytest.raises(RefusedError, match="more than a delta"):
                refuse(asked, base)
    check(Asked(IntoRef(id="x"), base, ((odd, 1.0),), False), base)
