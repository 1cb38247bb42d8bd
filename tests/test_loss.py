"""Laws of the loss: taken a few answers at a time under a frozen head it is cross-entropy, gradient and
all; a model that does more than the head says keeps it; the model is left as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sums, write_model
from tiny_training import EXACT, fresh_model
from torch import Tensor, nn
from torch.nn import functional as F

from monotreme.train import attention, loss
from monotreme.train.batches import MicroBatch, micro_batches
from monotreme.train.encode import encode, load_tokenizer
from monotreme.train.lora import trainable


@pytest.fixture
def row(tiny_model: Path) -> MicroBatch:
    encoded, *_ = encode(load_tokenizer(tiny_model, False), sums(5), 512)
    (found,) = micro_batches(encoded, np.arange(5), np.full(5, 0.01), 10**6)
    return found


def adapted(folder: Path, targets: list[str]) -> Any:
    return fresh_model(folder, targets=targets).double()


def whole(model: Any, row: MicroBatch) -> Tensor:
    """All logits at once, as transformers gives them."""
    told = model(
        input_ids=row.ids,
        position_ids=row.position_ids,
        use_cache=False,
        **attention.boundaries(row.cu_seq_lens, row.max_length),
    ).logits[0]
    losses = F.cross_entropy(told[row.predicts], row.labels, reduction="none") * row.weights
    return torch.stack([part.sum() for part in losses.split(row.num_answer_tokens)])


@pytest.mark.parametrize("at_once", [1, 3 * 384, 2**24])
def test_a_few_at_a_time_is_all_at_once(
    tiny_model: Path, row: MicroBatch, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", at_once)
    model = adapted(tiny_model, ["down_proj", "q_proj"])
    with loss.question_losses(model) as losses:
        assert isinstance(model.get_base_model().get_output_embeddings(), nn.Identity)
        shares = losses(row, False)
    expected = whole(model, row)
    torch.testing.assert_close(shares, expected, **EXACT)
    some = torch.arange(1.0, 6.0, dtype=torch.float64)  # every question's gradient for itself
    weights = list(trainable(model).values())
    ours = torch.autograd.grad((shares * some).sum(), weights)
    theirs = torch.autograd.grad((expected * some).sum(), weights)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_the_head_is_back_in_its_place_whatever_happens(tiny_model: Path) -> None:
    model = adapted(tiny_model, ["down_proj"])
    head = model.get_base_model().get_output_embeddings()
    with pytest.raises(KeyboardInterrupt), loss.question_losses(model):
        raise KeyboardInterrupt
    assert model.get_base_model().get_output_embeddings() is head


def test_a_trained_head_stays(tiny_model: Path, row: MicroBatch) -> None:
    model = adapted(tiny_model, ["down_proj", "lm_head"])
    with loss.question_losses(model) as losses:
        torch.testing.assert_close(losses(row, False), whole(model, row), **EXACT)


def test_logits_that_are_more_than_the_heads_product_keep_it(
    tmp_path: Path, row: MicroBatch
) -> None:
    """A soft cap on the logits, as Gemma 2 has it."""
    model = adapted(write_model(tmp_path / "capped"), ["down_proj"])
    base = model.get_base_model()
    plain = base.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        told = plain(*args, **kwargs)
        told.logits = 30 * torch.tanh(told.logits / 30)
        return told

    base.forward = capped
    with loss.question_losses(model) as losses:
        assert isinstance(base.get_output_embeddings(), nn.Linear)
        torch.testing.assert_close(losses(row, False), whole(model, row), **EXACT)


def test_the_memory_does_not_grow_with_the_vocabulary(tmp_path: Path, row: MicroBatch) -> None:
    """What autograd keeps from the hidden states to the loss."""

    def kept(vocabulary: int) -> int:
        model = adapted(
            write_model(tmp_path / str(vocabulary), vocab_size=vocabulary), ["down_proj"]
        )
        seen = 0

        def note(tensor: Tensor) -> Tensor:
            nonlocal seen
            seen = max(seen, 0 if isinstance(tensor, nn.Parameter) else tensor.numel())
            return tensor

        with (
            loss.question_losses(model) as losses,
            torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
        ):
            losses(row, False)
        return seen

    assert kept(384) == kept(4096)
