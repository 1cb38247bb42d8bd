"""Plain scoring: every row from its beginning, rows of alike length padded into a batch.

Right for every causal model, and what shared prefixes are checked against (scorer.py). Texts
without prefixes to share, such as those of a perplexity, are scored so.

Shapes: B rows of a batch, L its width in tokens, T scored tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monotreme.scoring.spans import Likelihood, Span

LOGITS = 2**29  # elements of a batch's logits: 1 GiB in bf16
SOFTMAX = 2**26  # elements turned into float32 log-probabilities at a time: 256 MiB


def score_plain(
    model: Any, spans: Sequence[Span], batch_tokens: int, advance: Callable[[int], None]
) -> list[Likelihood]:
    """Score spans in any order; spans that read the same tokens share a row.

    Args:
        batch_tokens: tokens of a forward pass, padding included; one longer row goes alone.
        advance: told the number of spans done after each batch.
    """
    readers = by_tokens(spans)
    order = [readers[key] for key in sorted(readers, key=lambda key: (-len(key), key))]
    rows = [[spans[index] for index in indices] for indices in order]
    scored: list[Likelihood] = []
    for batch in _batches(rows, batch_tokens, vocabulary(model)):
        scored += _forward(model, batch)
        advance(sum(map(len, batch)))
    return put_back([index for indices in order for index in indices], scored)


def by_tokens(spans: Sequence[Span]) -> dict[bytes, list[int]]:
    """Indices of the spans that read the same tokens, by these."""
    readers: dict[bytes, list[int]] = {}
    for index, span in enumerate(spans):
        readers.setdefault(span.read.tobytes(), []).append(index)
    return readers


def put_back(places: Sequence[int], scored: Sequence[Likelihood]) -> list[Likelihood]:
    """What was scored, each at its place among the spans."""
    return [found for _, found in sorted(zip(places, scored, strict=True), key=itemgetter(0))]


def vocabulary(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)


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
            width, first = len(row[0].read), start
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def _forward(model: Any, rows: Sequence[Sequence[Span]]) -> list[Likelihood]:
    """Score one batch; each row holds the spans that read the same tokens.

    Rows are padded on the right without a mask: no token sees what comes after it.
    """
    spans = [span for row in rows for span in row]
    width = max(len(span.read) for span in spans)
    first = min(span.start for span in spans) - 1
    inputs_BL = np.zeros((len(rows), width), np.int64)
    for place, row in zip(inputs_BL, rows, strict=True):
        place[: len(row[0].read)] = row[0].read
    logits = model(
        input_ids=torch.from_numpy(inputs_BL).to(model.device),
        use_cache=False,
        logits_to_keep=width - first,
    ).logits
    row_of = [number for number, row in enumerate(rows) for _ in row]
    places = [
        (width - first) * row + np.arange(span.start - 1, len(span.read)) - first
        for row, span in zip(row_of, spans, strict=True)
    ]
    return likelihoods(logits.flatten(0, 1), spans, places)


def likelihoods(
    logits: torch.Tensor, spans: Sequence[Span], places: Sequence[NDArray[np.int64]]
) -> list[Likelihood]:
    """What (K, V) logits say of spans, of whose scored tokens `places` tells the rows."""
    targets_T = np.concatenate([span.tokens[span.start :] for span in spans]).astype(np.int64)
    scores_T, greedy_T = _token_scores(logits, np.concatenate(places), targets_T)
    sizes = [len(place) for place in places]
    edges = np.cumsum([0, *sizes[:-1]])
    sums, all_greedy = np.add.reduceat(scores_T, edges), np.logical_and.reduceat(greedy_T, edges)
    return [
        Likelihood(float(total), size, bool(best), span.truncated)
        for total, size, best, span in zip(sums, sizes, all_greedy, spans, strict=True)
    ]


def _token_scores(
    logits: torch.Tensor, places_T: NDArray[Any], targets_T: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probability (T,) of each target and whether it is the likeliest, from (K, V) logits."""
    scores, greedy = [], []
    step = max(1, SOFTMAX // logits.shape[-1])
    for start in range(0, len(targets_T), step):
        part = slice(start, start + step)
        places, targets = (
            torch.from_numpy(index[part]).to(logits.device) for index in (places_T, targets_T)
        )
        log_probs = logits[places].float().log_softmax(-1)
        scores.append(log_probs.gather(1, targets[:, None])[:, 0].double().cpu())
        greedy.append((log_probs.argmax(-1) == targets).cpu())
    return torch.cat(scores).numpy(), torch.cat(greedy).numpy()
