"""Shared prefixes: whatever is read once, the numbers are those of reading it every time."""

import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from conftest import write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from monotreme.scoring.plain import score_plain
from monotreme.scoring.prefixes import passes
from monotreme.scoring.scorer import Scorer, canary, load_scorer
from monotreme.scoring.shared import _ungrouped, score_shared
from monotreme.scoring.spans import Likelihood, Span, encode_pairs

TOLERANCE = 1e-4  # nats, float32

# PEFT 0.21 asks transformers 5 for an attribute by its old name; here only to make an adapter.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def ignore(_: int) -> None:
    """Progress that nobody watches."""


def span(tokens: Sequence[int], num_scored: int = 1) -> Span:
    return Span(np.asarray(tokens, np.int32), len(tokens) - num_scored)


def drawn(seed: int, num: int, *, most: int = 6) -> list[int]:
    """Few different tokens, so that prefixes meet by chance too."""
    return random.Random(seed).choices(range(3, 3 + most), k=num)


def questions(num_shots: int, num_questions: int, num_choices: int, length: int = 12) -> list[Span]:
    """Choices of questions behind the same examples, as MMLU's are."""
    shots = drawn(0, num_shots)
    return [
        span(
            [*shots, *drawn(number, length), *drawn(100 * number + choice, 1 + choice)], 1 + choice
        )
        for number in range(1, 1 + num_questions)
        for choice in range(num_choices)
    ]


def alike(one: Sequence[Likelihood], other: Sequence[Likelihood]) -> bool:
    return all(
        abs(a.log_likelihood - b.log_likelihood) <= TOLERANCE
        and (a.num_tokens, a.greedy, a.truncated) == (b.num_tokens, b.greedy, b.truncated)
        for a, b in zip(one, other, strict=True)
    )


SETS = {
    "a subject": questions(60, 5, 4),
    "no examples": questions(0, 5, 4, length=40),
    "one token each": [span([*drawn(1, 30), letter]) for letter in range(3, 20)],
    "one context begins another": [span(drawn(2, num), 3) for num in range(4, 40, 3)],
    "scored within what is shared": [span(drawn(3, 40), num) for num in range(1, 39, 4)],
    "scored from further back": [
        span(drawn(2, num), scored)
        for num, scored in ((20, 1), (22, 1), (24, 23), (26, 2), (30, 29))
    ],
    "the same twice": 2 * [span(drawn(4, 9), 2)],
    "nothing in common": [span([seed, *drawn(seed, 20)], 5) for seed in range(3, 9)],
    "a single one": [span([3, 4])],
}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.mark.parametrize("batch_tokens", [1, 25, 70, 100_000])
@pytest.mark.parametrize("name", SETS)
def test_shared_prefixes_give_what_plain_scoring_gives(
    model: Any, name: str, batch_tokens: int
) -> None:
    spans = SETS[name]
    plain = score_plain(model, spans, 1024, ignore)
    assert alike(score_shared(model, spans, batch_tokens, ignore), plain)
    places = random.Random(0).sample(range(len(spans)), len(spans))
    shuffled = score_shared(model, [spans[place] for place in places], batch_tokens, ignore)
    assert alike(shuffled, [plain[place] for place in places])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", SETS)
def test_a_gpu_gives_what_the_processor_gives(model: Any, name: str) -> None:
    """Its key heads are spread out first; all else is the same."""
    spans = SETS[name]
    plain = score_plain(model, spans, 1024, ignore)
    on_gpu = score_shared(deepcopy(model).to("cuda"), spans, 70, ignore)
    for found, expected in zip(on_gpu, plain, strict=True):
        assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-3)


def test_key_heads_are_spread_over_their_groups() -> None:
    """What a GPU is given (shared.py, `_ungrouped`) is what a group shares."""
    query, key, value = (torch.randn(1, heads, 7, 8) for heads in (4, 2, 2))
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    spread = (_ungrouped(states, 4) for states in (key, value))
    found = F.scaled_dot_product_attention(query, *spread)
    assert torch.allclose(found, expected, atol=1e-6)


def test_every_scored_span_is_told_of_once(model: Any) -> None:
    spans, told = SETS["a subject"], []
    score_shared(model, spans, 70, told.append)
    assert sum(told) == len(spans)
    assert len(told) > 1


def test_the_models_own_attention_comes_back(model: Any) -> None:
    before = model.config._attn_implementation
    score_shared(model, SETS["a subject"], 100, ignore)
    assert model.config._attn_implementation == before


# ── what is read ────────────────────────────────────────────────────────────────────────────────


def test_examples_are_read_once_a_subject_and_a_question_once_for_its_choices() -> None:
    """60 tokens of examples, and of five questions 12 and four choices' tokens but the last."""
    (only,) = passes(SETS["a subject"], 100_000, 100_000)
    assert only.num_tokens <= 60 + 5 * (12 + 0 + 1 + 2 + 3)
    assert only.num_tokens > 60 + 5 * (12 + 3)


def test_the_first_tokens_that_any_text_has_are_not_worth_a_mask() -> None:
    rows = [span([3, 4, *drawn(seed, 60, most=300)]) for seed in range(5)]
    (only,) = passes(rows, 100_000, 100_000)
    assert [segment.depth for segment in only.segments] == [0] * 5


stem = drawn(0, 8)
ending = st.lists(st.integers(3, 5), min_size=2, max_size=6)
row = st.builds(lambda num, end: stem[:num] + end, st.integers(0, len(stem)), ending)


@settings(deadline=None)
@given(st.lists(row, min_size=1, max_size=12), st.integers(1, 40), st.data())
def test_a_pass_has_all_that_it_needs(rows: list[list[int]], budget: int, data: Any) -> None:
    """Played through without a model: a path holds the row's tokens, each place predicts the next."""
    spans = [
        span(row, data.draw(st.integers(1, len(row) - 1), label="scored tokens")) for row in rows
    ]
    path, scored = [0] * 14, []
    for one in passes(spans, budget, budget):
        assert len(one.segments) == 1 or one.num_tokens <= budget
        line, positions = np.concatenate(one.tokens), np.concatenate(one.positions)
        seen: list[list[int]] = []  # what each token of the pass sees, itself at the end
        for segment in one.segments:
            for place in range(segment.place, segment.place + segment.length):
                path[positions[place]] = int(line[place])
                seen.append(path[: positions[place] + 1])
        for index, places in zip(one.spans, one.places, strict=True):
            whole = spans[index].tokens.tolist()
            ends = range(spans[index].start, len(whole))
            assert [seen[place] for place in places] == [whole[:end] for end in ends]
            scored.append(index)
    assert sorted(scored) == list(range(len(spans)))


# ── models that cannot share ────────────────────────────────────────────────────────────────────


def small(kind: str, **shape: Any) -> dict[str, Any]:
    common = {
        "vocab_size": 384,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "initializer_range": 0.2,
    }
    heads = {"num_attention_heads": 4, "max_position_embeddings": 512, "intermediate_size": 64}
    return {**common, **({} if kind in ("Mamba", "Bloom") else heads), **shape}


ABLE = {
    "Mistral": {"sliding_window": 500, "num_key_value_heads": 2},
    "Qwen2": {"num_key_value_heads": 1},
    "GPTNeoX": {},
    "Phi3": {"num_key_value_heads": 2, "pad_token_id": 0},
    "Gemma": {"num_key_value_heads": 2, "head_dim": 8},
}
UNABLE = {
    "Mistral": {"sliding_window": 16, "num_key_value_heads": 2},  # its window bites
    "Gemma2": {"num_key_value_heads": 2, "head_dim": 8},  # cuts its scores softly
    "Bloom": {"n_head": 4},  # no rotation, a bias by distance
    "Mamba": {"state_size": 4},  # no attention at all
}


def scorer_of(kind: str, shape: dict[str, Any], folder: Path) -> Scorer:
    torch.manual_seed(0)
    config = getattr(hf, f"{kind}Config")(**small(kind, **shape))
    model = getattr(hf, f"{kind}ForCausalLM")(config).eval()
    write_tokenizer(folder)
    return Scorer(model, AutoTokenizer.from_pretrained(folder), 1024)


SHOTS = "Question: Which of these is a metal?\nAnswer: iron\n\n" * 3
PAIRS = [
    (f"{SHOTS}Question: What is {number} plus three?\nAnswer:", f" {choice}")
    for number in range(4)
    for choice in ("The answer is 5.", "12", "wood or glass")
]


def plainly(scorer: Scorer) -> list[Likelihood]:
    return score_plain(scorer.model, encode_pairs(scorer.tokenizer, PAIRS, 512), 1024, ignore)


@pytest.mark.parametrize("kind", ABLE)
def test_other_models_share_too(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = scorer_of(kind, ABLE[kind], tmp_path)
    shared = scorer.continuations(PAIRS, "pairs")
    assert (scorer.way, capsys.readouterr().err) == ("shared", "")
    assert alike(shared, plainly(scorer))


@pytest.mark.parametrize("kind", UNABLE)
def test_a_model_that_cannot_share_falls_back_and_says_so(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = scorer_of(kind, UNABLE[kind], tmp_path)
    found = scorer.continuations(PAIRS, "pairs")
    assert scorer.way == "plain"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{kind}ForCausalLM reads every prompt anew: ")
    assert alike(found, plainly(scorer))
    scorer.continuations(PAIRS, "pairs")
    assert capsys.readouterr().err == ""  # once is enough


def test_a_window_that_bites_later_is_found_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = scorer_of("Mistral", {"sliding_window": 70, "num_key_value_heads": 2}, tmp_path)
    short = [(context.removeprefix(SHOTS), choice) for context, choice in PAIRS]
    scorer.continuations(short, "short")
    assert scorer.way == "shared"
    scorer.continuations(PAIRS, "long")
    assert scorer.way == "plain"
    scorer.continuations(short, "short again")
    assert scorer.way == "shared"  # whatever was scored before
    assert "a window of 70 tokens" in capsys.readouterr().err


@pytest.mark.parametrize("name", SETS)
def test_in_the_canary_one_row_leaves_the_path_of_another(name: str) -> None:
    """A model that cannot go back would still score a row that only goes on where another ends."""
    spans = SETS[name]
    chosen = canary(spans)
    assert max(len(found.read) for found in chosen) == max(len(found.read) for found in spans)
    if name == "a single one":
        return
    (only,) = passes(chosen[:2], 1000, 1000)
    first, second = only.segments
    assert 0 < second.depth < first.length


# ── adapters on a shared base ───────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random adapters that matter, of different ranks."""
    found = []
    for rank in (2, 4):
        torch.manual_seed(rank)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=rank, target_modules=["gate_proj", "v_proj"],
            init_lora_weights=False,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("adapter")
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        get_peft_model(base, config).save_pretrained(folder)
        found.append(folder)
    return found


def test_an_adapter_on_a_shared_base_scores_as_the_adapter_loaded_alone(
    tiny_model: Path, adapters: list[Path]
) -> None:
    def load() -> Scorer:
        return load_scorer(tiny_model, precision="fp32", batch_tokens=1024, trust_remote_code=False)

    shared = load()
    base = shared.continuations(PAIRS, "base")
    for adapter in [*adapters, adapters[0]]:
        alone = load()
        with shared.adapted(adapter), alone.adapted(adapter):
            found = shared.continuations(PAIRS, "adapter")
            assert found == alone.continuations(PAIRS, "adapter")
        assert not alike(found, base)
        assert shared.continuations(PAIRS, "base") == base
    with shared.adapted(None):
        assert shared.continuations(PAIRS, "base") == base
