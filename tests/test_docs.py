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
