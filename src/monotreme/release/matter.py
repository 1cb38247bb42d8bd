"""What machines read of a release in the Hub's words: front matter and evaluation results.

Fields: https://github.com/huggingface/hub-docs (datasetcard.md, modelcard.md, eval_results.yaml). A
field comes from a record or the recipe, or is absent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from monotreme.release.evidence import MEAN, DataFile, Evidence, on_hub, score_rows
from monotreme.release.licensing import license_fields, licensed

SIZES = (  # the Hub's size_categories, by their upper limit
    *((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")),
    *((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B")),
)
RESULTS = ".eval_results"


def size_category(num_rows: int) -> str:
    """The Hub's word for a number of rows."""
    return next((word for limit, word in SIZES if num_rows < limit), "n>1B")


def front_matter(fields: Mapping[str, Any]) -> str:
    """Fields as YAML, without those that are empty."""
    known = {name: value for name, value in fields.items() if value}
    return yaml.safe_dump(known, sort_keys=False, allow_unicode=True)


# ── the data set ─────────────────────────────────────────────────────────────────────────────────


def dataset_fields(evidence: Evidence, files: Mapping[str, DataFile]) -> dict[str, Any]:
    """Front matter of the data set's card.

    Args:
        files: by the name of their configuration.
    """
    read = [on_hub(row["digest"]) for row in evidence.sources if row["released"]]
    return {
        **license_fields(licensed(evidence.sources)),
        "language": evidence.release["language"],
        "pretty_name": evidence.title,
        "size_categories": [size_category(evidence.num_questions)],
        "source_datasets": list(dict.fromkeys(found[0] for found in read if found)),
        "task_categories": ["text-generation"],
        "tags": ["monotreme", "instruction-tuning"],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": file.path}]}
            for name, file in files.items()
        ],
        "dataset_info": [_dataset_info(name, file) for name, file in files.items()],
    }


def _dataset_info(name: str, file: DataFile) -> dict[str, Any]:
    split = {"name": "train", "num_bytes": file.num_bytes, "num_examples": file.num_rows}
    return {
        "config_name": name,
        "features": [{"name": column, "dtype": kind} for column, kind in file.columns.items()],
        "splits": [split],
        "download_size": file.file_bytes,
        "dataset_size": file.num_bytes,
    }


# ── models ───────────────────────────────────────────────────────────────────────────────────────


def model_fields(
    evidence: Evidence, model: str, relation: str, parents: Sequence[str | None]
) -> dict[str, Any]:
    """Front matter of a model card.

    Args:
        model: its name in scores.json.
        relation: "adapter" or "merge".
        parents: Hub names of the models it was made from; None for those not on the Hub.
    """
    known = list(dict.fromkeys(parent for parent in parents if parent))
    dataset = evidence.release["dataset"]
    return {
        "language": evidence.release["language"],
        "library_name": "peft" if relation == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": known[0] if len(known) == 1 else known,
        "base_model_relation": relation if known else None,
        "datasets": [dataset] if dataset else None,
        "tags": ["monotreme", "lora"],
        "model-index": _model_index(evidence, model),
    }


def _benchmark_rows(evidence: Evidence, model: str) -> list[dict[str, Any]]:
    return [row for row in score_rows(evidence.scores, model) if row["benchmark"] != MEAN]


def _model_index(evidence: Evidence, model: str) -> list[dict[str, Any]]:
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = []
    for row in _benchmark_rows(evidence, model):
        scored = evidence.scored.get(row["benchmark"])
        result = EvalResult(
            task_type="text-generation",
            dataset_type=scored.name if scored else row["benchmark"],
            dataset_name=row["benchmark"],
            dataset_config=scored.config if scored else None,
            dataset_split=scored.split if scored else None,
            dataset_revision=scored.revision if scored else None,
            metric_type=row["metric"],
            metric_value=row["score"],
            metric_args={
                "stderr": row["stderr"],
                "num_questions": row["num_questions"],
                "num_few_shot": row["shots"],
                "protocol": evidence.scores["protocol"],
            },
        )
        results.append(result)
    return eval_results_to_model_index(evidence.name, results) if results else []


def eval_results(evidence: Evidence, model: str) -> dict[str, str]:
    """A model's scores as files of the Hub's leaderboards, path → YAML.

    Only of benchmarks that are Hub data sets, with all their questions asked. `task_id` is the
    configuration that was asked ("default" where the data set has one only).
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files = {}
    for row in _benchmark_rows(evidence, model):
        scored = evidence.scored.get(row["benchmark"])
        if scored is None or not scored.whole:
            continue
        entry = EvalResultEntry(
            dataset_id=scored.name,
            task_id=scored.config or "default",
            value=row["score"],
            dataset_revision=scored.revision,
            notes=_notes(evidence.scores["protocol"], row),
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
        files[f"{RESULTS}/{row['benchmark']}.yaml"] = text
    return files


def _notes(protocol: str, row: Mapping[str, Any]) -> str:
    error = "" if row["stderr"] is None else f", standard error {row['stderr']:.2f}"
    return (
        f"protocol {protocol}, {row['shots']}-shot, {row['metric']} in points{error}, "
        f"{row['num_questions']:,} questions"
    )
