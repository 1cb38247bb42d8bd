"""How likely a model finds a text: log-likelihoods of continuations, and losses of whole texts.

    pairs of texts → spans of tokens → rows that share a forward pass → batches → sums per span

Numbers are those of lm-evaluation-harness (models/huggingface.py, `_loglikelihood_tokens`): no
special tokens, context cut from the left, logits in float32 before the softmax.

Shapes: B rows of a batch, L its width in tokens, T scored tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monotreme.errors import InputError, RecipeError
from monotreme.models import Precision, load_model, load_tokenizer, put_adapter
from monotreme.progress import progress

LOGITS = 2**29  # elements of a batch's logits: 1 GiB in bf16
SOFTMAX = 2**26  # elements turned into float32 log-probabilities at a time: 256 MiB
ENCODED_AT_ONCE = 1024  # texts handed to the tokenizer together

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of which those from `start` on are scored, each given all before it.

    Attributes:
        tokens: (n,) ids, start < n and start ≥ 1.
        truncated: whether tokens before them were cut to fit the model.
    """

    tokens: Tokens
    start: int
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Likelihood:
    """A scored span.

    Attributes:
        log_likelihood: sum over its tokens, in nats.
        greedy: whether every token is the model's first choice.
        truncated: whether its context was cut.
    """

    log_likelihood: float
    num_tokens: int
    greedy: bool
    truncated: bool


class Scorer:
    """A loaded model with its tokenizer.

    Args:
        batch_tokens: tokens of a forward pass, padding included; one longer row goes alone.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.max_length: int = getattr(
            model.config, "max_position_embeddings", tokenizer.model_max_length
        )

    def continuations(self, pairs: Sequence[tuple[str, str]], what: str) -> list[Likelihood]:
        """Score the second text of each pair, given the first, which is not empty.

        Raises:
            InputError: a continuation that gives no token, or more than the model takes; a model
                that gives no numbers.
        """
        return self._score(encode_pairs(self.tokenizer, pairs, self.max_length), what)

    def texts(self, texts: Sequence[str], what: str) -> list[tuple[float, int]]:
        """Loss (nats, summed) of each text and the number of tokens it was measured on.

        The tokenizer's own special tokens stay, so that the first token is predicted from BOS where
        there is one. A long text is cut into pieces; every token but the first is predicted once.
        """
        encoded = _encode(self.tokenizer, texts, special_tokens=True)
        pieces = [_pieces(tokens, self.max_length) for tokens in encoded]
        scored = iter(self._score([span for spans in pieces for span in spans], what))
        found = [[next(scored) for _ in spans] for spans in pieces]
        return [
            (-sum(part.log_likelihood for part in parts), sum(part.num_tokens for part in parts))
            for parts in found
        ]

    def _score(self, spans: Sequence[Span], what: str) -> list[Likelihood]:
        try:
            with progress(what, len(spans)) as advance:
                scored = score_spans(self.model, spans, self.batch_tokens, advance)
        except torch.OutOfMemoryError:
            raise RecipeError(
                f"evaluate.batch_tokens = {self.batch_tokens:,} does not fit the device's memory",
                f"Set it to {self.batch_tokens // 2:,}; what was finished is kept",
            ) from None
        if not all(math.isfinite(span.log_likelihood) for span in scored):
            raise InputError(f"{what}: the model gives NaN or infinity", "Check its weights")
        return scored


def load_scorer(
    folder: Path,
    adapter: Path | None,
    *,
    precision: Precision,
    batch_tokens: int,
    trust_remote_code: bool,
) -> Scorer:
    """Load a model folder, and put an adapter on it, on the GPU where there is one.

    Args:
        adapter: folder in PEFT's format with `adapter_model.safetensors`.
        precision: "bf16" or "fp32".

    Raises:
        InputError: no such model, no safetensors, or weights that cannot be read.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code)
    model = load_model(folder, precision, trust_remote_code)
    if adapter is not None:
        model = put_adapter(model, adapter).get_base_model()
    try:
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    except torch.OutOfMemoryError:
        raise RecipeError(
            f"{folder} in {precision} does not fit the device's memory",
            "Set evaluate.precision: bf16, or use a larger device",
        ) from None
    return Scorer(model, tokenizer, batch_tokens)


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]], max_length: int) -> list[Span]:
    """Token spans of (context, continuation) pairs, as the harness's `_encode_pair` makes them.

    Spaces at the end of a context go to the continuation; the continuation's tokens are those of
    both together that follow the number of tokens of the context alone.

    Raises:
        InputError: a continuation that gives no token, or more than `max_length`.
    """
    moved = [_move_spaces(context, continuation) for context, continuation in pairs]
    contexts = dict.fromkeys(context for context, _ in moved)
    ids = dict(zip(contexts, _encode(tokenizer, list(contexts)), strict=True))
    wholes = _encode(tokenizer, [context + continuation for context, continuation in moved])
    return [
        _pair_span(ids[context], whole, max_length, continuation)
        for (context, continuation), whole in zip(moved, wholes, strict=True)
    ]


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _encode(
    tokenizer: Any, texts: Sequence[str], *, special_tokens: bool = False
) -> Iterator[Tokens]:
    """Token ids (n,) of each text; some at a time, because Python's integers take much room."""
    for start in range(0, len(texts), ENCODED_AT_ONCE):
        some = list(texts[start : start + ENCODED_AT_ONCE])
        encoded = tokenizer(some, add_special_tokens=special_tokens, verbose=False)
        yield from (np.asarray(ids, np.int32) for ids in encoded["input_ids"])


def _pair_span(context: Tokens, whole: Tokens, max_length: int, text: str) -> Span:
    continuation = whole[len(context) :]
    if not 0 < len(continuation) <= max_length:
        raise InputError(
            f"choice {text[:60]!r} has {len(continuation):,} tokens, 1 to {max_length:,} can be scored",
            "Mend or remove the benchmark's row",
        )
    tokens = np.concatenate([context, continuation])
    kept = tokens[-(max_length + 1) :]  # the last token is only predicted, never read
    return Span(kept, len(kept) - len(continuation), len(kept) < len(tokens))


def _pieces(tokens: Tokens, max_length: int) -> list[Span]:
    """Cut a text so that each piece begins with the last token of the one before."""
    edges = [*range(0, len(tokens) - 1, max_length), len(tokens) - 1]
    return [Span(tokens[first : last + 1], 1) for first, last in pairwise(edges)]


def score_spans(
    model: Any, spans: Sequence[Span], batch_tokens: int, advance: Callable[[int], None]
) -> list[Likelihood]:
    """Score spans in any order; spans that read the same tokens share a forward pass.

    Args:
        advance: told the number of spans done after each batch.
    """
    readers: dict[bytes, list[int]] = {}
    for index, span in enumerate(spans):
        readers.setdefault(span.tokens[:-1].tobytes(), []).append(index)
    order = [readers[key] for key in sorted(readers, key=lambda key: (-len(key), key))]
    rows = [[spans[index] for index in indices] for indices in order]
    scored: list[Likelihood] = []
    for batch in _batches(rows, batch_tokens, model.config.get_text_config().vocab_size):
        scored += _forward(model, batch)
        advance(sum(map(len, batch)))
    places = (index for indices in order for index in indices)
    return [
        likelihood for _, likelihood in sorted(zip(places, scored, strict=True), key=itemgetter(0))
    ]


def _batches(
    rows: Sequence[list[Span]], batch_tokens: int, vocabulary: int
) -> Iterator[list[list[Span]]]:
    """Runs of rows, longest first, within the budgets of tokens and of logits."""
    batch: list[list[Span]] = []
    width = first = 0
    for row in rows:
        start = min(span.start for span in row)
        first = min(first, start)
        num = len(batch) + 1
        if num * width > batch_tokens or num * (width - first) * vocabulary > LOGITS:
            if batch:
                yield batch
            batch = []
        if not batch:
            width, first = len(row[0].tokens) - 1, start
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def _forward(model: Any, rows: Sequence[Sequence[Span]]) -> list[Likelihood]:
    """Score one batch; each row holds the spans that read the same tokens.

    Rows are padded on the right without a mask: no token sees what comes after it.
    """
    spans = [span for row in rows for span in row]
    width = max(len(span.tokens) for span in spans) - 1
    first = min(span.start for span in spans) - 1
    inputs_BL = np.zeros((len(rows), width), np.int64)
    for place, row in zip(inputs_BL, rows, strict=True):
        place[: len(row[0].tokens) - 1] = row[0].tokens[:-1]
    logits = model(
        input_ids=torch.from_numpy(inputs_BL).to(model.device),
        use_cache=False,
        logits_to_keep=width - first,
    ).logits
    row_of = [number for number, row in enumerate(rows) for _ in row]
    sizes = [len(span.tokens) - span.start for span in spans]
    rows_T = np.repeat(row_of, sizes)
    positions_T = np.concatenate([np.arange(s.start, len(s.tokens)) for s in spans]) - 1 - first
    targets_T = np.concatenate([span.tokens[span.start :] for span in spans]).astype(np.int64)
    scores_T, greedy_T = _token_scores(logits, rows_T, positions_T, targets_T)
    edges = np.cumsum([0, *sizes[:-1]])
    sums, all_greedy = np.add.reduceat(scores_T, edges), np.logical_and.reduceat(greedy_T, edges)
    return [
        Likelihood(float(total), size, bool(best), span.truncated)
        for total, size, best, span in zip(sums, sizes, all_greedy, spans, strict=True)
    ]


def _token_scores(
    logits: torch.Tensor, rows_T: NDArray[Any], positions_T: NDArray[Any], targets_T: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probability (T,) of each target and whether it is the likeliest, from (B, l, V) logits."""
    scores, greedy = [], []
    step = max(1, SOFTMAX // logits.shape[-1])
    for start in range(0, len(targets_T), step):
        part = slice(start, start + step)
        rows, positions, targets = (
            torch.from_numpy(index[part]).to(logits.device)
            for index in (rows_T, positions_T, targets_T)
        )
        log_probs = logits[rows, positions].float().log_softmax(-1)
        scores.append(log_probs.gather(1, targets[:, None])[:, 0].double().cpu())
        greedy.append((log_probs.argmax(-1) == targets).cpu())
    return torch.cat(scores).numpy(), torch.cat(greedy).numpy()
