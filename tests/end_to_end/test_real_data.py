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


@pytest.fixture
def reduced(shared_data: Path, tmp_path: Path) -> Path:
    """The recipe over copies of the first rows; MATH and MMLU keep what leaks into each other."""
    for name, num in KEEP.items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = (shared_data / name).read_text(encoding="utf-8").splitlines()[:num]
        target.write_text("\n".join(lines), encoding="utf-8")
    for name in ("scibench", "theoremqa"):
        shutil.copytree(shared_data / "sources" / name, tmp_path / "sources" / name)
    items = (shared_data / "benchmarks/mmlu/test.jsonl").read_text(encoding="utf-8").splitlines()
    maths = [item for item in items if json.loads(item)["subject"] == MATHS][:60]
    (tmp_path / "benchmarks/mmlu/test.jsonl").write_text("\n".join(maths), encoding="utf-8")
    leaked = {json.loads(item)["question"] for item in maths}
    math = tmp_path / "sources/math/test.jsonl"
    rows = math.read_text(encoding="utf-8").splitlines()
    kept = [row for n, row in enumerate(rows) if n < 60 or json.loads(row)["problem"] in leaked]
    math.write_text("\n".join(kept), encoding="utf-8")
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


def test_the_whole_way_on_real_questions(reduced: Path, tmp_path: Path):
    run = pipeline.find_run(reduced, tmp_path / "runs")
    pipeline.execute(run)
    curated, clean = run.record("curate"), run.record("decontaminate")
    assert set(curated["counts"]["by_source"]) == {"math", "scibench", "theoremqa", "guanaco"}
    assert curated["facts"]["pairs_over_threshold_among_kept"] == 0
    assert clean["counts"]["read"] == curated["counts"]["kept"]
    leaks = json.loads(run.output("decontaminate", "leaks.json").read_text())
    (row,) = [r for r in leaks["table"] if (r["source"], r["benchmark"]) == ("math", "mmlu")]
    assert row["duplicate"] >= 15  # 81 of the 270 questions stand in MATH test, of 60 about 18
    assert run.record("train")["facts"]["num_steps"] >= 1
    scores = json.loads(run.output("evaluate", "scores.json").read_text())
    scored = {(s["model"], s["benchmark"]) for s in scores["scores"]}
    assert {("adapter", b) for b in ("arc_challenge", "hellaswag", "mmlu", "truthfulqa")} <= scored
    merged = [d for d in scores["deltas"] if d["model"] == "merged-base"]
    assert len(merged) >= 4
    card = run.output("release", "dataset/README.md").read_text()
    assert "MATH" in card or "math" in card
