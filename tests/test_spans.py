"""Tokens of choices: those of the whole text, though the context is encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from monotreme.errors import InputError
from monotreme.scoring.spans import Span, encode_pairs

TEXTS = [
    "Question: Which of these is a metal?\nAnswer: iron\n\nQuestion: What is two plus three?\n",
    "The following are multiple choice questions (with answers) about a metal.\n\nA. wood  B. glass",
    "Naïve café 日本語の文章です。 x² + y² = z²\t\t1234567890 don't  can't   \n \n  stop...",
]
PREFIXES = ["", "0 1 2 3 ", "Question: ", "日本語 ", "   ", "don't "]
CONTINUATIONS = [
    " iron",
    " A",
    "iron",
    " 日本語です",
    "\n\nQuestion",
    "'t",
    "   spaced",
    " 12345",
    ".",
]


def pairs() -> list[tuple[str, str]]:
    """Contexts cut off anywhere, also inside a word, with continuations that may join it."""
    whole = "".join(TEXTS)
    cuts = [*range(20, len(whole), 7), len(whole)]
    contexts = [prefix + whole[:cut] for prefix in PREFIXES for cut in cuts]
    return [(context, text) for context in contexts for text in CONTINUATIONS]


def of_wholes(tokenizer: Any, asked: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """The harness's way: the context, and behind it what the whole text has beyond its length."""
    found = []
    for context, continuation in asked:
        moved = context.rstrip()
        head = tokenizer(moved, add_special_tokens=False)["input_ids"]
        whole = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
        found.append((head + whole[len(head) :], len(head)))
    return found


def alike(spans: Sequence[Span], expected: Sequence[tuple[list[int], int]]) -> bool:
    return [(span.tokens.tolist(), span.start) for span in spans] == list(expected)


def fitted(kind: str) -> PreTrainedTokenizerFast:
    """Tokenizers of the kinds that models have, fitted on the texts."""
    special = {"special_tokens": ["<unk>"], "show_progress": False}
    if kind == "words":  # BERT
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=300, **special)
    elif kind == "unigram":  # T5
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", **special)
    elif kind == "one word":  # Llama 2: a space put first, merges across words and lines
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=150, **special)
    else:  # GPT-2, Llama 3
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **special
        )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.num_characters = 0

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.num_characters += sum(map(len, texts))
        return self.tokenizer(texts, **options)


@pytest.mark.parametrize("kind", ["bytes", "one word", "unigram", "words"])
def test_the_tokens_are_those_of_the_whole_text(kind: str) -> None:
    tokenizer = fitted(kind)
    asked = [pair for pair in pairs() if tokenizer.tokenize(pair[1].strip())]
    assert len(asked) > 1800
    known = [
        (pair, expected)
        for pair, expected in zip(asked, of_wholes(tokenizer, asked), strict=True)
        if len(expected[0]) > expected[1]  # a continuation that joins the context has no token
    ]
    spans = encode_pairs(tokenizer, [pair for pair, _ in known], 4096)
    assert alike(spans, [expected for _, expected in known])


@pytest.mark.parametrize("kind", ["bytes", "one word", "unigram", "words"])
def test_a_long_context_is_encoded_once_for_all_its_choices(kind: str) -> None:
    """But for 32 of the choices, with which it is proven that the tokens are right."""
    context = "".join(TEXTS[:2] * 30) + "Answer:"
    counting = Counting(fitted(kind))
    choices = [(context, f" {number}" + " metal" * (number % 3)) for number in range(400)]
    spans = encode_pairs(counting, choices, 10_000)
    assert len({span.start for span in spans}) == 1
    assert counting.num_characters < 40 * len(context) + 400 * 100


@pytest.mark.parametrize("kind", ["bytes", "one word", "unigram", "words"])
def test_examples_are_encoded_once_for_all_questions(kind: str) -> None:
    """With the same tokens, also where a question's first letters could join the examples' last."""
    examples = "".join(TEXTS[:2] * 30)
    starts = ["Question: ", "metal ", "\n\n two", " plus", "'t "]
    questions = [f"{starts[n % len(starts)]}{n} three?\nAnswer:" for n in range(400)]
    asked = [(f"{examples}\n\n{question}", " iron") for question in questions]
    tokenizer = fitted(kind)
    counting = Counting(tokenizer)
    assert alike(encode_pairs(counting, asked, 10_000), of_wholes(tokenizer, asked))
    assert counting.num_characters < 75 * len(examples) + 400 * 400  # 67 of them are proofs


def test_a_context_whose_end_alone_has_other_tokens_is_encoded_whole() -> None:
    """101 letters are 25 fours and one; their last 64 are 16 fours, and three more letters differ."""
    letters = {letter: number for number, letter in enumerate(["a", "b", " ", "aa", "aaaa"])}
    tokenizer = Tokenizer(models.BPE(letters, [("a", "a"), ("aa", "aa")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    asked = [("b a " * number, " aab") for number in range(30, 230)]
    asked[1] = ("a" * 101, "aaa b")  # where no proof is made
    assert alike(encode_pairs(tokenizer, asked, 4096), of_wholes(tokenizer, asked))


def test_a_tokenizer_that_looks_at_the_whole_text_is_given_the_whole_text() -> None:
    """Its normalizer puts two letters first where a long text ends in an exclamation mark."""
    tokenizer = fitted("bytes")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(
        Regex(r"(?m)\AQ(?=.{90,}!\z)"), "xx Q"
    )
    asked = [
        ("".join(TEXTS) + f" {number}", text) for number in range(20) for text in (" A", " B!")
    ]
    expected = of_wholes(tokenizer, asked)
    assert len({len(tokens) - start for tokens, start in expected}) > 1
    assert alike(encode_pairs(tokenizer, asked, 4096), expected)


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation(tokenizer: Any) -> None:
    moved, given = encode_pairs(tokenizer, [("Answer: ", "iron"), ("Answer:", " iron")], 512)
    assert (moved.tokens.tolist(), moved.start) == (given.tokens.tolist(), given.start)


def test_no_special_token_is_added(tokenizer: Any) -> None:
    (span,) = encode_pairs(tokenizer, [("Answer:", " iron")], 512)
    assert tokenizer.bos_token_id not in span.tokens
    assert tokenizer.decode(span.tokens) == "Answer: iron"


@pytest.mark.parametrize(
    ("continuation", "problem"), [("", "has 0 tokens"), (" iron" * 600, "1 to 512 can be scored")]
)
def test_a_continuation_that_cannot_be_scored_is_refused(
    tokenizer: Any, continuation: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        encode_pairs(tokenizer, [("Answer:", continuation)], 512)
