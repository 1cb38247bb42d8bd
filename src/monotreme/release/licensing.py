"""What follows for the released set from the licences of its questions."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from monotreme.licenses import TERMS, Term, terms

FILE = "LICENSE.md"

# The Hub's identifiers that are SPDX's in lower case, and those that are not:
# https://huggingface.co/docs/hub/repositories-licenses
_HUB_WORDS = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0
cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0
cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc0-1.0
cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa ofl-1.1 osl-3.0 postgresql
unknown unlicense wtfpl zlib
"""
_HUB_NAMES = {"odbl-1.0": "odbl", "odc-by-1.0": "odc-by", "pddl-1.0": "pddl"}
_HUB = frozenset([*_HUB_WORDS.split(), *_HUB_NAMES.values()])

WORDS: dict[Term, str] = {  # each goes on with licences and sources
    "non-commercial": "As a whole for non-commercial use only, because of",
    "no derivatives": "What is adapted may not be passed on:",
    "own terms": "Terms of their own, for a person to read:",
    "unknown": "No known licence, so that all rights may be reserved:",
    "share-alike": "What is adapted is to be shared under the same licence:",
}


@dataclass(frozen=True)
class Licensed:
    """The questions under one licence.

    Attributes:
        license: SPDX expression, `LicenseRef-…` or "unknown".
        terms: what it asks, the most restrictive first.
    """

    license: str
    sources: tuple[str, ...]
    num_questions: int
    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return f"{self.license} ({', '.join(self.sources)}: {self.num_questions:,})"


def licensed(sources: Iterable[Mapping[str, object]]) -> list[Licensed]:
    """The licences of the sources' rows, the most restrictive first.

    Args:
        sources: as `source_rows` makes them.
    """
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in sources:
        licenses = row["licenses"]
        assert isinstance(licenses, dict)
        for name, num in licenses.items():
            found[name][str(row["source"])] = num
    each = [
        Licensed(name, tuple(nums), sum(nums.values()), terms(name)) for name, nums in found.items()
    ]
    return sorted(each, key=_strictness)


def _strictness(one: Licensed) -> tuple[list[int], str]:
    """Sorts by the worst term, then by the next; what asks for nothing comes last."""
    return [TERMS.index(term) for term in one.terms] + [len(TERMS)], one.license


def consequences(licenses: Sequence[Licensed]) -> list[tuple[str, list[Licensed]]]:
    """For the whole set, the most restrictive first: what holds, and the licences that it is due to."""
    bound = {term: [one for one in licenses if term in one.terms] for term in TERMS}
    return [(WORDS[term], due) for term, due in bound.items() if due]


def license_fields(licenses: Sequence[Licensed]) -> dict[str, str]:
    """The Hub's licence fields; several licences, or one that it has no name for, are `other`."""
    if not licenses:
        return {}
    names = [one.license for one in licenses]
    if len(names) == 1 and (known := _hub_id(names[0])):
        return {"license": known}
    details = ", ".join(f"{one.license} ({one.num_questions:,} questions)" for one in licenses)
    return {
        "license": "other",
        "license_name": "mixed-by-source" if len(names) > 1 else _slug(names[0]),
        "license_link": FILE,
        "license_details": details,
    }


def needs_page(sources: Iterable[Mapping[str, object]]) -> bool:
    """Whether the card refers to LICENSE.md."""
    return "license_link" in license_fields(licensed(sources))


def _hub_id(name: str) -> str | None:
    found = name.casefold().removesuffix("-only")
    found = _HUB_NAMES.get(found, found)
    return found if found in _HUB else None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.casefold()).strip("-.") or "unnamed"
