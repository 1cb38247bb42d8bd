"""The pages of the documentation, the commands on them and the files that they tell a reader to make."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = re.compile(r"^Examples:\n\n((?:    .*\n)+)", re.MULTILINE)
NEEDS = re.compile(r"# (needs .*|opens a page.*|asks you.*)$")


@dataclass(frozen=True)
class Command:
    """A line that calls monotreme.

    Attributes:
        words: what follows `monotreme`.
        needs: what it needs that a test has not, in the page's words; "" where it can run.
    """

    words: tuple[str, ...]
    needs: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, the rest of its first line, text) of every code block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[Command]:
    """In the page's order: of its code blocks, and of the examples on the generated page."""
    texts = [text for _, _, text in blocks(page)] + EXAMPLES.findall(page.read_text("utf-8"))
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [_command(line) for line in lines if line.startswith("monotreme ")]


def _command(line: str) -> Command:
    needs = NEEDS.search(line)
    return Command(tuple(shlex.split(line, comments=True)[1:]), needs[1] if needs else "")


def files(page: Path) -> dict[str, str]:
    """Name → text of the files that a page tells its reader to save."""
    titled = ((re.search(r'title="([^"]+)"', rest), text) for _, rest, text in blocks(page))
    return {title[1]: text for title, text in titled if title}
