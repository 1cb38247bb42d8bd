"""Quick vectors may propose; what is decided is what exact vectors say."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monotreme import machine, similar
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.engine import Died, InProcess, open_engine
from monotreme.neighbors import Pairs, joined
from monotreme.similar import Similar, Spill, Texts, similar_between, similar_within

DIMENSION = 8


class Noisy:
    """Exact vectors crowd around five centres; quick ones are those and noise of a given size.

    A text "3a 7b" has two windows, "3a" and "7b"; noise moves a cosine by at most 2·size + size².
    """

    name = "noisy"
    dimension = DIMENSION

    def __init__(self, noise: float, error: float) -> None:
        self.noise, self.error = noise, error
        self.digest = f"{noise}-{error}".encode().hex()
        self.num_exact = 0

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        return [text.split() for text in texts]

    def encode(
        self, windows: Sequence[str], exact: bool
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        self.num_exact += len(windows) if exact else 0
        for place, window in enumerate(windows):
            random = np.random.default_rng(list(window.encode()))
            centre = np.random.default_rng(int(window[:-1]) % 5).normal(size=DIMENSION)
            row = centre + random.normal(scale=0.3, size=DIMENSION)
            row /= np.linalg.norm(row)
            push = random.normal(size=DIMENSION)
            if not exact:
                row = row + push * self.noise / np.linalg.norm(push)
            yield [place], torch.tensor(row[None], dtype=torch.float32)


TEXTS = [f"{i}a {i + 7}b" if i % 3 == 0 else f"{i}c" for i in range(60)]


def pair_bytes(pairs: Pairs) -> list[bytes]:
    return [column.tobytes() for column in pairs]


def pairs_over(similar: Similar, threshold: float) -> Pairs:
    return joined(list(similar.over(threshold)))


@pytest.mark.parametrize(
    ("noise", "error"), [(0.01, 0.03), (0.03, 0.03), (0.2, 0.01)], ids=["fine", "edge", "worse"]
)
@pytest.mark.parametrize("threshold", [0.7, 0.85, 0.95])
def test_pairs_over_the_threshold_are_the_exact_ones(noise, error, threshold, tmp_path: Path):
    exact = similar_within(Texts(TEXTS, Noisy(0, 0), tmp_path), threshold, 0.6)
    quick = similar_within(Texts(TEXTS, Noisy(noise, error), tmp_path), threshold, 0.6)
    assert len(pairs_over(exact, threshold).left) > 20
    ours, theirs = pairs_over(quick, threshold), pairs_over(exact, threshold)
    assert pair_bytes(ours)[:2] == pair_bytes(theirs)[:2]
    np.testing.assert_allclose(ours.similarity, theirs.similarity, atol=quick.precision.bound)


@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_between_every_similarity_is_exact(noise, tmp_path: Path):
    def found(encoder: Noisy) -> list[bytes]:
        left, right = Texts(TEXTS[:25], encoder, tmp_path), Texts(TEXTS[25:], encoder, tmp_path)
        return pair_bytes(joined(list(similar_between(left, right, 0.8)[0])))

    assert found(Noisy(noise, 0.03)) == found(Noisy(0, 0))


def test_only_texts_of_doubtful_pairs_are_embedded_again(tmp_path: Path):
    encoder = Noisy(0.001, 0.003)
    similar = similar_within(Texts(TEXTS, encoder, tmp_path), 0.8, 0.6)
    assert 0 < similar.precision.embedded_again < len(TEXTS) / 2
    assert 0 < similar.precision.largest_error <= 0.003
    assert encoder.num_exact < len(TEXTS)


def test_quick_vectors_that_are_worse_than_stated_are_given_up(tmp_path: Path):
    similar = similar_within(Texts(TEXTS, Noisy(0.2, 0.01), tmp_path), 0.8, 0.6)
    assert similar.precision.bound == 0
    assert len(pairs_over(similar, 0.8).left) > 0


def test_blocks_hold_everything_over_the_floor_and_agree_with_what_was_decided(tmp_path: Path):
    similar = similar_within(Texts(TEXTS, Noisy(0.01, 0.03), tmp_path), 0.8, 0.6)
    exact = similar_within(Texts(TEXTS, Noisy(0, 0), tmp_path), 0.8, 0.6)
    stored, true = joined(list(similar.blocks(0.6))), joined(list(exact.blocks(0.6)))
    assert pair_bytes(stored.over(0.8)) == pair_bytes(pairs_over(similar, 0.8))
    sure = {(i, j) for i, j, s in zip(*true, strict=True) if s > 0.63}
    assert sure <= set(zip(stored.left, stored.right, strict=True))
    assert stored.similarity.min() > 0.6
    assert pair_bytes(joined(list(similar.blocks(0.6)))) == pair_bytes(stored)


def test_of_many_texts_those_in_one_list_are_compared_unless_all_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    side = Texts(TEXTS, Noisy(0.01, 0.03), tmp_path)
    everything = similar_within(side, 0.8, 0.6)
    assert everything.lists is None
    monkeypatch.setattr(similar, "MOST_EXACT", len(TEXTS) - 1)
    again = similar_within(side, 0.8, 0.6, exact=True)
    assert again.lists is None
    assert pair_bytes(pairs_over(again, 0.8)) == pair_bytes(pairs_over(everything, 0.8))
    some = similar_within(side, 0.8, 0.6)
    assert some.lists is not None
    assert some.lists.recall.num_texts == len(TEXTS)
    true, ours = (
        set(zip(*(column.tolist() for column in pairs_over(found, 0.8)), strict=True))
        for found in (everything, some)
    )
    assert ours <= true
    assert some.lists.recall.low <= len(ours) / len(true) <= some.lists.recall.high


class Deadly(Noisy):
    """Of some windows each worker dies when they are embedded exactly."""

    deadly: frozenset[str] = frozenset()

    def encode(
        self, windows: Sequence[str], exact: bool
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        if exact and self.deadly & set(windows):
            if multiprocessing.parent_process():
                os._exit(1)
            raise SystemExit
        return super().encode(windows, exact)


class Mortal(InProcess):
    """Says of an item what an engine says whose worker has died of it, and starts no processes."""

    def outcomes(
        self, work: Any, items: Iterable[Any], make: Callable[[], Any], on_gpu: bool = False
    ) -> Iterator[Any]:
        for item in items:
            try:
                yield from super().outcomes(work, [item], make, on_gpu)
            except SystemExit:
                yield Died("killed")


@pytest.mark.parametrize(("noise", "error"), [(0.01, 0.03), (0.2, 0.01)], ids=["fine", "worse"])
@pytest.mark.parametrize(
    "opened",
    [
        pytest.param(Mortal, id="here"),
        pytest.param(lambda: open_engine("local", 2, None), id="workers", marks=pytest.mark.slow),
    ],
)
def test_a_text_that_dies_in_the_exact_embedding_alone_is_set_aside(
    opened, noise, error, tmp_path: Path
):
    """What is left is what there is without it; nothing else may take its rows for another's."""
    encoder = Deadly(noise, error)
    whole = similar_within(Texts(TEXTS, encoder, tmp_path / "whole"), 0.7, 0.6)
    assert not len(whole.missing)
    there = joined(list(whole.blocks(0.6)))
    gone = np.unique(there.left[np.abs(there.similarity - 0.7) < 0.02])[[0, 3, -1]].tolist()
    encoder.deadly = frozenset(TEXTS[place].split()[0] for place in gone)
    with opened() as engine:
        side = Texts(TEXTS, encoder, tmp_path / "deadly", engine, set_aside=True)
        found = similar_within(side, 0.7, 0.6)
    assert found.missing.tolist() == gone
    untouched = ~(np.isin(there.left, gone) | np.isin(there.right, gone))
    assert pair_bytes(joined(list(found.blocks(0.6)))) == pair_bytes(there.where(untouched))
    assert pair_bytes(pairs_over(found, 0.7)) == pair_bytes(there.where(untouched).over(0.7))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), max_size=6))
def test_a_spill_gives_back_its_blocks(tmp_path: Path, sizes):
    blocks = [Pairs(np.arange(n), np.arange(n) + 1, np.arange(n) / 7) for n in sizes]
    spill = Spill(tmp_path, iter(blocks))
    for _ in range(2):
        assert [pair_bytes(b) for b in spill] == [pair_bytes(b) for b in blocks]


THINGS = ("a red kite", "two red kites", "an old oak", "the oldest oak", "iron", "liquid iron")
QUESTIONS = [f"{ask} {thing}?" for ask in ("What is", "Describe", "Explain") for thing in THINGS]


def found_by_minilm(cache: Path) -> tuple[list[bytes], float]:
    encoder = find_encoder(BUILT_IN, Path(), lambda _: "")
    similar = similar_within(Texts(QUESTIONS, encoder, cache), 0.8, 0.7)
    return pair_bytes(pairs_over(similar, 0.8))[:2], similar.precision.bound


@pytest.mark.skipif(not machine.has_amx(), reason="no AMX here: quick vectors are the exact ones")
def test_bf16_finds_float32s_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick, bound = found_by_minilm(tmp_path)
    monkeypatch.setattr(machine, "has_amx", lambda: False)
    exact, none = found_by_minilm(tmp_path)
    assert quick == exact
    assert bound > none == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_processors_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fast = found_by_minilm(tmp_path / "cuda")
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    monkeypatch.setattr(machine, "has_amx", lambda: False)
    assert fast == found_by_minilm(tmp_path / "cpu")
