"""A recipe is right, or refused with the name of what is wrong and of what was meant."""

from pathlib import Path

import pytest
import yaml

from monotreme.errors import InputError, RecipeError
from monotreme.recipe import check_recipe, dump_recipe, load_recipe, locate

LEAST = {
    "name": "x",
    "curate": {"sources": ["math"]},
    "train": {"base": "meta-llama/Llama-2-13b-hf"},
}
SHELF = Path(__file__).parents[1] / "recipes"


def _nest(path: str, value: object) -> dict:
    table, key = path.split(".")
    return {table: {**LEAST.get(table, {}), key: value}}


def test_the_least_recipe_has_the_papers_settings():
    recipe = check_recipe(LEAST, "x")
    train = recipe.train
    assert (train.rank, train.alpha, train.dropout) == (16, 16, 0.05)
    assert (train.learning_rate, train.warmup_steps, train.batch_size) == (4e-4, 100, 16)
    assert (train.epochs, train.max_length, train.weighting) == (1, 4096, "question")
    assert train.targets == ["gate_proj", "up_proj", "down_proj"]
    assert recipe.curate.threshold == recipe.decontaminate.threshold == 0.8
    checked = [ref.id for ref in recipe.decontaminate.benchmarks]
    assert checked == ["arc_challenge", "hellaswag", "mmlu", "truthfulqa"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("train.rnk", 8, r"train\.rnk is not a key\. Did you mean 'rank'"),
        ("curate.sources", [{"id": "a", "pth": "b"}], r"sources\.0\.pth is not a key.*'path'"),
        ("train.zzz", 1, r"train\.zzz is not a key\. Known keys are allow_unchecked, alpha, "),
        ("train.rank", 0, r"train\.rank = 0: .*greater than or equal to 1"),
        ("train.dropout", 1.0, r"train\.dropout = 1\.0"),
        ("train.epochs", float("inf"), r"train\.epochs = inf"),
        ("merge.into", [{"id": "a", "weight": float("nan")}], r"merge\.into\.0\.weight = nan"),
        ("decontaminate.drop", ["maybe"], r"decontaminate\.drop\.0 = 'maybe'"),
        ("curate.sources", ["math", "math"], "curate.sources: id 'math' is given twice"),
        ("curate.sources", [], r"curate\.sources"),
        ("merge.into", [{"id": ".."}], r"merge\.into\.0\.id = '\.\.'"),
        ("merge.into", [{"id": "a", "revision": "x"}], "a revision does not go with"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(path, value, says):
    with pytest.raises(RecipeError, match=says) as caught:
        check_recipe({**LEAST, **_nest(path, value)}, "r.yaml")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_a_list_is_named():
    with pytest.raises(RecipeError, match="decontaminate"):
        check_recipe({**LEAST, "decontaminate": ["mmlu"]}, "r.yaml")


def test_a_name_never_leads_out_of_the_run_folder():
    for name in ("..", ".", "a/b", "", ".hidden"):
        with pytest.raises(RecipeError, match="name"):
            check_recipe({**LEAST, "name": name}, "r.yaml")


def test_a_recipe_without_a_base_says_so():
    with pytest.raises(RecipeError, match=r"train is missing"):
        check_recipe({k: v for k, v in LEAST.items() if k != "train"}, "r.yaml")


def test_what_is_checked_is_scored_unless_said_otherwise():
    own = [{"id": "mine", "path": "b.jsonl"}]
    recipe = check_recipe({**LEAST, "decontaminate": {"benchmarks": own}}, "x")
    assert recipe.evaluate.benchmarks == recipe.decontaminate.benchmarks
    other = {**LEAST, "decontaminate": {"benchmarks": own}, "evaluate": {"benchmarks": ["mmlu"]}}
    assert [ref.id for ref in check_recipe(other, "x").evaluate.benchmarks] == ["mmlu"]


def test_a_dumped_recipe_means_the_same():
    recipe = check_recipe(LEAST, "x")
    assert check_recipe(yaml.safe_load(dump_recipe(recipe)), "x") == recipe


def test_overrides_reach_into_tables(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(LEAST))
    recipe = load_recipe(path, ["train.rank=32", "release.private=false", "curate.sources=[arb]"])
    assert (recipe.train.rank, recipe.release.private) == (32, False)
    assert recipe.curate.sources[0].id == "arb"
    for wrong, says in [("train.rank", "has no `=`"), ("name.x=1", "name is not a table")]:
        with pytest.raises(RecipeError, match=says):
            load_recipe(path, [wrong])


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"name: [", RecipeError, "is not YAML"),
        (b"- a\n- b\n", RecipeError, "is not a table of keys"),
        (b"\xff\xfe\x00", InputError, "cannot be read"),
        (b"a: !!python/object/apply:os.system [echo]\n", RecipeError, "is not YAML"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content, error, says):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(error, match=says) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.yaml does not exist"):
        load_recipe(tmp_path / "none.yaml")


def test_paths_are_relative_to_the_recipe(tmp_path: Path):
    assert locate("../a.jsonl", tmp_path / "recipes") == tmp_path / "a.jsonl"
    assert locate("/b", tmp_path).as_posix() == "/b"
    assert locate("pocket:base", tmp_path).parts[-2:] == ("pocket", "base")


@pytest.mark.parametrize("path", sorted(SHELF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_on_the_shelf_is_right(path: Path):
    assert load_recipe(path).name == path.stem
