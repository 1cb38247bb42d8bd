"""Keywords: every one is found as a word of its own, none inside another word or in plain prose."""

import ast
from pathlib import Path

import pytest

from monotreme import keywords
from monotreme.keywords import KEYWORDS, has_keyword


def test_keywords_are_distinct_and_well_formed() -> None:
    assert len(set(KEYWORDS)) == len(KEYWORDS) > 300
    assert all(keyword == " ".join(keyword.lower().split()) for keyword in KEYWORDS)


def test_no_comma_is_missing() -> None:
    """Without it two neighbours would be one text over two lines, and neither would match."""
    nodes = ast.walk(ast.parse(Path(keywords.__file__).read_text("utf-8")))
    words = [node for node in nodes if isinstance(node, ast.Constant) and node.value in KEYWORDS]
    assert len(words) == len(KEYWORDS)
    assert all(node.lineno == node.end_lineno for node in words)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_every_keyword_matches_as_a_word_of_its_own(keyword: str) -> None:
    assert has_keyword(f"Tell me ({keyword.upper()}), please.")
    assert has_keyword(keyword.title())
    assert has_keyword(f"these {keyword}s there")
    assert has_keyword(keyword.replace(" ", "\n "))
    assert not has_keyword(f"x{keyword}x")
    assert not has_keyword(f"q{keyword}")
    assert not has_keyword(f"{keyword}9")


@pytest.mark.parametrize(
    "prose",
    [
        "",
        "She turned on the light and felt a force pull her back to the root of the old tree.",
        "He paid a large sum of money, and the power of the queen was at its limit.",
        "The matrix of streets lost its gravity; momentum was with the rebels.",
        "A function was held in the hall, and the product of their work was on show.",
        "The band played a light, atmospheric set and the crowd lost all sense of mass.",
        "Heat the oil, add a fraction of the sauce, and serve with prime beef.",
        "Her general logic was that the wind and the sound of rain made a fine series of nights.",
        "My brother works in a cell of the union and has a degree of sympathy for its volume.",
        "I cannot stand his acid tone, the tension, the pressure and the charge he laid on us.",
        "Write a poem about a lonely king whose field lies at the root of a mountain.",
        "The premises were searched for the premise of the play, a paradox to nobody.",
    ],
)
def test_prose_does_not_match(prose: str) -> None:
    assert not has_keyword(prose)
