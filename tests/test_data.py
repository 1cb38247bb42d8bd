"""The encoded set: the same from the cache as made, made again where anything behind it changed."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import finish, sums, write_model
from test_train import stage
from tiny_training import uneven

from monotreme import train
from monotreme.run import Run
from monotreme.train import data
from monotreme.train.data import held_out, training_data


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions were encoded in each call."""
    calls: list[int] = []
    real = data.encode

    def counted(tokenizer, questions, limit):
        calls.append(len(questions))
        return real(tokenizer, questions, limit)

    monkeypatch.setattr(data, "encode", counted)
    return calls


def test_read_from_the_cache_is_what_was_made(
    make_run: Callable[..., Run], tiny_model: Path, encodings: list[int]
) -> None:
    long = replace(sums(1)[0], output="7" * 600)
    run = stage(make_run, [*uneven(9), long])
    made, again = (training_data(run, tiny_model, 300) for _ in range(2))
    assert encodings == [10]
    assert made.encoded.digest == again.encoded.digest
    assert made.questions == again.questions == uneven(9)
    assert [(d.question, d.reason, d.detail) for d in again.dropped] == [
        (d.question, d.reason, d.detail) for d in made.dropped
    ]
    assert again.dropped[0].reason == "too_long"
    assert isinstance(again.encoded.ids, np.memmap)


def test_what_it_depends_on_is_never_mixed_up(
    make_run: Callable[..., Run], tiny_model: Path, tmp_path: Path, encodings: list[int]
) -> None:
    """Other questions, another limit, another tokenizer: encoded anew; a seed is no reason."""
    run = stage(make_run, uneven(9))
    training_data(run, tiny_model, 300)
    assert len(training_data(run, tiny_model, 100).questions) < 9
    other = write_model(tmp_path / "other")
    (other / "added_tokens.json").write_text("{}", encoding="utf-8")
    training_data(run, other, 300)
    finish(run, "decontaminate", uneven(8))
    assert len(training_data(run, tiny_model, 300).questions) == 8
    assert encodings == [9, 9, 9, 8]
    training_data(stage(make_run, uneven(8), batch_size=3), tiny_model, 300)
    assert len(encodings) == 4


@pytest.mark.parametrize("name", ["ids.npy", "about.json"])
@pytest.mark.parametrize("harm", ["cut", "other", "gone"])
def test_a_damaged_set_is_made_again(
    make_run: Callable[..., Run], tiny_model: Path, encodings: list[int], name: str, harm: str
) -> None:
    run = stage(make_run, uneven(9))
    made = training_data(run, tiny_model, 300).encoded.digest
    (folder,) = run.cache("encoded").iterdir()
    path = folder / name
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-7] if harm == "cut" else content[:-9] + b"123456789")
    assert training_data(run, tiny_model, 300).encoded.digest == made
    assert encodings == [9, 9]


@pytest.mark.slow
def test_two_processes_encode_once(make_run: Callable[..., Run], tiny_model: Path) -> None:
    """As the ranks of torchrun do, which all come to it at the same time."""
    run = stage(make_run, uneven(9))
    with run.open():
        pass
    told = run.folder / "told"
    code = f"""
import time
from pathlib import Path
from monotreme.run import open_run
from monotreme.train import data
encode = data.encode
def slow(*given):
    with open({str(told)!r}, "a") as lines:
        lines.write("encoded\\n")
    time.sleep(3)
    return encode(*given)
data.encode = slow
run = open_run(Path({str(run.folder)!r}))
print(data.training_data(run, Path({str(tiny_model)!r}), 300).encoded.digest)
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)
    ]
    digests = [each.communicate(timeout=120)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert digests[0] == digests[1]
    assert told.read_text() == "encoded\n"


def test_held_out_questions_are_trained_on_by_nobody(make_run: Callable[..., Run]) -> None:
    run = stage(make_run, uneven(20), validation=0.25)
    train.execute(run)
    counts = run.record("train")["counts"]
    assert (counts["read"], counts["kept"]) == (20, 15)
    folder = run.model(run.recipe.train.base)
    found = training_data(run, folder, 512)
    held = [d.question for d in found.dropped if d.reason == "held_out"]
    assert len(held) == len(found.held_out.lengths) == 5
    assert not {q.id for q in held} & {q.id for q in found.questions}
    assert found.encoded.lengths.sum() + found.held_out.lengths.sum() == (
        training_data(stage(make_run, uneven(20)), folder, 512).encoded.lengths.sum()
    )


def test_who_is_held_out_hangs_on_seed_and_question_alone() -> None:
    questions = uneven(40)
    drawn = {questions[i].id for i in held_out(questions, 0.25, 1)}
    turned = questions[::-1]
    assert {turned[i].id for i in held_out(turned, 0.25, 1)} == drawn
    assert {questions[i].id for i in held_out(questions, 0.25, 2)} != drawn
    assert len(drawn & {questions[i].id for i in held_out(questions[:39], 10 / 39, 1)}) >= 9
    assert held_out(questions, 0, 1).size == 0
    assert held_out(questions[:3], 0.01, 1).size == 1
    assert held_out(questions[:1], 0.5, 1).size == 0
