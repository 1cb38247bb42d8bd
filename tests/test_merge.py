"""The stage: what its record tells, and a target that does not fit is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from merging import DTYPES, leave_adapter, load, weights, write_adapter
from safetensors.torch import load_file, save_file

from monotreme import merge
from monotreme.errors import InputError, MismatchError, RefusedError
from monotreme.merge import read_adapter, tolerance
from monotreme.run import Run
from monotreme.storage import sha256

# PEFT 0.21 asks a model for a property whose name transformers 5.23 has changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "adapter", tiny_model)


@pytest.fixture
def after_training(make_run: Callable[..., Run], adapter: Path) -> Callable[..., Run]:
    """A run whose train stage has left an adapter."""

    def make(source: Path = adapter, **tables: Any) -> Run:
        run = make_run(**tables)
        leave_adapter(run, source)
        return run

    return make


def test_the_record_tells_what_the_merge_did(
    after_training: Callable[..., Run], tiny_model: Path
) -> None:
    run = after_training()
    merge.execute(run)

    record = run.record("merge")
    facts = record["facts"]["base"]
    before, after = weights(tiny_model), weights(run.output("merge", "base"))
    delta = sum(float((after[name] - before[name]).double().square().sum()) for name in before)
    adapted = read_adapter(run.output("train", "adapter"))
    whole = sum(float(before[name].double().square().sum()) for name in adapted)

    assert facts["num_adapted"] == 6  # three matrices in two layers
    assert facts["num_adapted"] + facts["num_copied"] == record["counts"]["kept"] == len(before)
    assert facts["dtypes"] == ["F32"]
    assert facts["delta_norm_ratio"] == pytest.approx((delta / whole) ** 0.5, rel=1e-4)
    assert 0 <= facts["unchanged_share"] < 0.01
    assert facts["verify"]["max_difference"] <= facts["verify"]["bound"] < facts["verify"]["effect"]
    assert merge.inputs(run) == record["inputs"]
    assert run.is_current("merge", merge.inputs(run))


def test_a_merge_of_a_sharded_tied_model_keeps_it_tied(
    tmp_path: Path, after_training: Callable[..., Run]
) -> None:
    base = write_model(tmp_path / "tied", tie_word_embeddings=True)
    load(base).save_pretrained(base, max_shard_size="40KB")
    (base / "model.safetensors").unlink()
    run = after_training(write_adapter(tmp_path / "lora", base), train={"base": str(base)})

    merge.execute(run)

    model = load(run.output("merge", "base"))
    assert "lm_head.weight" not in weights(run.output("merge", "base"))
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_the_same_run_again_leaves_the_same_bytes(after_training: Callable[..., Run]) -> None:
    run = after_training()
    merge.execute(run)
    first = sha256(run.output("merge", "base"))
    merge.execute(run)
    assert sha256(run.output("merge", "base")) == first


def test_a_merge_that_was_finished_before_a_kill_is_not_made_again(
    tmp_path: Path, after_training: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_model(tmp_path / "other", seed=5)
    run = after_training(merge={"into": ["base", {"id": "other", "model": str(other)}]})
    real = merge.write_merged
    calls: list[Path] = []

    def interrupted(target: Any, *rest: Any) -> Any:
        calls.append(target.folder)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(target, *rest)

    monkeypatch.setattr(merge, "write_merged", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge.execute(run)
    merge.execute(run)

    assert calls[1:] == [other, other]
    assert set(run.record("merge")["facts"]) == {"base", "other"}
    names = {path.name for path in (run.folder / "merge").iterdir()}
    assert names == {"base", "other", "record.json"}
    for name in names - {"record.json"}:
        path = run.output("merge", name) / "model.safetensors"
        entry = run.record("merge")["outputs"][f"{name}/model.safetensors"]
        assert entry["sha256"] == sha256(path)


def test_another_model_of_the_same_base_is_merged_and_its_tokenizer_copied(
    tmp_path: Path, after_training: Callable[..., Run]
) -> None:
    other = write_model(tmp_path / "other", seed=5)
    (other / "LICENSE.txt").write_text("terms")
    run = after_training(merge={"into": ["base", {"id": "other", "model": str(other)}]})

    merge.execute(run)

    folder = run.output("merge", "other")
    changed = [k for k, w in weights(folder).items() if not torch.equal(w, weights(other)[k])]
    assert sorted(changed) == sorted(read_adapter(run.output("train", "adapter")))
    names = ("config.json", "generation_config.json", "tokenizer.json", "LICENSE.txt")
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ({"vocab_size": 300}, "vocab_size 300"),
        ({"num_hidden_layers": 3}, "num_hidden_layers 3"),
        ({"intermediate_size": 96}, "intermediate_size 96"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta 500000"),
    ],
)
def test_a_model_of_another_shape_is_refused_by_name(
    tmp_path: Path, after_training: Callable[..., Run], shape: Any, named: str
) -> None:
    other = write_model(tmp_path / "other", **shape)
    run = after_training(merge={"into": ["base", {"id": "other", "model": str(other)}]})
    with pytest.raises(MismatchError, match=f"merge other: .*{named}"):
        merge.execute(run)
    assert not (run.folder / "merge").exists(), "a merge was written before all were checked"


def test_a_vocabulary_may_only_grow_and_only_where_that_can_be_seen(
    tmp_path: Path, after_training: Callable[..., Run]
) -> None:
    larger = write_model(tmp_path / "larger", vocab_size=400)
    run = after_training(merge={"into": [{"id": "larger", "model": str(larger)}]})
    merge.execute(run)
    assert weights(run.output("merge", "larger"))["lm_head.weight"].shape == (400, 32)
    (larger / "tokenizer.json").unlink()
    with pytest.raises(MismatchError, match="vocab_size 400"):
        merge.execute(run)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def rename_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["renamed"] = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors")


def swap_tokens(folder: Path) -> None:
    def swap(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit(folder / "tokenizer.json", swap)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def escape(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"w": "../x.safetensors"}}'
    )


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (rename_tensor, MismatchError, "lacks model.layers.1.mlp.up_proj.weight"),
        (swap_tokens, MismatchError, "token 'a' is number"),
        (only_pickle, InputError, "only pickle files such as pytorch_model.bin"),
        (cut_off, InputError, "not a whole safetensors file"),
        (escape, InputError, "points outside its folder"),
        (
            lambda f: edit(f / "config.json", lambda c: c.update(model_type="mistral")),
            MismatchError,
            "model_type mistral",
        ),
        (
            lambda f: edit(f / "config.json", lambda c: c.update(quantization_config={"bits": 4})),
            RefusedError,
            "quantised",
        ),
        (lambda f: (f / "config.json").write_text("[]"), InputError, "not a table"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), InputError, "has no vocabulary"),
    ],
)
def test_a_spoilt_target_is_one_clear_error(
    tmp_path: Path,
    after_training: Callable[..., Run],
    tiny_model: Path,
    spoil: Callable[[Path], object],
    kind: type[Exception],
    says: str,
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    spoil(other)
    run = after_training(merge={"into": [{"id": "other", "model": str(other)}]})
    with pytest.raises(kind, match=says) as error:
        merge.execute(run)
    assert "\n" not in str(error.value)


def test_a_merge_that_fails_its_proof_leaves_nothing(
    after_training: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = merge.write.merged_rows

    def wrong(weight: torch.Tensor, change: Any, start: int) -> Any:
        merged, delta = exact(weight, change, start)
        return merged + delta / 100, delta  # one per cent too much

    run = after_training()
    monkeypatch.setattr(merge.write, "merged_rows", wrong)
    with pytest.raises(MismatchError, match="over the bound"):
        merge.execute(run)
    assert list((run.folder / "merge").iterdir()) == []


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_the_bound_grows_with_the_rounding_and_the_depth(dtype: torch.dtype) -> None:
    logits = torch.ones(3, 4)
    bound = tolerance(logits, dtype, 4)
    assert bound >= 4 * torch.finfo(dtype).eps
    assert tolerance(10 * logits, dtype, 4) == pytest.approx(10 * bound)
    assert tolerance(logits, dtype, 16) == pytest.approx(2 * bound)


def test_the_merge_and_the_bare_adapter_are_served_alike(
    after_training: Callable[..., Run], tiny_model: Path
) -> None:
    """As docs/merge.md says: transformers loads the one, PEFT the other, and they write the same."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = after_training()
    merge.execute(run)
    merged = AutoModelForCausalLM.from_pretrained(run.output("merge", "base"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = PeftModel.from_pretrained(base, run.output("train", "adapter"))
    ids = AutoTokenizer.from_pretrained(run.output("merge", "base"))("Two and", return_tensors="pt")
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    ours, theirs = (model.generate(**ids, **settings) for model in (merged, adapted))
    assert ours.tolist() == theirs.tolist()
    proof = run.record("merge")["facts"]["base"]["verify"]
    assert proof["perplexity_merged"] != proof["perplexity_target"]
    told = merged(**ids, labels=ids["input_ids"]).loss  # of another text, in the same range
    assert 0.1 < proof["perplexity_merged"] / told.exp().item() < 10
