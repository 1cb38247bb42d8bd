"""Laws of a shared base: it trains what whole bases train, and each rank holds a part of it alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_parallel import outcome, prepared
from tiny_training import fresh_model
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from monotreme import train
from monotreme.errors import InputError, RecipeError
from monotreme.run import Run
from monotreme.train import parallel, plan, sharding
from monotreme.train.sharding import check_shareable, share_base


def both(make_run: Callable[..., Run], **more: Any) -> tuple[Run, Run]:
    """Two ranks with whole bases, and two that share one."""
    runs = []
    for name in ("auto", "always"):
        run = replace(prepared(make_run, name, shard=name, **more), num_gpus=2)
        train.execute(run)
        runs.append(run)
    return runs[0], runs[1]


@pytest.mark.slow
def test_a_shared_base_trains_the_same_bytes(make_run: Callable[..., Run]) -> None:
    """Rows of 80 tokens: the ranks have different numbers of them; the last step leaves a rank idle."""
    whole, shared = both(make_run, max_length=80, validation=0.1)
    (weights, lines), (others, other_lines) = outcome(whole), outcome(shared)
    assert [line["loss"] for line in other_lines] == [line["loss"] for line in lines]
    assert lines[-1]["num_tokens"] < 80 < lines[0]["num_tokens"] / 2
    assert other_lines[-1]["validation_loss"] == lines[-1]["validation_loss"]
    assert all(torch.equal(others[name], weight) for name, weight in weights.items())
    assert shared.record("train")["facts"]["shares_base"]
    assert not whole.record("train")["facts"]["shares_base"]


def test_it_is_shared_where_it_does_not_fit(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank alone is refused before anything is loaded; several share."""
    run = prepared(make_run, "small")
    _, size, _ = train._base(run)
    too_little = int(plan.needed_bytes(size, "fp32")) - 1
    monkeypatch.setattr(train, "memory_bytes", lambda: too_little)
    monkeypatch.setattr(train, "load_base", lambda *_: pytest.fail("the base is being loaded"))
    with pytest.raises(InputError, match=r"needs .* GiB on each device"):
        train.execute(run)
    team = parallel.Team(0, 2)
    monkeypatch.setattr(team, "any", lambda mine, _device: mine)
    assert train._is_shared(run, size, team, torch.device("cpu"))
    plan.check_memory(size, "fp32", too_little, 2, True)


def test_blocks_are_cut_and_the_rest_is_whole(tiny_model: Path, tmp_path: Path) -> None:
    dist.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = fresh_model(tiny_model)
        share_base(model)
        whole = [n for n, p in model.named_parameters() if not isinstance(p, DTensor)]
        assert whole
        assert all(
            "lora_" in n or "embed" in n or "lm_head" in n or n.endswith("model.norm.weight")
            for n in whole
        )
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("precision", ["fp8", "nf4"])
def test_few_bits_are_not_cut(precision: Any) -> None:
    with pytest.raises(InputError, match=f"{precision} cannot be shared"):
        check_shareable(precision)
    for dense in sharding.SHAREABLE:
        check_shareable(dense)  # type: ignore[arg-type]


def test_a_word_that_is_no_way_to_share_is_refused(make_run: Callable[..., Run]) -> None:
    with pytest.raises(RecipeError, match="shard"):
        make_run(train={"shard": "sometimes"})
