"""Whether the choice among merges recovers the one that is best by construction.

Two specialists are trained on the pocket base, each on one subject alone. By how they were made, each
should gain in its own subject, and be the best choice where that subject alone counts; the sum of both
should be the best over both subjects, if they do not disturb each other. The candidates are each alone,
their sum and their mean; the choice is made on the pocket set's validation questions of these two
subjects, then on those of each subject alone, and looked at on the benchmark questions.

    python bench/choose.py [--subjects logic science] [--epochs 4]
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from monotreme import merge, pipeline
from monotreme.merge.choose import decide
from monotreme.recipe import load_recipe
from monotreme.records import read_table
from monotreme.run import Run
from monotreme.scoring.results import results_of

TRAIN = {
    "base": "pocket:base",
    "base_precision": "fp32",
    "learning_rate": 3.0e-3,
    "warmup_steps": 20,
}


def of_subjects(subjects: list[str], name: str, folder: Path) -> Path:
    """The pocket's questions of these subjects, as a file."""
    rows = (Path(pipeline.__file__).parent / "pocket" / name).read_text().splitlines()
    kept = [row for row in rows if json.loads(row)["subject"] in subjects]
    path = folder / name
    path.write_text("\n".join(kept) + "\n")
    return path


def specialist(subject: str, folder: Path, epochs: float, **tables: Any) -> Run:
    recipe = {
        "name": subject,
        "curate": {
            "sources": [{"id": subject, "path": f"pocket:{subject}.jsonl", "license": "Apache-2.0"}]
        },
        "decontaminate": {"benchmarks": [{"id": "pocket", "path": "pocket:benchmark.jsonl"}]},
        "train": {**TRAIN, "epochs": epochs},
        **tables,
    }
    path = folder / f"{subject}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return Run(folder / "runs" / subject, load_recipe(path), folder)


def show(title: str, scores: list[dict[str, Any]], name: Callable[[dict[str, Any]], str]) -> None:
    print(title)
    for row in scores:
        subjects = "  ".join(f"{key} {own['score']:.1f}" for key, own in row["by_subject"].items())
        print(f"  {name(row):<22} {row['score']:6.2f} ± {row['stderr']:.2f}   {subjects}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", nargs=2, default=["logic", "science"])
    parser.add_argument("--epochs", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first, second = options.subjects
        alone = specialist(second, folder, options.epochs)
        pipeline.execute(alone, ("curate", "decontaminate", "train"))
        other = {
            "path": str(alone.output("train", "adapter")),
            "questions": str(alone.output("decontaminate", "questions.parquet")),
        }
        candidates = [
            {"id": first, "model": "base"},
            {"id": second, "model": "base", "weight": 0, "adapters": [other]},
            {"id": "sum", "model": "base", "adapters": [other]},
            {"id": "mean", "model": "base", "weight": 0.5, "adapters": [{**other, "weight": 0.5}]},
        ]
        select = [
            {
                "id": "chosen-on",
                "path": str(of_subjects(options.subjects, "validation.jsonl", folder)),
            }
        ]
        reported = [
            {
                "id": "reported",
                "path": str(of_subjects(options.subjects, "benchmark.jsonl", folder)),
            }
        ]
        both = specialist(
            first,
            folder,
            options.epochs,
            merge={"candidates": candidates, "select": select},
            evaluate={"benchmarks": reported, "precision": "fp32"},
        )
        pipeline.execute(both, ("curate", "decontaminate", "train", "merge", "evaluate"))
        print(both.output("merge", "choice.md").read_text())
        choice = json.loads(both.output("merge", "choice.json").read_text())
        for row in choice["candidates"]:
            parts = "  ".join(f"{k} {v['delta']:+.1f}" for k, v in row["gain_by_domain"].items())
            print(f"  {row['id']:<12} {parts}")
        asked = [merge.read_asked(both, into) for into in both.recipe.merge.candidates]
        results = results_of(read_table(both.output("merge", "candidates.parquet")))
        for subject in options.subjects:
            alone = [dict(result.by_subject())[subject] for result in results]
            print(f"  on {subject} alone: {decide(alone, asked, 0)['reason']}")
        scores = json.loads(both.output("evaluate", "scores.json").read_text())["scores"]
        rows = [row for row in scores if row["benchmark"] != "mean"]
        show("on the benchmark questions, which chose nothing:", rows, lambda row: row["model"])


if __name__ == "__main__":
    main()
