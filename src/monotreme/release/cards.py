"""The cards: what the records say, as Markdown with the Hub's front matter.

Every figure comes from a record; what no record tells is left out, never filled with a placeholder.
Values are escaped as they are written, so that a hostile licence or source name stays text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monotreme.printable import markdown_text
from monotreme.records import VERDICTS

SIZES = (  # the Hub's size_categories, by their upper limit
    *((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")),
    *((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B")),
)
MEAN = "mean"  # the row of scores.json that is no benchmark


class Verbatim(str):
    """Text that goes into a card as it is: front matter, the author's own Markdown."""


@dataclass(frozen=True)
class Evidence:
    """What the stages left, in plain JSON.

    Attributes:
        release: the recipe's `release` table.
        records: record.json by stage.
        leaks: decontaminate/leaks.json.
        self_test: figures of the planted leaks; empty where that was not measured.
        scores: evaluate/scores.json.
        sources: one row a source, as `source_rows` makes them.
        base: Hub name of the base model, None where it is a local folder.
        base_digest: its commit or the SHA-256 of its folder.
        revisions: Hub commits that this run has resolved.
    """

    name: str
    seed: int
    release: dict[str, Any]
    records: dict[str, dict[str, Any]]
    leaks: dict[str, Any]
    self_test: list[dict[str, Any]]
    scores: dict[str, Any]
    sources: list[dict[str, Any]]
    base: str | None
    base_digest: str
    revisions: dict[str, str]


# ── what the tables say ──────────────────────────────────────────────────────────────────────────


def source_rows(
    released: Iterable[tuple[str, str, bool]],
    curated: Mapping[str, Mapping[str, int]],
    leaked: Mapping[str, int],
) -> list[dict[str, Any]]:
    """One row a source: released rows, licences, LLM-written rows, and what was dropped before.

    Args:
        released: (source, license, llm_written) of every released question.
        curated: `counts.by_source` of curate's record.
        leaked: source → questions dropped as leaks.
    """
    groups: dict[str, list[tuple[str, bool]]] = {source: [] for source in curated}
    for source, license_, llm_written in released:
        groups.setdefault(source, []).append((license_, llm_written))
    return [
        {
            "source": source,
            "read": curated.get(source, {}).get("read"),
            "curated_away": curated.get(source, {}).get("dropped"),
            "leaked": leaked.get(source, 0),
            "released": len(rows),
            "licenses": dict(Counter(license_ for license_, _ in rows)),
            "llm_written": sum(llm_written for _, llm_written in rows),
        }
        for source, rows in groups.items()
    ]


def license_fields(licenses: Mapping[str, int]) -> dict[str, str]:
    """The Hub's licence fields for rows with these licences (SPDX id → number of rows)."""
    if not licenses:
        return {}
    if len(licenses) == 1 and not next(iter(licenses)).startswith("LicenseRef-"):
        return {"license": next(iter(licenses)).lower()}
    details = ", ".join(f"{name} ({rows} rows)" for name, rows in sorted(licenses.items()))
    name = "mixed-by-source" if len(licenses) > 1 else next(iter(licenses)).lower()
    return {"license": "other", "license_name": name, "license_details": details}


def size_category(num_rows: int) -> str:
    """The Hub's word for a number of rows."""
    return next((word for limit, word in SIZES if num_rows < limit), "n>1B")


def score_rows(scores: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """A model's scores beside the base's, with the paired delta where one was measured."""

    def of(table: str, name: str) -> dict[str, dict[str, Any]]:
        return {row["benchmark"]: row for row in scores[table] if row["model"] == name}

    base, deltas = of("scores", "base"), of("deltas", model)
    return [
        {**row, "base": base.get(benchmark), "delta": deltas.get(benchmark)}
        for benchmark, row in of("scores", model).items()
    ]


def _licenses(sources: Iterable[Mapping[str, Any]]) -> Counter[str]:
    return sum((Counter(row["licenses"]) for row in sources), Counter())


# ── front matter ─────────────────────────────────────────────────────────────────────────────────


def dataset_fields(evidence: Evidence) -> dict[str, Any]:
    """Front matter of the data set's card, in the Hub's words."""
    num_rows = sum(row["released"] for row in evidence.sources)
    splits = {"default": "data/train.parquet", "provenance": "data/provenance.parquet"}
    return {
        **license_fields(_licenses(evidence.sources)),
        "language": ["en"],
        "pretty_name": evidence.release["title"] or evidence.name,
        "size_categories": [size_category(num_rows)],
        "task_categories": ["text-generation"],
        "tags": ["monotreme", "instruction-tuning"],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": path}]}
            for name, path in splits.items()
        ],
    }


def model_fields(
    evidence: Evidence, model: str, relation: str, parents: Sequence[str | None]
) -> dict[str, Any]:
    """Front matter of a model card, in the Hub's words.

    Args:
        model: its name in scores.json.
        relation: "adapter" or "merge".
        parents: Hub names of the models it was made from; None for those not on the Hub.
    """
    known = list(dict.fromkeys(parent for parent in parents if parent))
    dataset = evidence.release["dataset"]
    fields = {
        "language": ["en"],
        "library_name": "peft" if relation == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": known[0] if len(known) == 1 else known,
        "base_model_relation": relation if known else None,
        "datasets": [dataset] if dataset else None,
        "tags": ["monotreme", "lora"],
        "model-index": _model_index(evidence, model),
    }
    return {key: value for key, value in fields.items() if value}


def _model_index(evidence: Evidence, model: str) -> list[dict[str, Any]]:
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=row["benchmark"],
            dataset_name=row["benchmark"],
            metric_type=row["metric"],
            metric_value=row["score"],
            metric_args={
                "stderr": row["stderr"],
                "num_questions": row["num_questions"],
                "num_few_shot": row["shots"],
                "protocol": evidence.scores["protocol"],
            },
        )
        for row in score_rows(evidence.scores, model)
        if row["benchmark"] != MEAN
    ]
    return eval_results_to_model_index(evidence.name, results) if results else []


# ── the texts ────────────────────────────────────────────────────────────────────────────────────


def dataset_card(evidence: Evidence) -> str:
    """README.md of the data set."""
    return _render("dataset.md.jinja", evidence, dataset_fields(evidence))


def adapter_card(evidence: Evidence) -> str:
    """README.md of the adapter."""
    fields = model_fields(evidence, "adapter", "adapter", [evidence.base])
    return _render("model.md.jinja", evidence, fields, model="adapter", merge=None, into=None)


def merged_card(evidence: Evidence, merge: str, into: str | None) -> str:
    """README.md of a merged model.

    Args:
        merge: its id in the recipe.
        into: Hub name of the model that the adapter went into, None where it is a local folder.
    """
    model = f"merged-{merge}"
    fields = model_fields(evidence, model, "merge", [into, evidence.release["adapter"]])
    return _render("model.md.jinja", evidence, fields, model=model, merge=merge, into=into)


def _render(template: str, evidence: Evidence, fields: Mapping[str, Any], **more: Any) -> str:
    matter = yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True)
    checked = {row["id"] for row in evidence.leaks["benchmarks"]}
    scored = dict.fromkeys(row["benchmark"] for row in evidence.scores["scores"])
    text = _ENVIRONMENT.get_template(template).render(
        evidence=evidence,
        matter=Verbatim(matter),
        licenses=_licenses(evidence.sources),
        unchecked=[name for name in scored if name not in checked and name != MEAN],
        rows=score_rows(evidence.scores, more.get("model", "base")),
        verdicts=VERDICTS,
        **more,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def cell(value: Any) -> str:
    """A value as Markdown text that cannot break a table or become markup.

    `Verbatim` text passes.
    """
    if isinstance(value, Verbatim):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return markdown_text(str(value))


def _figures(value: float) -> str:
    return f"{value:.3g}"


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}"


def _score(row: Mapping[str, Any] | None) -> str:
    """Score ± standard error, as far as they were measured."""
    if row is None:
        return ""
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.2f}"
    return f"{row['score']:.2f}{error}"


def _interval(delta: Mapping[str, Any]) -> str:
    return f"{delta['low']:+.2f} to {delta['high']:+.2f}"


def _percent(shares: Sequence[float]) -> str:
    return " to ".join(f"{100 * share:.1f}" for share in shares) + " %"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=False,  # Markdown, which `cell` escapes
    undefined=StrictUndefined,
    finalize=cell,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,  # of included parts
)
_ENVIRONMENT.filters |= {
    "prose": Verbatim,
    "figures": _figures,
    "signed": _signed,
    "score": _score,
    "interval": _interval,
    "percent": _percent,
}
