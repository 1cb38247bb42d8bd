"""In which keys two recipes differ, and settings as short texts."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

ABSENT = "absent"  # of a key that only one of them has
LONGEST = 60  # characters of a setting that are shown


class Difference(NamedTuple):
    """A key such as `curate.sources.math.limit`, and its value in each recipe."""

    key: str
    first: Any
    second: Any


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Keys of two recipes in their plain form whose values are not the same, in the recipe's order.

    An entry of a list goes by its `id`, so that another order of sources is no difference.
    """
    a, b = dict(_leaves(first)), dict(_leaves(second))
    found = (Difference(key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in a | b)
    return [one for one in found if one.first != one.second]


def shown(setting: object) -> str:
    """A setting on one line, a long one cut."""
    text = " ".join(str(setting).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and value and all(_has_id(each) for each in value):
        value = {each["id"]: each for each in value}
    if not isinstance(value, Mapping) or not value:
        yield key, value
        return
    for name, each in value.items():
        yield from _leaves(each, f"{key}.{name}" if key else str(name))


def _has_id(value: Any) -> bool:
    return isinstance(value, Mapping) and "id" in value
