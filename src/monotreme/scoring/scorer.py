"""How likely a model finds a text: log-likelihoods of continuations, and losses of whole texts.

    pairs of texts → spans of tokens (spans.py) → sums per span, with prefixes shared (shared.py) or,
    where the model does not allow that, without (plain.py)

Numbers are those of lm-evaluation-harness (models/huggingface.py, `_loglikelihood_tokens`): no
special tokens, context cut from the left, logits in float32 before the softmax.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from monotreme.errors import InputError, RecipeError
from monotreme.machine import device
from monotreme.models import Precision, load_model, load_tokenizer, put_adapter
from monotreme.progress import notice
from monotreme.scoring.plain import score_plain
from monotreme.scoring.shared import score_shared
from monotreme.scoring.spans import Likelihood, Pair, Span, encode, encode_pairs, pieces

Way = Literal["shared", "plain"]
Advance = Callable[[int], None]
MAYBE_LONGEST = 8  # pairs of most characters, of which one should have the most tokens
# Nats by which the two ways may differ, in the mean of a span's tokens: rounding. Random Llamas stayed
# under 1e-5 and .01, models whose state cannot go back were .05 off and more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.03}


def unseen(_done: int) -> None:
    """Progress that nobody is shown."""


class Scorer:
    """A loaded model with its tokenizer.

    Args:
        batch_tokens: tokens of a forward pass, padding included; one longer row goes alone.

    Attributes:
        way: how the last spans were scored: "shared", or "plain" where prefixes cannot be.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.max_length: int = getattr(
            model.config, "max_position_embeddings", tokenizer.model_max_length
        )
        self.way: Way = "shared"
        self._proven: tuple[int, Way] = (0, "shared")  # tokens of the longest row, and its way
        self._told = False

    def continuations(
        self, pairs: Sequence[Pair], what: str, advance: Advance = unseen
    ) -> list[Likelihood]:
        """Score the second text of each pair, given the first, which is not empty.

        Args:
            what: they are, should the model give no numbers.
            advance: told the number of pairs done after each pass.

        Raises:
            InputError: a continuation that gives no token, or more than the model takes; a model
                that gives no numbers.
        """
        return self.spans(encode_pairs(self.tokenizer, pairs, self.max_length), what, advance)

    def spans(
        self, spans: Sequence[Span], what: str, advance: Advance = unseen
    ) -> list[Likelihood]:
        """Score spans of tokens, sharing what several begin with.

        Raises:
            InputError: the model gives no numbers.
        """
        proven, way = self._proven
        self.way = way if _longest(spans) <= proven else self._way_for(spans)
        score = score_shared if self.way == "shared" else score_plain
        return self._score(score, spans, what, advance)

    def texts(self, texts: Sequence[str], what: str) -> list[tuple[float, int]]:
        """Loss (nats, summed) of each text and the number of tokens it was measured on.

        The tokenizer's own special tokens stay, so that the first token is predicted from BOS where
        there is one. A long text is cut into pieces; every token but the first is predicted once.
        """
        encoded = encode(self.tokenizer, texts, special_tokens=True)
        cut = [pieces(tokens, self.max_length) for tokens in encoded]
        spans = [span for own in cut for span in own]
        scored = iter(self._score(score_plain, spans, what, unseen))
        found = [[next(scored) for _ in spans] for spans in cut]
        return [
            (-sum(part.log_likelihood for part in parts), sum(part.num_tokens for part in parts))
            for parts in found
        ]

    def prove(self, spans: Sequence[Span]) -> None:
        """Find out once how spans are scored of which none is longer than the longest of these.

        Longer ones, and all where this was never called, are proved by themselves: a window or a
        rescaled position shows only there. So the way of spans follows from them and from what was
        proved before them alone, whatever else was scored since.
        """
        self._proven = (_longest(spans), self._way_for(spans))

    def prove_pairs(self, pairs: Sequence[Pair]) -> None:
        """The same from the longest of pairs in characters, whose tokens are not counted for it."""
        by_size = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
        chosen = [*by_size[:1], *by_size[-MAYBE_LONGEST:]]
        self.prove(encode_pairs(self.tokenizer, chosen, self.max_length))

    def _way_for(self, spans: Sequence[Span]) -> Way:
        """Score a few spans both ways; where they differ, the way is plain."""
        if not spans:
            return "shared"
        with self._memory():
            problem = _difference(self.model, canary(spans), self.batch_tokens)
        if problem is None:
            return "shared"
        if not self._told:
            notice(f"{type(self.model).__name__} reads every prompt anew: {problem}")
            self._told = True
        return "plain"

    @contextmanager
    def adapted(self, adapter: Path | None) -> Iterator[None]:
        """The same model with an adapter on it inside, and bit for bit as it was afterwards.

        Raises:
            InputError: the adapter cannot be read or is not of this model.
        """
        if adapter is None:
            yield
            return
        with self._memory():
            on_model = put_adapter(self.model, adapter)
            on_model.to(self.model.device)
        try:
            yield
        finally:
            on_model.unload()

    def _score(
        self,
        score: Callable[..., list[Likelihood]],
        spans: Sequence[Span],
        what: str,
        advance: Advance,
    ) -> list[Likelihood]:
        with self._memory():
            scored = score(self.model, spans, self.batch_tokens, advance)
        if not all(math.isfinite(span.log_likelihood) for span in scored):
            raise InputError(f"{what}: the model gives NaN or infinity", "Check its weights")
        return scored

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Name the setting to lower when the device's memory is full."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise RecipeError(
                f"evaluate.batch_tokens = {self.batch_tokens:,} does not fit the device's memory",
                f"Set it to {self.batch_tokens // 2:,}; what was finished is kept",
            ) from None


def _longest(spans: Sequence[Span]) -> int:
    return max((len(span.read) for span in spans), default=0)


def canary(spans: Sequence[Span]) -> list[Span]:
    """The spans on which the two ways are compared.

    They are the longest; its first three quarters with its beginning behind them, so that one row
    leaves another's path as choices do; and the shortest, so that unlike positions meet in a pass.
    """
    longest = max(spans, key=lambda span: len(span.tokens)).tokens
    start = len(longest) - len(longest) // 4
    branch = np.concatenate([longest[:start], longest[: len(longest) - start]])
    shortest = min(spans, key=lambda span: len(span.tokens)).tokens
    scored = min(start, len(longest) - 1)
    return [Span(longest, scored), Span(branch, scored), Span(shortest, 1)]


def _difference(model: Any, spans: Sequence[Span], batch_tokens: int) -> str | None:
    """What is wrong with sharing prefixes in this model; None if nothing is."""
    plain = score_plain(model, spans, batch_tokens, unseen)
    try:
        shared = score_shared(model, spans, batch_tokens, unseen)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model of another kind says to rows it does not know
        return " ".join(str(error).split())[:200]
    off = [
        abs(one.log_likelihood - other.log_likelihood) / one.num_tokens
        for one, other in zip(plain, shared, strict=True)
        if math.isfinite(one.log_likelihood)  # what is not is the model's fault, and told of later
    ]
    if all(nats <= TOLERANCE[model.dtype] for nats in off):
        return None
    return f"with shared prefixes its log-likelihoods are off by {max(off):.2g} a token"


def load_scorer(
    folder: Path,
    *,
    precision: Precision,
    batch_tokens: int,
    trust_remote_code: bool,
) -> Scorer:
    """Load a model folder, on the GPU where there is one.

    Args:
        precision: "bf16" or "fp32".

    Raises:
        InputError: no such model, no safetensors, or weights that cannot be read.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code)
    model = load_model(folder, precision, trust_remote_code)
    try:
        model.to(device())
    except torch.OutOfMemoryError:
        raise RecipeError(
            f"{folder} in {precision} does not fit the device's memory",
            "Set evaluate.precision: bf16, or use a larger device",
        ) from None
    return Scorer(model, tokenizer, batch_tokens)
