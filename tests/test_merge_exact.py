"""A merge is PEFT's merge bit for bit; what is not is refused by name, with the reason."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model, write_tokenizer
from merging import DTYPES, cast, load, merged, merged_by_peft, same_bits, weights, write_adapter
from safetensors.torch import load_file, save_file

from monotreme.errors import RefusedError
from monotreme.merge import read_adapter, read_target
from monotreme.merge.change import Change, Factors, cuts, merged_rows
from monotreme.merge.target import check_fit


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """PEFT warns of embeddings that it saves, of ties, of flags that it corrects."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"peft\.|torch\.")
        yield


def write_gpt2(folder: Path) -> Path:
    """A tiny random GPT-2, whose layers (Conv1D) store their weights transposed; one is square."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=384, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    tied = write_model(folder / "tied", tie_word_embeddings=True)
    return {"llama": tiny_model, "tied": tied, "gpt2": write_gpt2(folder / "gpt2")}


CONV1D = ["c_attn", "c_proj", "c_fc"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "alpha-16": ("llama", {}),
    "alpha-24": ("llama", {"lora_alpha": 24}),
    "rslora": ("llama", {"lora_alpha": 24, "use_rslora": True}),
    "patterns": (
        "llama",
        {"rank_pattern": {"down_proj": 4}, "alpha_pattern": {"layers.1.mlp.up_proj": 40}},
    ),
    "all-linear": ("llama", {"target_modules": "all-linear", "r": 5}),
    "dora": ("llama", {"use_dora": True, "lora_alpha": 24}),
    "lm-head": ("llama", {"target_modules": ["lm_head", "up_proj"]}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "up_proj"], "lora_alpha": 24}),
    "modules-to-save": ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "norms-to-save": ("llama", {"modules_to_save": ["input_layernorm"]}),
    "tied": ("tied", {}),
    "conv1d": ("gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True}),
    "conv1d-dora": ("gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True, "use_dora": True}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_a_merge_has_the_bits_of_peft(
    tmp_path: Path, models: dict[str, Path], dtype: str, case: str
) -> None:
    model, settings = CASES[case]
    target = cast(models[model], tmp_path / "target", DTYPES[dtype])
    source = write_adapter(tmp_path / "lora", target, **settings)

    ours = weights(merged(target, source, tmp_path / "ours"))

    assert same_bits(ours, weights(merged_by_peft(target, source, tmp_path / "theirs")))
    assert not same_bits(ours, weights(target))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_adapter_stored_in_half_precision_is_computed_in_float32(
    tmp_path: Path, models: dict[str, Path], dtype: str
) -> None:
    target = cast(models["llama"], tmp_path / "target", DTYPES[dtype])
    source = write_adapter(tmp_path / "lora", target, lora_alpha=24)
    file = source / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)

    ours = weights(merged(target, source, tmp_path / "ours"))

    assert same_bits(ours, weights(merged_by_peft(target, source, tmp_path / "theirs")))


def is_wide() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


@pytest.mark.skipif(not is_wide(), reason="there the product's bits depend on the threads' number")
@pytest.mark.parametrize("rank", [1, 4, 16, 20, 64, 256])
@pytest.mark.parametrize("shape", [(2048, 1025), (1025, 2048), (5632, 512), (3000, 1111), (9, 4)])
def test_blocks_of_rows_have_the_bits_of_the_whole(rank: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(rank)
    a, b = torch.randn(rank, shape[1]), torch.randn(shape[0], rank)
    weight = torch.randn(shape).bfloat16()
    for factors in (
        Factors(a, b, 1.5),
        Factors(b.T.contiguous(), a.T.contiguous(), 1.5, transposed=True),
        Factors(a, b, 1.5, magnitude=torch.rand(shape[0]) + 20),
    ):
        change = Change((factors,))
        whole, _ = merged_rows(weight, change)
        parts = [merged_rows(weight[i:j], change, i)[0] for i, j in cuts(shape[0], 8 * shape[1])]
        assert torch.equal(torch.cat(parts).view(torch.int16), whole.view(torch.int16))


def test_blocks_cover_all_rows_and_are_never_one_row_of_many() -> None:
    for num in (1, 2, 63, 64, 65, 129, 1025, 4097, 32_001):
        blocks = cuts(num, 100_000)
        assert [i for i, _ in blocks] == [0, *(j for _, j in blocks[:-1])]
        assert blocks[-1][1] == num
        assert num == 1 or min(j - i for i, j in blocks) > 1
    assert len(cuts(32_000, 1)) == 1


TIES: list[dict[str, Any]] = [
    {"target_modules": ["lm_head"]},
    {"target_modules": ["embed_tokens"]},
    {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    {"modules_to_save": ["lm_head"]},
]


@pytest.mark.parametrize("settings", TIES, ids=["head", "embedding", "both", "saved"])
def test_an_adapter_of_tied_embeddings_is_refused_and_merges_into_the_untied_model(
    tmp_path: Path, models: dict[str, Path], settings: dict[str, Any]
) -> None:
    base = models["tied"]
    source = write_adapter(tmp_path / "lora", base, **settings)
    with pytest.raises(RefusedError, match="embeddings are tied"):
        merged(base, source, tmp_path / "refused")

    model = load(base)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(tmp_path / "untied")
    folder = merged(tmp_path / "untied", source, tmp_path / "merged")
    assert logits(folder) == pytest.approx(logits(base, source), abs=1e-5)


@pytest.mark.parametrize("settings", TIES[:3], ids=["head", "embedding", "both"])
def test_what_peft_makes_of_tied_embeddings_is_not_the_adapters_model(
    tmp_path: Path, models: dict[str, Path], settings: dict[str, Any]
) -> None:
    """Why such adapters are refused: the one stored weight changes for both of its uses."""
    source = write_adapter(tmp_path / "lora", models["tied"], **settings)
    theirs = merged_by_peft(models["tied"], source, tmp_path / "theirs")
    assert "lm_head.weight" not in weights(theirs)
    assert logits(theirs) != pytest.approx(logits(models["tied"], source), abs=1e-3)


def logits(model: Path, adapter: Path | None = None) -> list[float]:
    from peft import PeftModel

    loaded = load(model)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    with torch.inference_mode():
        found: list[float] = loaded.eval()(torch.arange(3, 40)[None]).logits.flatten().tolist()
    return found


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"bias": "lora_only"}, "bias lora_only"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa"),
        ({"target_modules": ["embed_tokens"], "use_dora": True}, "use_dora on the embedding"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
    ],
)
def test_a_feature_that_a_merge_cannot_express_is_refused_by_name(
    tmp_path: Path, tiny_model: Path, settings: Any, named: str
) -> None:
    with pytest.raises(RefusedError, match=named):
        read_adapter(write_adapter(tmp_path / "lora", tiny_model, **settings))


@pytest.mark.parametrize(
    "base",
    ["unsloth/llama-3-8b-bnb-4bit", "TheBloke/Llama-2-13B-GPTQ", "org/model-awq", "org/x-int8"],
)
def test_an_adapter_of_a_base_whose_name_says_quantised_is_refused(
    tmp_path: Path, tiny_model: Path, base: str
) -> None:
    source = write_adapter(tmp_path / "lora", tiny_model)
    says(source, base_model_name_or_path=base)
    with pytest.raises(RefusedError, match="trained on a quantised base"):
        read_adapter(source)


def test_an_adapter_of_a_quantised_folder_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    base = cast(tiny_model, tmp_path / "base", torch.float32)
    source = write_adapter(tmp_path / "lora", base)
    assert read_adapter(source)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))
    with pytest.raises(RefusedError, match="the quantization_config of its base"):
        read_adapter(source)


@pytest.mark.parametrize("name", ["org/bitter-13b", "org/habit4bits", "org/Llama-2-13b-hf", ""])
def test_an_ordinary_name_is_not_taken_for_a_quantised_one(
    tmp_path: Path, tiny_model: Path, name: str
) -> None:
    source = write_adapter(tmp_path / "lora", tiny_model)
    says(source, base_model_name_or_path=name)
    assert read_adapter(source)


def says(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_an_adapter_that_carries_its_bases_embedding_goes_into_no_other_model(
    tmp_path: Path, tiny_model: Path
) -> None:
    other = write_model(tmp_path / "other", seed=5)
    source = write_adapter(tmp_path / "lora", tiny_model, target_modules=["lm_head"])
    with pytest.raises(RefusedError, match=r"carries lm_head\.weight of its own base"):
        check_fit(read_target(other), read_target(tiny_model), read_adapter(source), "other")
