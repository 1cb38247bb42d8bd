"""The pages say what the code does: generated ones are current, commands and links in them work."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from pages import DOCS, PAGES, blocks, commands, name
from typer.testing import CliRunner

from monotreme.cli import app
from monotreme.recipe import STAGES, check_recipe

sys.path.insert(0, str(DOCS))
from generate import ORDER, pages  # (the script lies among the pages it makes)


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path):
    assert path.read_text(encoding="utf-8") == pages()[path], "run `make docs`"


def test_every_table_of_the_recipe_is_on_its_page():
    from monotreme.recipe import Recipe

    assert sorted(ORDER) == sorted(Recipe.model_json_schema()["$defs"])


def test_there_is_a_page_a_verb_and_the_index_names_them():
    index = (DOCS / "index.md").read_text()
    for page in (*STAGES, "tutorial", "recipe", "cli", "design", "sources"):
        assert (DOCS / f"{page}.md").exists()
        assert f"({page}.md)" in index


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_in_the_pages_parse(path: Path):
    """Each is parsed by the real command line with its own words, then stops at its help."""
    for command in commands(path):
        words = command.words
        done = CliRunner().invoke(app, [*words, "--help"])
        assert done.exit_code == 0, words
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert all(option in done.output for option in options), words


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_yaml_in_the_pages_is_a_recipe_or_a_part_of_one(path: Path):
    least = {"name": "x", "curate": {"sources": ["math"]}, "train": {"base": "a/b"}}
    for part in (yaml.safe_load(text) for language, _, text in blocks(path) if language == "yaml"):
        merged = {**least, **part}
        for table in ("curate", "train"):
            merged[table] = {**least[table], **part.get(table, {})}
        assert check_recipe(merged, str(path)).name


def test_the_memory_of_llama_2_is_what_the_pages_say():
    """The tables of the pages on 7B, 13B and 70B, from the model's shapes (no weight is made)."""
    from peft import LoraConfig
    from transformers import LlamaConfig

    from monotreme.train import plan

    shapes = {"7B": (4096, 11008, 32, 32, 32), "13B": (5120, 13824, 40, 40, 40)}
    shapes["70B"] = (8192, 28672, 80, 64, 8)
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers")
    keys += ("num_attention_heads", "num_key_value_heads")
    adapter = LoraConfig(r=16, target_modules=["gate_proj", "up_proj", "down_proj"])
    text = "".join((DOCS / "how-to" / page).read_text() for page in ("one-gpu.md", "seventy-b.md"))
    for model, shape in shapes.items():
        size = plan.size_of(LlamaConfig(**dict(zip(keys, shape, strict=True))), adapter)
        whole = {p: plan.needed_bytes(size, p) / plan.GIB for p in ("bf16", "fp8", "nf4")}
        row = plan.KEPT_BYTES * size.hidden * size.layers * 1024 / plan.GIB
        quarter = whole["bf16"] - 0.75 * size.products * 2 / plan.GIB
        told = (whole["bf16"], whole["nf4"], quarter) if model == "70B" else (*whole.values(), row)
        assert f"| {model} | {' | '.join(f'{each:.1f}' for each in told)} |" in text
        base = (plan.base_bytes(size, "bf16")) / plan.GIB
        assert f"{base:.1f} GiB" in text
