"""The whole way on real questions: real leaks are found, and every number balances."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from monotreme import pipeline

RECIPE = Path(__file__).parent / "real_data.yaml"
KEEP = {  # file → lines of a copy; the rows stay real, only fewer
    "sources/math/test.jsonl": 5000,
    "sources/openassistant/train.jsonl": 40,
    "benchmarks/arc_challenge/test.jsonl": 12,
    "benchmarks/arc_challenge/train.jsonl": 60,
    "benchmarks/hellaswag/validation.jsonl": 40,
    "benchmarks/truthfulqa/validation.jsonl": 12,
    "benchmarks/mmlu/dev.jsonl": 10_000,
}
MATHS = "high_school_mathematics"


def lines(path: Path) -> list[str]:
    """Lines with their ends; str.splitlines would cut at U+0085 inside a question too."""
    with path.open(encoding="utf-8") as file:
        return list(file)


@pytest.fixture
def reduced(shared_data: Path, tmp_path: Path) -> Path:
    """The recipe over copies of the first rows; MATH and MMLU keep what leaks into each other."""
    for name, num in KEEP.items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(lines(shared_data / name)[:num]), encoding="utf-8")
    for name in ("scibench", "theoremqa"):
        shutil.copytree(shared_data / "sources" / name, tmp_path / "sources" / name)
    items = lines(shared_data / "benchmarks/mmlu/test.jsonl")
    maths = [item for item in items if json.loads(item)["subject"] == MATHS][:60]
    (tmp_path / "benchmarks/mmlu/test.jsonl").write_text("".join(maths), encoding="utf-8")
    leaked = {json.loads(item)["question"] for item in maths}
    math = tmp_path / "sources/math/test.jsonl"
    rows = lines(math)
    kept = [row for n, row in enumerate(rows) if n < 60 or json.loads(row)["problem"] in leaked]
    math.write_text("".join(kept), encoding="utf-8")
    text = RECIPE.read_text().replace("../../../shared/data", str(tmp_path))
    recipe = yaml.safe_load(text)
    for source in recipe["curate"]["sources"]:
        source["limit"] = 200
    for ref, limit in zip(recipe["decontaminate"]["benchmarks"], (4, 4, 4, 4), strict=True):
        ref["limit"] = limit
    recipe["train"]["epochs"] = 0.1
    path = tmp_path / "real.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.mark.slow
def test_the_whole_way_on_real_questions(reduced: Path, tmp_path: Path):
    run = pipeline.find_run(reduced, tmp_path / "runs")
    pipeline.execute(run)
    curated, clean = run.record("curate"), run.record("decontaminate")
    assert set(curated["counts"]["by_source"]) == {"math", "scibench", "theoremqa", "guanaco"}
    assert curated["facts"]["pairs_over_threshold_among_kept"] == 0
    assert clean["counts"]["read"] == curated["counts"]["kept"]
    leaks = json.loads(run.output("decontaminate", "leaks.json").read_text())
    (row,) = [r for r in leaks["table"] if (r["source"], r["benchmark"]) == ("math", "mmlu")]
    asked = {q["question"] for q in map(json.loads, lines(tmp_path / "benchmarks/mmlu/test.jsonl"))}
    copied = sum(
        json.loads(line)["problem"] in asked for line in lines(tmp_path / "sources/math/test.jsonl")
    )
    assert row["duplicate"] == copied >= 14
    assert run.record("train")["facts"]["num_steps"] >= 1
    scores = json.loads(run.output("evaluate", "scores.json").read_text())
    scored = {(s["model"], s["benchmark"]) for s in scores["scores"]}
    assert {("adapter", b) for b in ("arc_challenge", "hellaswag", "mmlu", "truthfulqa")} <= scored
    merged = [d for d in scores["deltas"] if d["model"] == "merged-base"]
    assert len(merged) >= 4
    card = run.output("release", "dataset/README.md").read_text()
    assert "MATH" in card or "math" in card
