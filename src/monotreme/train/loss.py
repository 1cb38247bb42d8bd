"""What each question of a row adds to the loss of its step.

Only the positions that predict an answer token are taken to the vocabulary, and these a few at a
time: the head is frozen, so the gradient of the hidden states is all that training needs of it, and
it is known as soon as a few logits are. The memory does not grow with answers × vocabulary. Legend:
A answer tokens of a row, H hidden size, V vocabulary, Q questions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from monotreme.train.attention import boundaries
from monotreme.train.batches import MicroBatch

LOGITS_AT_ONCE = 2**24  # 64 MiB in float32
Losses = Callable[[MicroBatch, bool], Tensor]


class _CrossEntropy(torch.autograd.Function):
    """(A,) cross-entropies, times their weights, of (A, H) hidden states under a frozen head."""

    @staticmethod
    def forward(
        ctx: Any, hidden_AH: Tensor, head_VH: Tensor, labels_A: Tensor, weights_A: Tensor
    ) -> Tensor:
        head_VH = head_VH.to(hidden_AH.dtype)
        grad_AH = torch.empty_like(hidden_AH)
        losses = []
        size = max(1, LOGITS_AT_ONCE // len(head_VH))
        for start in range(0, len(labels_A), size):
            part = slice(start, start + size)
            logits = _precise(hidden_AH[part] @ head_VH.T)
            chances, labels = torch.softmax(logits, 1), labels_A[part][:, None]
            losses.append(F.cross_entropy(logits, labels[:, 0], reduction="none"))
            chances.scatter_add_(1, labels, -torch.ones_like(logits[:, :1]))
            chances *= weights_A[part][:, None]
            grad_AH[part] = chances.to(hidden_AH.dtype) @ head_VH
        ctx.save_for_backward(grad_AH)
        return torch.cat(losses) * weights_A

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad_A,), (grad_AH,) = grads, ctx.saved_tensors
        return grad_AH * grad_A[:, None].to(grad_AH.dtype), None, None, None


def _precise(x: Tensor) -> Tensor:
    """In float32, or float64 where it is so."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def question_losses(model: Any) -> Iterator[Losses]:
    """Give what computes each question's share (Q,) of a step's loss from a row.

    The second argument says whether matrix products are done in bfloat16. Inside, the model's head
    is taken off where the loss can do without it; a model that does more to its logits than the
    head (soft caps, scales), or trains the head, keeps it.
    """
    base = model.get_base_model()
    head = base.get_output_embeddings()
    taken, adapted = _can_go(base, head), isinstance(head, LoraLayer)
    try:
        if taken:
            base.set_output_embeddings(nn.Identity())
        yield lambda row, autocast: _losses(
            model, head.weight if taken else None, adapted, row, autocast
        )
    finally:
        base.set_output_embeddings(head)


def _losses(
    model: Any, head_VH: Tensor | None, adapted: bool, row: MicroBatch, autocast: bool
) -> Tensor:
    """An adapted head is given the whole row, for the masks of its dropout are of all tokens."""
    device = next(model.parameters()).device
    predicts = row.predicts.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        told = model(
            input_ids=row.ids.to(device),
            position_ids=row.position_ids.to(device),
            logits_to_keep=0 if adapted else predicts,
            use_cache=False,
            **boundaries(row.cu_seq_lens.to(device), row.max_length),
        ).logits[0]
    told = told[predicts] if adapted else told
    labels_A = row.labels.to(device)
    weights_A = row.weights.to(device, _precise(told).dtype)
    if head_VH is None:
        weighted_A = F.cross_entropy(_precise(told), labels_A, reduction="none") * weights_A
    else:
        hidden_AH = told.to(torch.bfloat16) if autocast else told
        apply: Any = _CrossEntropy.apply
        weighted_A = apply(hidden_AH, head_VH, labels_A, weights_A)
    parts = torch.split_with_sizes(weighted_A, row.num_answer_tokens)
    return torch.stack([part.sum() for part in parts])


@torch.no_grad()
def _can_go(base: Any, head: Any) -> bool:
    """Whether the logits are the head's product and nothing more, the head frozen and plain.

    Without the head the model must give the head's very input as its logits.
    """
    if type(head) is not nn.Linear or head.bias is not None or head.weight.requires_grad:
        return False
    given: list[Tensor] = []

    class Seen(nn.Identity):
        def forward(self, input: Tensor) -> Tensor:
            given.append(input)
            return input

    training = [module for module in base.modules() if module.training]
    base.set_output_embeddings(Seen())
    base.eval()
    try:
        device = next(base.parameters()).device
        ids = torch.tensor([[3, 5, 4]], device=device)
        told = base(input_ids=ids, use_cache=False, **boundaries(torch.tensor([0, 3], dtype=torch.int32, device=device), 3)).logits  # fmt: skip
    finally:
        base.set_output_embeddings(head)
        for module in training:
            module.training = True
    return len(given) == 1 and torch.equal(told, given[0].to(told.dtype))
