"""The cards: what the records say, as Markdown with the Hub's front matter.

Every figure comes from a record; what no record tells is left out, never filled with a placeholder.
Values are escaped as they are written, so that a hostile licence or source name stays text.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monotreme.printable import markdown_text
from monotreme.records import VERDICTS
from monotreme.release.evidence import MEAN, DataFile, Evidence, score_rows
from monotreme.release.licensing import consequences, licensed
from monotreme.release.matter import dataset_fields, front_matter, model_fields


class Verbatim(str):
    """Text that goes into a card as it is: front matter, the author's own Markdown."""


def dataset_card(evidence: Evidence, files: Mapping[str, DataFile]) -> str:
    """README.md of the data set.

    Args:
        files: by the name of their configuration.
    """
    return _render("dataset.md.jinja", evidence, dataset_fields(evidence, files))


def license_page(evidence: Evidence) -> str:
    """LICENSE.md of the data set: which question is under which licence, and what follows."""
    return _render("license.md.jinja", evidence, {})


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
    licenses = licensed(evidence.sources)
    checked = {row["id"] for row in evidence.leaks["benchmarks"]}
    scored = dict.fromkeys(row["benchmark"] for row in evidence.scores["scores"])
    text = _ENVIRONMENT.get_template(template).render(
        evidence=evidence,
        matter=Verbatim(front_matter(fields)),
        licenses=licenses,
        consequences=consequences(licenses),
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
