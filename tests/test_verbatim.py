"""A copied question is found in any text that holds it, and a template is no question."""

import random

from hypothesis import given
from hypothesis import strategies as st

from monotreme.verbatim import FEWEST_WORDS, RUN, TEMPLATE, Stems

WORDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])


def stem(number: int, length: int) -> list[str]:
    return [f"s{number}w{k}" for k in range(length)]


def naive(
    texts: list[list[str]], stems: list[list[str]], least: float
) -> list[tuple[int, int, float]]:
    """Share of a stem's runs, leaving out those of TEMPLATE stems or more, straight from the words."""

    def runs(words: list[str]) -> set[tuple[str, ...]]:
        n = min(RUN, len(words))
        return (
            {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
            if n >= FEWEST_WORDS
            else set()
        )

    def holds(text: list[str], run: tuple[str, ...]) -> bool:
        return any(tuple(text[i : i + len(run)]) == run for i in range(len(text)))

    every = [runs(s) for s in stems]
    count = [{r for r in own if sum(r in other for other in every) < TEMPLATE} for own in every]
    found = []
    for i, text in enumerate(texts):
        for j, own in enumerate(count):
            held = sum(holds(text, run) for run in own)
            if held and held / len(own) >= least:
                found.append((i, j, held / len(own)))
    return found


@given(
    st.lists(st.lists(WORDS, max_size=14), max_size=6),
    st.lists(st.lists(WORDS, max_size=12), max_size=12),
    st.sampled_from([0.01, 0.5, 1.0]),
)
def test_it_finds_what_a_plain_search_finds(texts, stems, least):
    assert [tuple(found) for found in Stems(stems).found_in(texts, least)] == naive(
        texts, stems, least
    )


def test_a_stem_of_any_length_is_found_within_a_long_text():
    stems = [stem(n, length) for n, length in enumerate((FEWEST_WORDS, 5, 7, 8, 9, 30))]
    noise = [f"n{k}" for k in range(3000)]
    texts = [noise[:1500] + words + noise[1500:] for words in stems]
    found = Stems(stems).found_in(texts, 1.0)
    assert [(text, number) for text, number, _ in found] == [(n, n) for n in range(6)]


def test_one_changed_word_costs_the_runs_that_hold_it():
    question = stem(0, 40)
    changed = [*question[:20], "other", *question[21:]]
    ((_, _, share),) = Stems([question]).found_in([changed], 0.5)
    assert share == (40 - RUN + 1 - RUN) / (40 - RUN + 1)


def test_no_run_goes_across_two_texts():
    question = stem(0, 8)
    assert Stems([question]).found_in([question[:4], question[4:]], 0.1) == []


def test_a_template_is_not_counted_and_what_differs_is():
    template = [f"t{k}" for k in range(12)]
    stems = [[*template, *stem(n, 12)] for n in range(TEMPLATE)]
    assert Stems(stems).found_in([template], 0.01) == []
    found = Stems(stems).found_in([stems[3]], 0.5)
    assert [tuple(one) for one in found] == [(0, 3, 1.0)]


def test_the_order_of_texts_does_not_matter():
    stems = [stem(n, 6 + n) for n in range(20)]
    texts = [[*stem(99, n), *stems[n], "end"] for n in range(20)]
    shuffled = random.Random(0).sample(range(20), 20)
    found = Stems(stems).found_in([texts[n] for n in shuffled], 0.9)
    assert sorted((shuffled[i], j) for i, j, _ in found) == [(n, n) for n in range(20)]
