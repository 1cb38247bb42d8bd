"""The facts of a run laid out: titles, words and tables, the same for every form of the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from monotreme.report import models, questions
from monotreme.report.facts import Facts
from monotreme.report.layout import Block, Code, Parts, Table


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


def sections(told: Facts) -> list[Section]:
    """What there is to say of a run, in the order in which it happened; or of two models."""
    every = chain(questions.parts(told), models.parts(told), _origin(told))
    found = (Section(*part) for part in every)
    return [section for section in found if section.blocks]


def _origin(told: Facts) -> Parts:
    if "origin" not in told:
        return
    rows = [
        (stage, f"{one['counts']['read']:,}", f"{one['seconds']:,.1f}", f"{one['peak_bytes']:,}")
        for stage, one in told["stages"].items()
    ]
    yield "Time and memory", [Table(["stage", "read", "seconds", "bytes of memory at most"], rows)]
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
        Table(["file", "name", "SHA-256 or commit"], digests, 3, folded="digests of all files"),
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
