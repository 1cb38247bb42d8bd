"""Tokens of the answer are marked by characters; nothing is cut; special tokens stand once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import sums, write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from monotreme.errors import InputError, MismatchError
from monotreme.prompt import prompt_and_answer
from monotreme.records import Question
from monotreme.train.encode import Encoded, check_vocabulary, encode, load_tokenizer

BOS, EOS = 1, 2
QUESTION = sums(1)[0]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(folder, trust_remote_code=False)


def answer(tokenizer: Any, encoded: Encoded, number: int = 0) -> str:
    """The text of the trained tokens of one question, the end-of-text token left out."""
    span = slice(*encoded.offsets[number : number + 2])
    ids, mask = encoded.ids[span], encoded.is_answer[span]
    assert ids[mask][-1] == EOS
    return str(tokenizer.decode(ids[mask][:-1]))


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(max_size=20))
def test_the_marked_tokens_are_the_answer(tokenizer: Any, output: str, given: str) -> None:
    """In any script; a byte of the answer is never lost and none of the prompt is trained."""
    question = replace(QUESTION, input=given, output=output)
    encoded, kept, dropped = encode(tokenizer, [question], 10_000)
    assert (kept, dropped) == ([question], [])
    assert answer(tokenizer, encoded) == output
    text, _ = prompt_and_answer(question)
    assert tokenizer.decode(encoded.ids[1:-1]) == text


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["<s>", "</s>", "<unk>"]), st.sampled_from(["instruction", "input", "output"])
)
def test_special_tokens_stand_once_and_their_names_are_text(
    tokenizer: Any, name: str, where: str
) -> None:
    question = replace(QUESTION, **{where: f"a{name}b"})
    encoded, _, _ = encode(tokenizer, [question], 10_000)
    assert encoded.ids[0] == BOS
    assert encoded.ids[-1] == EOS
    assert not np.isin(encoded.ids[1:-1], [0, BOS, EOS]).any()
    assert encoded.is_answer[-1]


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE that merges a line break with the letter after it, and adds no special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["</s>", *alphabet, "ĊW"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ċ", "W")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def test_a_token_over_the_boundary_is_the_answers() -> None:
    tokenizer = merging_tokenizer()
    encoded, _, _ = encode(tokenizer, [replace(QUESTION, output="We")], 10_000)
    trained = tokenizer.convert_ids_to_tokens(encoded.ids[encoded.is_answer])
    assert trained == ["ĊW", "e", "</s>"]
    assert encoded.ids[0] != tokenizer.eos_token_id  # this tokenizer puts nothing first


def test_too_long_is_dropped_whole_and_at_the_limit_is_kept(tokenizer: Any) -> None:
    question = replace(QUESTION, output="x " * 50)
    encoded, _, _ = encode(tokenizer, [question], 10_000)
    (length,) = encoded.lengths.tolist()
    _, kept, dropped = encode(tokenizer, [question], length)
    assert (len(kept), dropped) == (1, [])
    empty, kept, (gone,) = encode(tokenizer, [question], length - 1)
    assert (kept, gone.reason, gone.question) == ([], "too_long", question)
    assert gone.detail == f"{length} tokens, limit {length - 1}"
    assert empty.ids.size == 0


def test_an_empty_answer_never_trains(tokenizer: Any) -> None:
    _, kept, (gone,) = encode(tokenizer, [replace(QUESTION, output="")], 10_000)
    assert (kept, gone.reason) == ([], "no_answer")


def test_questions_together_equal_each_alone(tokenizer: Any) -> None:
    questions = sums(7)
    together, kept, _ = encode(tokenizer, questions, 10_000)
    assert kept == questions
    for number, question in enumerate(questions):
        alone, _, _ = encode(tokenizer, [question], 10_000)
        span = slice(*together.offsets[number : number + 2])
        assert np.array_equal(together.ids[span], alone.ids)
        assert np.array_equal(together.is_answer[span], alone.is_answer)
        assert together.lengths[number] == len(alone.ids)
        assert together.num_answer_tokens[number] == alone.is_answer.sum()


def _other_id(e: Encoded) -> Encoded:
    return replace(e, ids=e.ids + 1)


def _other_mark(e: Encoded) -> Encoded:
    return replace(e, is_answer=~e.is_answer)


def _other_cut(e: Encoded) -> Encoded:
    return replace(e, offsets=e.offsets + np.array([0, 1, 0]))


@pytest.mark.parametrize("change", [_other_id, _other_mark, _other_cut])
def test_the_digest_tells_every_part_apart(
    tokenizer: Any, change: Callable[[Encoded], Encoded]
) -> None:
    encoded, _, _ = encode(tokenizer, sums(2), 10_000)
    same, _, _ = encode(tokenizer, sums(2), 10_000)
    assert encoded.digest == same.digest
    assert change(encoded).digest != encoded.digest


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path: Path) -> None:
    tokenizer = merging_tokenizer()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no end-of-text token"):
        load_tokenizer(tmp_path, trust_remote_code=False)


def test_a_damaged_or_missing_tokenizer_is_one_line(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", ', encoding="utf-8")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="cannot be loaded") as caught:
            load_tokenizer(folder, trust_remote_code=False)
        assert "\n" not in str(caught.value)


def test_a_token_without_embedding_is_refused(tokenizer: Any) -> None:
    encoded, _, _ = encode(tokenizer, sums(1), 10_000)
    largest = int(encoded.ids.max())
    check_vocabulary(encoded, largest + 1, Path("model"))
    with pytest.raises(MismatchError, match=f"gives token {largest}, its model has {largest}"):
        check_vocabulary(encoded, largest, Path("model"))


def test_no_questions_at_all(tokenizer: Any) -> None:
    nothing: list[Question] = []
    encoded, kept, dropped = encode(tokenizer, nothing, 100)
    assert (encoded.lengths.tolist(), kept, dropped) == ([], [], [])
