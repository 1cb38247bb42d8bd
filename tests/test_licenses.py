"""Licences: AND needs all, OR one; what is not known to allow a use does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monotreme.licenses import COMMERCIAL, PASSED_ON, forbids, permits, terms
from monotreme.sources import SOURCES


@pytest.mark.parametrize(
    ("expression", "permitted"),
    [
        ("MIT", True),
        ("apache-2.0", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("Apache-2.0+", True),
        ("Apache-2.0 AND GPL-3.0-only", True),
        ("MIT AND CC-BY-NC-4.0", False),
        ("MIT OR CC-BY-NC-4.0", True),
        ("CC-BY-NC-4.0 OR MIT AND unknown", False),
        ("(CC-BY-NC-4.0 OR MIT) AND CC0-1.0", True),
        ("(CC-BY-NC-4.0 OR MIT) AND unknown", False),
        ("CC-BY-NC-SA-4.0", False),
        ("CC-BY-ND-4.0", False),
        ("LicenseRef-mine", False),
        ("other", False),
        ("unknown", False),
        ("", False),
        ("MIT AND", False),
        ("AND MIT", False),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT Apache-2.0", False),
        ("(" * 10_000, False),
    ],
)
def test_commercial_use(expression, permitted):
    assert permits(expression, COMMERCIAL) == permitted


def test_a_list_of_the_users_own_matches_whole_identifiers():
    mine = ["mit", "LicenseRef-ours"]
    assert permits("MIT", mine)
    assert permits("LicenseRef-ours OR unknown", mine)
    assert not permits("MIT-0", mine)
    assert not permits("Apache-2.0", mine)


def test_no_listed_licence_is_one_that_limits_use():
    assert not [name for name in COMMERCIAL if {"NC", "ND"} & set(name.split("-"))]


def test_which_built_in_sources_may_be_used_commercially():
    free = {source.id for source in SOURCES.values() if permits(source.license, COMMERCIAL)}
    assert free == {"prm800k", "math", "theoremqa", "tigerbot", "arb", "guanaco", "openbookqa"}


ATOMS = st.sampled_from(["MIT", "CC0-1.0", "CC-BY-NC-4.0", "unknown"])
TREES = st.recursive(
    ATOMS, lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner), max_leaves=8
)


def written(tree: object) -> str:
    return tree if isinstance(tree, str) else f"({' '.join(map(written, tree))})"


def meant(tree: object) -> bool:
    if isinstance(tree, str):
        return tree in COMMERCIAL
    one, word, other = tree
    return (all if word == "AND" else any)([meant(one), meant(other)])


@given(TREES)
def test_any_expression_is_permitted_as_its_words_say(tree):
    assert permits(written(tree), COMMERCIAL) == meant(tree)


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("MIT", ()),
        ("CC-BY-4.0", ()),
        ("CC-BY-SA-4.0", ("share-alike",)),
        ("Apache-2.0 AND GPL-3.0-only", ("share-alike",)),
        ("Apache-2.0 OR GPL-3.0-only", ()),
        ("CC-BY-NC-4.0", ("non-commercial",)),
        ("cc-by-nc-sa-4.0", ("non-commercial", "share-alike")),
        ("CC-BY-NC-4.0 OR MIT", ()),
        ("CC-BY-NC-4.0 AND CC-BY-SA-4.0", ("non-commercial", "share-alike")),
        ("CC-BY-ND-4.0", ("no derivatives",)),
        ("CC-BY-NC-ND-4.0", ("non-commercial", "no derivatives")),
        ("CC-BY-ND-4.0 OR CC-BY-4.0", ()),
        ("LicenseRef-ReClor-non-commercial", ("non-commercial", "own terms")),
        ("LicenseRef-mine", ("own terms",)),
        ("unknown", ("unknown",)),
        ("MIT AND unknown", ("unknown",)),
        ("", ("unknown",)),
        ("MIT MIT", ("unknown",)),
    ],
)
def test_what_a_licence_asks_of_who_passes_on(expression, asked):
    assert terms(expression) == asked


def test_what_is_not_passed_on_is_told_with_its_reason():
    assert forbids("CC-BY-NC-SA-4.0") is None, "non-commercial sets may be published as such"
    assert forbids("CC-BY-NC-ND-4.0").startswith("forbids passing on what was adapted")
    assert forbids("LicenseRef-x").startswith("is no standard licence")
    assert forbids("unknown").startswith("names no licence")


@given(st.sampled_from(sorted(PASSED_ON)), st.sampled_from(["unknown", "CC-BY-ND-4.0", "x"]))
def test_what_may_be_passed_on_stays_so_with_a_choice_and_not_with_a_duty(free, closed):
    assert forbids(free) is None
    assert forbids(f"{closed} OR {free}") is None
    assert forbids(f"{closed} AND {free}")
