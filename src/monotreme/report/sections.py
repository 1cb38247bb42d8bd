"""The facts of a run laid out: titles, words and tables, the same for every form of the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from monotreme.report import models, questions
from monotreme.report.facts import QUESTIONS, Facts
from monotreme.report.layout import Block, Code, Glance, Parts, Table, interval


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


def sections(told: Facts) -> list[Section]:
    """What there is to say of a run, in the order in which it happened; or of two models."""
    every = chain(_glance(told), questions.parts(told), models.parts(told), _origin(told))
    found = (Section(*part) for part in every)
    return [section for section in found if section.blocks]


def _glance(told: Facts) -> Parts:
    """What the reader came for, in at most six figures."""
    counts = {stage: one["counts"] for stage, one in told["stages"].items()}
    found = []
    if "curate" in counts:
        found.append((f"{counts['curate']['read']:,}", "questions read"))
    if holder := next((stage for stage in QUESTIONS if stage in counts), None):
        found.append((f"{counts[holder]['kept']:,}", "questions kept"))
    if "decontaminate" in counts:
        found.append((f"{counts['decontaminate']['dropped']:,}", "leaks of benchmarks dropped"))
    for row in models.whole(told)[:1]:
        words = f"points, {row['model']} against {row['against']} ({interval(row)})"
        found.append((f"{row['delta']:+.2f}", words))
    yield "At a glance", [Glance(found)] if found else []


TIME = {
    "seconds": ("seconds", ",.1f"),
    "processes": ("processes", ",d"),
    "hours": ("hours", ",.4f"),
    "peak_gib": ("GiB of memory at most", ",.3g"),
    "price": ("price", ",.2f"),
}


def _time(told: Facts) -> Parts:
    known = {key: form for key, form in TIME.items() if key in told["time"][0]}
    rows = [
        (row["stage"], *("" if row[key] is None else f"{row[key]:{form}}" for key, (_, form) in known.items()))
        for row in told["time"]
    ]  # fmt: skip
    yield (
        "Time and memory",
        [
            "Hours are seconds × processes: of a GPU each, or of the machine where there is none. What a "
            "killed command did before a stage was taken up again is not in them.",
            Table(["stage", *(words for words, _ in known.values())], rows),
        ],
    )


def _origin(told: Facts) -> Parts:
    if "origin" not in told:
        return
    yield from _time(told)
    versions: dict[str, dict[str, None]] = {}  # of each package all that stages ran with
    for origin in told["origin"].values():
        for package, version in origin["versions"].items():
            versions.setdefault(package, {})[version] = None
    packages = [(package, ", ".join(known)) for package, known in versions.items()]
    kinds = (("read by", "inputs"), ("left by", "outputs"))
    digests = [
        (f"{words} {stage}", name, one if isinstance(one, str) else one["sha256"])
        for stage, origin in told["origin"].items()
        for words, kind in kinds
        for name, one in origin[kind].items()
    ]
    settings = [(stage, str(one["seed"]), one["settings_digest"]) for stage, one in told["origin"].items()]  # fmt: skip
    yield "Versions, seeds and digests", [
        Table(["package", "version"], [*packages, *told["machine"].items()], 2),
        Table(["stage", "seed", "digest of its settings"], settings, 3),
        Table(["file", "name", "SHA-256 or commit"], digests, 3, folded="Digests of all files"),
        *([Table(["Hub repository", "commit"], list(told["revisions"].items()), 2)] if told["revisions"] else []),
    ]  # fmt: skip
    yield (
        "How to rebuild it all",
        [
            "Save what follows as recipe.yaml and give one command. Relative paths of files are relative to it.",
            Code("monotreme run recipe.yaml"),
            Code(told["recipe"]),
        ],
    )
