"""The report of a run as one HTML page, Markdown and JSON, all from the same facts."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from monotreme.printable import markdown_text, printable
from monotreme.report.facts import Facts
from monotreme.report.layout import Code, Figure, Glance, Table
from monotreme.report.sections import sections
from monotreme.storage import writing


def write_report(told: Facts, folder: Path) -> list[Path]:
    """Write report.html, report.md and report.json; the same facts give the same bytes.

    Raises:
        StorageError: the folder cannot be written.
    """
    texts = {
        "report.html": html(told),
        "report.md": markdown(told),
        "report.json": json.dumps(told, indent=2, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        with writing(folder / name) as path:
            path.write_text(text, encoding="utf-8", errors="replace")
    return [folder / name for name in texts]


def html(told: Facts) -> str:
    """One page that loads nothing: styles and pictures are in it, and it may run no script."""
    return _render("page.html.jinja", told)


def markdown(told: Facts) -> str:
    """The same words and tables without the pictures."""
    return _render("report.md.jinja", told)


def _render(template: str, told: Facts) -> str:
    return _ENVIRONMENT.get_template(template).render(told=told, sections=sections(told))


def _kind(block: Any) -> str:
    return {Table: "table", Figure: "figure", Code: "code", Glance: "glance"}.get(
        type(block), "words"
    )


def _fenced(text: str) -> Markup:
    """A block of code that no text in it can end."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{printable(text).rstrip()}\n{fence}")


_FILTERS: Mapping[str, Any] = {
    "kind": _kind,
    "fenced": _fenced,
    "svg": Markup,  # drawn by plot.py, which escapes every text in it
    "line": lambda text: Markup(markdown_text(printable(text))),
}
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= _FILTERS
