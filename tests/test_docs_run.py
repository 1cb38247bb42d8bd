"""Every command on the pages runs, in the page's order, as a reader gives it.

Pages that a reader follows from an empty folder are followed from one; the others, which speak of
`recipe.yaml` and `runs/pocket`, in a folder where what they name exists. The data are the first rows of
the pocket set; the slow test follows the tutorial with all of it. What a test has not (the Hub, a GPU, a
person) the page says behind the command, and that command is parsed only, in test_docs.py.
"""

import json
import re
import shutil
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from pages import DOCS, PAGES, ROOT, Command, blocks, commands, files, name
from typer.testing import CliRunner

from monotreme.cli import app
from monotreme.recipe import locate

FOLLOWED = [ROOT / "README.md", DOCS / "index.md", DOCS / "tutorial.md"]
FOLLOWED += sorted((DOCS / "how-to").glob("*.md"))
OTHERS = [page for page in PAGES if page not in FOLLOWED and commands(page)]

# On the generated page an example says nothing but itself.
NEEDS = {
    r"\bchat\b": "a person who asks",
    r"\breview\b(?!.*--(export|import))": "a person at the page",
    r"--push": "the Hub",
    r"--gpus": "more than one GPU",
    r"evaluate --model": "benchmarks of the Hub",
    r"verify (?!runs)": "a downloaded release",
    r"\b(s3|gs)://": "a store",
}


def needs(command: Command) -> str:
    line = " ".join(command.words)
    return command.needs or next((why for rule, why in NEEDS.items() if re.search(rule, line)), "")


def follow(these: Iterable[Command], shrunk: bool = True) -> int:
    """Give each command in turn, where it can run; returns how many ran."""
    ran = 0
    for command in these:
        if needs(command):
            continue
        done = CliRunner().invoke(app, list(command.words))
        assert done.exit_code == 0, (command.words, done.output, done.exception)
        ran += 1
        if shrunk and command.words[0] == "init":
            shrink(Path("recipe.yaml"))
    return ran


def shrink(path: Path) -> None:
    """The pocket recipe on its first rows, which take seconds."""
    if not path.exists():
        return
    recipe = yaml.safe_load(path.read_text())
    for source in recipe["curate"]["sources"]:
        source["limit"] = 60
    items = locate("pocket:benchmark.jsonl", Path()).read_text().splitlines()
    sums = [line for line in items if json.loads(line)["subject"] == "arithmetic"]
    Path("few.jsonl").write_text("\n".join(sums[:25]))
    recipe["decontaminate"]["benchmarks"] = [{"id": "pocket", "path": "few.jsonl", "limit": 10}]
    recipe["train"]["epochs"] = 0.3
    recipe["evaluate"].pop("texts", None)
    path.write_text(yaml.safe_dump(recipe))


@pytest.mark.parametrize("page", FOLLOWED, ids=name)
def test_a_page_can_be_followed_from_an_empty_folder(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file, text in files(page).items():
        Path(file).write_text(text)
    follow(commands(page))


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two minutes alone; the demo twice, and machines are shared
def test_the_tutorial_has_the_counts_that_it_names(tmp_path, monkeypatch):
    """With all of the pocket set, as a reader has it."""
    monkeypatch.chdir(tmp_path)
    page = DOCS / "tutorial.md"
    follow(commands(page), shrunk=False)
    curated, cleaned = (
        json.loads(Path(f"runs/pocket/{stage}/record.json").read_text())["counts"]
        for stage in ("curate", "decontaminate")
    )
    for count in (curated["read"], curated["dropped"], cleaned["dropped"], cleaned["kept"]):
        assert re.search(rf"\b{count:,}\b", page.read_text()), count


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages of reference name."""
    folder = tmp_path_factory.mktemp("workshop")
    base = locate("pocket:base", folder)
    shutil.copytree(base, folder / "models" / "llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        follow([Command(("init",), "")])
        recipe = yaml.safe_load(Path("recipe.yaml").read_text())
        recipe["merge"]["into"] = ["base", {"id": "other", "model": "models/llama"}]
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
        follow([Command(("run", "recipe.yaml"), "")])
    for run in ("my-13b", "rank-16", "rank-32"):
        shutil.copytree(folder / "runs/pocket", folder / "runs" / run)
    shutil.copytree(folder / "runs/pocket/train/adapter", folder / "my/adapter")
    for which in ("old", "new"):
        shutil.copytree(folder / "runs/pocket/evaluate", folder / which)
    asked = [{"instruction": "What is 6 * 7?"}, {"instruction": "What is 6 + 7?"}]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))
    (folder / "questions.csv").write_text("instruction\nWhat is 6 * 7?\n")
    pair = {"benchmark_question": "What is 6 * 7?", "train_instruction": "What is 6 times 7?"}
    (folder / "pairs.jsonl").write_text(json.dumps(pair))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=name)
def test_the_commands_of_a_page_run(page, workshop, tmp_path, monkeypatch):
    for number, (verb, these) in enumerate(
        groupby(commands(page), lambda each: section(page, each))
    ):
        here = tmp_path / str(number)
        shutil.copytree(workshop, here)
        monkeypatch.chdir(here)
        if verb == "init":  # it refuses to write over a recipe
            Path("recipe.yaml").unlink()
        follow(these)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(here)


def section(page: Path, command: Command) -> str:
    """The examples of a command stand for themselves; a page of prose is one story."""
    return command.words[0] if page.name == "cli.md" else ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_is_overlooked(page):
    """Whatever calls monotreme at the beginning of a line is one that runs, or says what it needs."""
    lines = re.findall(r"^ *(?:\$ )?monotreme [a-z]", page.read_text(), re.MULTILINE)
    usages = page.read_text().count(" [OPTIONS]\n")
    assert len(lines) - usages == len(commands(page))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_block_of_commands_has_nothing_else(page):
    shell = [text for language, _, text in blocks(page) if language == "sh"]
    assert all(line.startswith("monotreme ") for text in shell for line in text.splitlines())
