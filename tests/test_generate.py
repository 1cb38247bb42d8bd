"""Answers of a model: the same in a batch as alone, the same after a kill, safe to print."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import sums
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from monotreme.errors import BusyError, InputError, RefusedError, UsageError
from monotreme.generate.answerer import Answerer, load_answerer
from monotreme.generate.answers import Asked, answer_file, batches, read_questions
from monotreme.generate.chat import _Speaker, chat
from monotreme.generate.chosen import Chosen, choose
from monotreme.prompt import prompt
from monotreme.records import Question
from monotreme.run import Run

ASKED = [
    Asked(question.instruction, "The numbers are whole. " * (number % 3))
    for number, question in enumerate(sums(11))
]


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Answerer:
    return load_answerer(Chosen(tiny_model), "fp32")


@pytest.fixture(scope="module")
def pocket() -> Answerer:
    """A model that has learned to speak, and so ends its answers."""
    from importlib.resources import files

    return load_answerer(Chosen(Path(str(files("monotreme"))) / "pocket/base"), "fp32")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ── one model, several questions ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["tiny", "pocket"])
def test_a_batch_gives_the_answers_of_one_by_one(
    model: str, request: pytest.FixtureRequest
) -> None:
    answerer: Answerer = request.getfixturevalue(model)
    prompts = [answerer.encode(one.instruction, one.input) for one in ASKED]
    assert len(set(map(len, prompts))) > 1  # some are padded
    alone = [answerer.answer([ids], 24)[0] for ids in prompts]
    assert answerer.answer(prompts, 24) == alone
    assert len({answer.text for answer in alone}) > 1


def test_an_answer_is_the_likeliest_token_after_the_other(tiny: Answerer, tiny_model: Path) -> None:
    """By hand, without a cache: argmax, append, again."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = tiny.encode("What is 1 plus 4?")
    (answer,) = tiny.answer([ids], 12)
    said: list[int] = []
    while len(said) < 12:
        with torch.no_grad():
            said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == 2:
            break
    ended = said[-1] == 2
    text = tiny.tokenizer.decode(said[: -1 if ended else None], skip_special_tokens=True)
    assert (answer.text, answer.num_tokens, answer.finished) == (text, len(said) - ended, ended)


def test_the_prompt_is_the_trainings(tiny: Answerer) -> None:
    """The template after the beginning-of-text token, and no token that a text could smuggle in."""
    ids = tiny.encode("Say </s>", "now")
    text = tiny.tokenizer.decode(ids[1:])
    assert (ids[0], text) == (1, prompt(Question("Say </s>", "now", "", "", "", False)))
    assert 2 not in ids


def test_an_answer_ends_where_the_model_ends_it(pocket: Answerer) -> None:
    (answer,) = pocket.answer([pocket.encode("What is 2 plus 3?")], 200)
    assert answer.finished
    assert answer.num_tokens < 200
    (cut,) = pocket.answer([pocket.encode("What is 2 plus 3?")], 2)
    assert (cut.finished, cut.num_tokens) == (False, 2)
    assert answer.text.startswith(cut.text)


def test_the_models_own_sampling_is_set_aside(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sampling"
    shutil.copytree(tiny_model, folder)
    settings = {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "eos_token_id": [2, 7]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    answerer = load_answerer(Chosen(folder), "fp32")
    ids = answerer.encode("What is 1 plus 4?")
    assert answerer.answer([ids], 16) == answerer.answer([ids], 16)
    assert answerer.ends == [2, 7]  # but what ends its answers holds


def test_an_adapter_answers_as_the_model_it_is_merged_into(
    tiny_model: Path, trained: Path, tiny: Answerer
) -> None:
    ids = [tiny.encode(one.instruction) for one in ASKED[:4]]
    adapted = load_answerer(Chosen(tiny_model, trained / "adapter"), "fp32").answer(ids, 12)
    assert adapted == load_answerer(Chosen(trained / "merged"), "fp32").answer(ids, 12)
    assert adapted != tiny.answer(ids, 12)


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def answered(answerer: Answerer, out: Path, identity: str = "tiny") -> int:
    return answer_file(answerer, identity, ASKED, out, 8, 500)


def test_a_file_of_answers_has_a_line_a_question_in_order(tiny: Answerer, tmp_path: Path) -> None:
    assert answered(tiny, tmp_path / "out.jsonl") == 0
    found = lines(tmp_path / "out.jsonl")
    assert [(row["row"], row["instruction"], row["input"]) for row in found] == [
        (number, one.instruction, one.input) for number, one in enumerate(ASKED, 1)
    ]
    alone = tiny.answer([tiny.encode(ASKED[3].instruction, ASKED[3].input)], 8)[0]
    assert (found[3]["response"], found[3]["num_tokens"]) == (alone.text, alone.num_tokens)


def test_resumed_equals_uninterrupted_wherever_it_was_killed(
    tiny: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    answered(tiny, out)
    whole = out.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 5, ends[0], ends[0] + 1, ends[2] + 9, ends[6] + 1, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:cut])
        assert answered(tiny, out) == whole[:cut].count(b"\n")
        assert out.read_bytes() == whole
    monkeypatch.setattr(tiny, "answer", None)  # nothing is left to answer
    assert answered(tiny, out) == len(ASKED)
    out.unlink()
    with pytest.raises(TypeError):
        answered(tiny, out)


def test_a_kill_in_the_middle_keeps_what_was_finished(
    tiny: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(tiny, tmp_path / "whole.jsonl")
    out, calls, answer = tmp_path / "out.jsonl", [], tiny.answer

    def third_dies(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tiny, "answer", third_dies)
        answered(tiny, out)
    kept = lines(out)
    assert 0 < len(kept) < len(ASKED)
    assert kept == lines(tmp_path / "whole.jsonl")[: len(kept)]
    assert answered(tiny, out) == len(kept)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_other_answers_are_not_mixed_in(tiny: Answerer, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    answered(tiny, out)
    before = out.read_bytes()
    for other in (
        lambda: answered(tiny, out, "another model"),
        lambda: answer_file(tiny, "tiny", ASKED[:-1], out, 8, 500),
        lambda: answer_file(tiny, "tiny", ASKED, out, 9, 500),
    ):
        with pytest.raises(RefusedError, match="holds other answers"):
            other()
    (tmp_path / "notes.jsonl").write_text("mine")
    with pytest.raises(RefusedError):
        answered(tiny, tmp_path / "notes.jsonl")
    assert (out.read_bytes(), (tmp_path / "notes.jsonl").read_text()) == (before, "mine")


def test_two_commands_do_not_write_one_file(tiny: Answerer, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".out.jsonl.lock"), pytest.raises(BusyError):
        answered(tiny, tmp_path / "out.jsonl")


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 400))
def test_batches_cover_every_question_once_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    found = list(batches(lengths, 10, budget))
    assert [row for batch in found for row in batch] == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * (max(lengths[r] for r in batch) + 10) <= budget


def test_a_question_that_does_not_fit_is_named_before_any_is_answered(
    tiny: Answerer, tmp_path: Path
) -> None:
    asked = [*ASKED, Asked("word " * 300, "")]
    with pytest.raises(InputError, match=r"question 12 has .* the model takes 512"):
        answer_file(tiny, "tiny", asked, tmp_path / "out.jsonl", 8, 500)
    assert not (tmp_path / "out.jsonl").exists()


def test_questions_are_read_from_csv_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text('instruction,input\n"Add, please","1\n2"\nWhy?,\n')
    assert read_questions(tmp_path / "q.csv") == [Asked("Add, please", "1\n2"), Asked("Why?", "")]
    rows = [{"question": "Why?"}, {"question": "How?", "input": None}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read_questions(tmp_path / "q.jsonl") == [Asked("Why?", ""), Asked("How?", "")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"instruction": "a"}\n{"text": "b"}', "line 2 has no column 'instruction'"),
        ('{"instruction": "a"}\n{"instruction": " "}', "line 2 has a str in column"),
        ('{"instruction": "a", "input": 3}', "line 1 has a int in column 'input'"),
        ('{"instruction": "a"}\n{"instr', "line 2 is not JSON"),
        ("", "holds no questions"),
    ],
)
def test_a_bad_file_of_questions_is_one_clear_error(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(InputError, match=problem):
        read_questions(tmp_path / "q.jsonl")


# ── which model ──────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_its_adapter_unless_its_base_or_a_merge_is_named(
    make_run: Callable[..., Run], tiny_model: Path, trained: Path
) -> None:
    run = make_run()
    with run.open():
        for stage, name in (("train", "adapter"), ("merge", "base")):
            with run.stage(stage, {}) as work, work.file(name) as path:
                shutil.copytree(trained / {"base": "merged"}.get(name, name), path)
    where = str(run.folder)
    assert choose(where, None) == Chosen(tiny_model, run.folder / "train/adapter")
    assert choose(f"{where}:base", None) == Chosen(tiny_model)
    assert choose(f"{where}:merged-base", None) == Chosen(run.folder / "merge/base")
    with pytest.raises(InputError, match="Name one of base, adapter, merged-base"):
        choose(f"{where}:merged", None)
    with pytest.raises(UsageError, match="does not go with the run"):
        choose(where, trained / "adapter")


def test_a_model_is_a_folder(tiny_model: Path, trained: Path) -> None:
    assert choose(str(tiny_model), trained / "adapter") == Chosen(tiny_model, trained / "adapter")
    with pytest.raises(InputError, match="does not exist"):
        choose("./absent", None)
    plain, adapted = Chosen(tiny_model), Chosen(tiny_model, trained / "adapter")
    assert len({plain.identity, adapted.identity, Chosen(trained / "merged").identity}) == 3


# ── chat ─────────────────────────────────────────────────────────────────────────────────────────


def typed(*lines: str | type[BaseException]) -> Callable[[], str]:
    """A person who types these, presses what is no text, and leaves."""
    left = iter(lines)

    def ask() -> str:
        line = next(left, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return ask


def test_a_chat_streams_the_answers_and_each_question_stands_alone(pocket: Answerer) -> None:
    (answer,) = pocket.answer([pocket.encode("What is 2 plus 3?")], 200)
    said: list[str] = []
    chat(pocket, typed("What is 2 plus 3?", "", "What is 2 plus 3?"), said.append)
    assert "".join(said) == f"{answer.text}\n{answer.text}\n\n"
    assert len(said) > 4  # in pieces


def test_ctrl_c_stops_an_answer_or_the_line_and_the_chat_goes_on(pocket: Answerer) -> None:
    said: list[str] = []
    presses = iter([True])

    def say(text: str) -> None:
        said.append(text)
        if text.strip() and next(presses, False):
            raise KeyboardInterrupt

    chat(pocket, typed(KeyboardInterrupt, "What is 2 plus 3?", "What is 2 plus 3?"), say)
    first, second = "".join(said).split(" (stopped)\n")
    assert first.strip()
    assert second.startswith(first.lstrip("\n"))
    assert len(second) > len(first)


def test_a_question_over_the_models_length_is_told_and_the_chat_goes_on(tiny: Answerer) -> None:
    said: list[str] = []
    chat(tiny, typed("word " * 400), said.append)
    assert "the model takes 512" in said[0]


def test_an_answer_does_not_steer_the_terminal(tiny: Answerer) -> None:
    """The model says ESC [ 2 J, byte by byte: it is shown, not obeyed."""
    said: list[str] = []
    speaker = _Speaker(tiny, said.append)
    speaker.put(torch.tensor([[1, 2]]))  # the prompt
    for token in tiny.tokenizer("\x1b[2J\x9b1m gone\x07", add_special_tokens=False)["input_ids"]:
        speaker.put(torch.tensor([token]))
    speaker.end()
    assert "".join(said) == "\ufffd[2J\ufffd1m gone\ufffd\n"


@pytest.mark.slow
def test_the_commands(tiny_model: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("instruction\nWhat is 1 plus 4?\nWhy?\n")

    def monotreme(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "monotreme.cli", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    words = [
        "generate",
        tiny_model,
        "--adapter",
        trained / "adapter",
        "--input",
        tmp_path / "q.csv",
    ]
    words += ["--max-new-tokens", 5, "--precision", "fp32"]
    done = monotreme(*words)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "q.answers.jsonl"
    assert done.stdout == f"2 answers in {out}, 0 of them from before\n"
    assert [row["instruction"] for row in lines(out)] == ["What is 1 plus 4?", "Why?"]
    assert json.loads(monotreme(*words, "--json").stdout)["kept"] == 2
    done = monotreme("chat", tiny_model, input="Why?\n")
    assert (done.returncode, done.stdout[:2], done.stdout[-1:]) == (0, "> ", "\n"), done.stderr
