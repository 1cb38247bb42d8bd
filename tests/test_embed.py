"""Vectors belong to texts: not to their order, their neighbours in a batch, or the run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from monotreme import embed as embed_module
from monotreme.embed import embed
from monotreme.encoders import BUILT_IN, Encoder, find_encoder

TEXTS = [
    "How many legs does a spider have?",
    "What is the number of legs of a spider?",
    "Name the capital of France.",
    "",
    " ".join(f"a{i}" for i in range(300)),  # several windows
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return find_encoder(BUILT_IN, Path(), lambda _: pytest.fail("asked the Hub"))


class Spy:
    """An encoder that notes how many texts it was given."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name, self.digest = encoder.name, encoder.digest
        self.dimension, self.error = encoder.dimension, encoder.error
        self.seen: list[str] = []

    def windows(self, texts: Sequence[str]) -> list[list[object]]:
        self.seen += texts
        return self.encoder.windows(texts)

    def encode(
        self, windows: Sequence[object], exact: bool
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        return self.encoder.encode(windows, exact)


def test_rows_are_unit_and_similar_texts_are_near(encoder, tmp_path: Path):
    rows, owner, _ = embed(TEXTS, encoder, tmp_path)
    assert owner.tolist() == [0, 1, 2, 3, *[4] * (len(owner) - 4)]
    assert len(owner) > 5
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] > 0.8 > rows[0] @ rows[2]


def test_order_repetition_and_company_change_no_byte(encoder, tmp_path: Path):
    once = embed(TEXTS, encoder, tmp_path / "a")
    again = embed([*TEXTS[:2], *TEXTS[2:], *TEXTS], encoder, tmp_path / "b")
    half = len(again.rows) // 2
    assert again.rows[:half].tobytes() == again.rows[half:].tobytes() == once.rows.tobytes()
    for i, text in enumerate(TEXTS):
        alone = embed([text], encoder, tmp_path / f"alone{i}")
        assert alone.rows.tobytes() == once.rows[once.owner == i].tobytes()


def test_known_texts_are_not_computed_again(encoder, tmp_path: Path):
    first = embed(TEXTS, encoder, tmp_path)
    spy = Spy(encoder)
    second = embed([*TEXTS, "new"], spy, tmp_path)
    assert spy.seen == ["new"]
    assert second.rows[:-1].tobytes() == first.rows.tobytes()


def test_shards_change_no_byte(encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = embed(TEXTS, encoder, tmp_path / "whole")
    monkeypatch.setattr(embed_module, "SHARD_TEXTS", 2)
    cut = embed(TEXTS, encoder, tmp_path / "cut")
    assert len(list((tmp_path / "cut").rglob("*.safetensors"))) == 3
    assert cut.rows.tobytes() == whole.rows.tobytes()
    assert cut.owner.tobytes() == whole.owner.tobytes()


def test_exact_vectors_lie_apart_from_quick_ones(encoder, tmp_path: Path):
    embed(TEXTS, encoder, tmp_path)
    spy = Spy(encoder)
    exact = embed(TEXTS, spy, tmp_path, exact=True)
    assert bool(spy.seen) == bool(encoder.error)
    alone = embed(TEXTS, encoder, tmp_path / "other", exact=True)
    assert exact.rows.tobytes() == alone.rows.tobytes()


def test_a_broken_cache_file_is_made_again(encoder, tmp_path: Path):
    first = embed(TEXTS[:2], encoder, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(embed(TEXTS[:2], encoder, tmp_path).rows, first.rows)


def test_no_texts_have_no_vectors(encoder, tmp_path: Path):
    rows, owner, _ = embed([], encoder, tmp_path)
    assert rows.shape == (0, 384)
    assert owner.shape == (0,)
