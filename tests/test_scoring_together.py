"""Scoring by several processes: the same bytes as by one, whoever scores what, and after any death."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from conftest import write_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from test_evaluate import arc_row, ready, write_lines  # noqa: F401 - a fixture
from test_merge_choose import ready as ready_to_choose  # noqa: F401 - likewise
from test_merge_choose import three
from torch.distributed import HashStore

from monotreme import evaluate, merge, ranks
from monotreme.errors import InputError, RecipeError
from monotreme.evaluate import harness
from monotreme.run import Run, StageWork
from monotreme.scoring import pieces, sheets, team
from monotreme.scoring.pieces import ask
from monotreme.scoring.sheets import Answers, Candidate, Sheet
from monotreme.scoring.team import Team, Watch
from monotreme.storage import sha256

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

FILES = ("items.parquet", "scores.json", "scores.md", "heatmap.svg")


@pytest.fixture
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three questions or so, so that small benchmarks have several."""
    monkeypatch.setattr(sheets, "PORTION", 300)


def outcome(run: Run) -> dict[str, Any]:
    """All that an evaluation leaves, but how long it took and what memory."""
    record = run.record("evaluate")
    told = {key: record[key] for key in record.keys() - {"seconds", "peak_bytes"}}
    return {"record": told, **{name: sha256(run.output("evaluate", name)) for name in FILES}}


def takes_but(monkeypatch: pytest.MonkeyPatch, num: int, then: Callable[[], None]) -> None:
    """Let the process of the test take so many pieces and do something else, while others go on."""
    claims = Team.claims

    def few(self: Team, total: int) -> Iterator[int]:
        for place, number in enumerate(claims(self, total)):
            yield number
            if place + 1 == num:
                break
        then()

    monkeypatch.setattr(Team, "claims", few)


# ── portions ────────────────────────────────────────────────────────────────────────────────────

question = st.tuples(st.sampled_from(["", "a\n\n", "b" * 90 + "\n\n"]), st.text("xyz", max_size=80))


@given(st.lists(question, max_size=30))
def test_portions_hold_every_question_once_and_no_more_than_they_may(
    asked: list[tuple[str, str]],
) -> None:
    sheet = Sheet("any", [head + text for head, text in asked], [("1", "23")] * len(asked))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "PORTION", 200)
        found = list(sheet.portions())
    assert [place for first, last in found for place in range(first, last)] == list(
        range(len(asked))
    )
    assert sorted(sheet.order) == list(range(len(asked)))
    for first, last in found:
        contexts = [sheet.contexts[index] for index in sheet.order[first:last]]
        heads = [context.rpartition("\n\n")[0] for context in contexts]
        again = sum(len(one) for one, other in pairwise(heads) if one == other)
        assert last == first + 1 or sum(map(len, contexts)) + 3 * len(contexts) - again <= 200


def test_questions_with_the_same_examples_lie_together_and_these_count_once() -> None:
    heads = ["examples of one subject\n\n", "examples of another\n\n"]
    asked = [heads[number % 2] + f"question {number}" for number in range(8)]
    sheet = Sheet("any", asked, [("a", "b")] * 8)
    assert [index % 2 for index in sheet.order] == [1] * 4 + [0] * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "PORTION", 130)
        assert list(sheet.portions()) == [(0, 6), (6, 8)]


# ── whoever scores what ─────────────────────────────────────────────────────────────────────────

SHOTS = "Question: Which of these is a metal?\nAnswer: iron\n\n"
CHOICES = ("The answer is 5.", "12", "wood or glass")


def one_sheet() -> Sheet:
    """Questions with few examples and with many."""
    shots = [SHOTS * (1 + 4 * (number % 2)) for number in range(12)]
    asked = [f"{head}Question: What is {i} plus three?\nAnswer:" for i, head in enumerate(shots)]
    return Sheet("sums", asked, [CHOICES[: 2 + i % 2] for i in range(12)])


def candidates(folder: Path) -> list[Candidate]:
    """A model that shares prefixes, and one whose window bites at the longer questions alone."""
    common = {
        "vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 512, "initializer_range": 0.2,
    }  # fmt: skip
    found = []
    for name, more in (
        ("Llama", {}),
        ("Mistral", {"sliding_window": 70, "num_key_value_heads": 4}),
    ):
        torch.manual_seed(0)
        config = getattr(hf, f"{name}Config")(**common, **more)
        getattr(hf, f"{name}ForCausalLM")(config).save_pretrained(folder / name)
        write_tokenizer(folder / name)
        found.append(Candidate(name, folder / name, None, name, False))
    return found


def answers(work: StageWork, asked: Sequence[Candidate]) -> dict[Any, Answers]:
    settings: Any = {"precision": "fp32", "batch_tokens": 256, "num_ranks": 1}
    texts = Sheet("(texts)", [SHOTS * 2, "A", SHOTS], [()] * 3)
    return ask(work, asked, [one_sheet(), texts], **settings)


@pytest.mark.usefixtures("_small_portions")
def test_answers_do_not_depend_on_the_order_of_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the last bit, and not in whether a model is found to share prefixes."""
    asked = candidates(tmp_path)
    forwards = answers(StageWork(tmp_path / "forwards"), asked)
    told = {name: found.way for (name, sheet), found in forwards.items() if sheet == "sums"}
    assert told == {"Llama": "shared", "Mistral": "plain"}
    claims = Team.claims
    monkeypatch.setattr(Team, "claims", lambda self, num: reversed(list(claims(self, num))))
    backwards = answers(StageWork(tmp_path / "backwards"), asked)
    names = [sorted(p.name for p in (tmp_path / way).rglob("*.parquet")) for way in ("forwards", "backwards")]  # fmt: skip
    assert names[0] == names[1]
    assert len(names[0]) > 8
    for name in names[0]:
        one, other = (tmp_path / way / "parts" / name for way in ("forwards", "backwards"))
        assert one.read_bytes() == other.read_bytes()
    for key, one_way in forwards.items():
        assert one_way.rows == backwards[key].rows
        assert one_way.way == backwards[key].way


def test_answers_are_those_of_the_question(tmp_path: Path) -> None:
    """Pieces lie in an order of their own, and come back in the sheet's."""
    asked = candidates(tmp_path)[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "PORTION", 300)
        cut = answers(StageWork(tmp_path / "cut"), asked)["Llama", "sums"].rows.to_pylist()
    whole = answers(StageWork(tmp_path / "whole"), asked)["Llama", "sums"].rows.to_pylist()
    for one, other, choices in zip(cut, whole, one_sheet().choices, strict=True):
        assert one["log_likelihoods"] == pytest.approx(other["log_likelihoods"], abs=1e-3)
        assert len(one["log_likelihoods"]) == len(choices)


@pytest.mark.usefixtures("_small_portions")
@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_ranks_leave_the_bytes_that_one_leaves(
    ready: Callable[..., Run],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    num_ranks: int,
) -> None:
    """The first takes two pieces; the others must do the rest."""
    run = ready()
    evaluate.execute(run)
    alone = outcome(run)
    shutil.rmtree(run.folder / "evaluate")
    takes_but(monkeypatch, 2, lambda: None)
    evaluate.execute(replace(run, num_gpus=num_ranks))
    assert outcome(run) == alone
    assert not (run.folder / "evaluate/parts").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_small_portions")
def test_candidates_are_measured_together_too(
    ready_to_choose: Callable[..., Run],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ready_to_choose(three(tmp_path))
    found = []
    for num_ranks in (1, 2):
        merge.execute(replace(run, num_gpus=num_ranks))
        names = ("candidates.parquet", "choice.json", "choice.md")
        found.append([sha256(run.output("merge", name)) for name in names])
        takes_but(monkeypatch, 1, lambda: None)
        shutil.rmtree(run.folder / "merge")
    assert found[0] == found[1]


# ── deaths ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("_small_portions")
def test_a_killed_rank_ends_the_command_and_the_next_goes_on_to_the_same_bytes(
    ready: Callable[..., Run],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ready()
    evaluate.execute(run)
    alone = outcome(run)
    shutil.rmtree(run.folder / "evaluate")
    parts = run.folder / "evaluate/parts"
    started: list[ranks.Follower] = []

    def kill() -> None:
        """As soon as it has finished a piece."""
        end = time.monotonic() + 100
        while len(list(parts.glob("base-*.parquet"))) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        started[0].process.send_signal(signal.SIGKILL)

    start = ranks.started
    with monkeypatch.context() as patch:
        patch.setattr(ranks, "started", partial(_noted, start, started))
        takes_but(patch, 1, kill)
        with pytest.raises(InputError, match=r"rank 1 of 2 was killed \(SIGKILL\)"):
            evaluate.execute(replace(run, num_gpus=2))
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("base-*.parquet")}
    assert kept
    with monkeypatch.context() as patch:
        patch.setattr(pieces, "read_table", _unchanged(kept, pieces.read_table))
        evaluate.execute(run)
    assert outcome(run) == alone


def _noted(start: Any, into: list[Any], *args: Any) -> Any:
    """`started`, whose processes are also put into a list."""
    block = start(*args)
    enter = block.__enter__

    class Noted:
        def __enter__(self) -> Any:
            into.extend(found := enter())
            return found

        def __exit__(self, *error: Any) -> Any:
            return block.__exit__(*error)

    return Noted()


def _unchanged(kept: dict[Path, int], read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def read_kept(path: Path) -> Any:
        assert kept.get(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
        return read(path)

    return read_kept


@pytest.mark.slow
def test_what_a_rank_cannot_do_is_told_in_its_words(
    ready: Callable[..., Run],  # noqa: F811
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = ready(texts=None)
    shutil.rmtree(run.folder / "merge/base")
    shutil.copytree(trained / "adapter", run.folder / "merge/base")  # not a model
    claims = Team.claims
    monkeypatch.setattr(Team, "claims", lambda self, _num: iter(()) if self.size > 1 else claims(self, _num))  # fmt: skip
    with pytest.raises(InputError, match=r"rank 1 of 2 ended with status 1: .*cannot be loaded"):
        evaluate.execute(replace(run, num_gpus=2))


def test_a_process_on_another_machine_is_missed_by_its_signs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = HashStore()
    watch = Watch(store, 3)
    now = time.monotonic()
    for later in (100, 200):
        monkeypatch.setattr(time, "monotonic", lambda later=later: now + later)
        store.add("signs/1", 1)
        store.set("left/2", "")
        watch.check()  # one gives signs, and the other is done
    monkeypatch.setattr(time, "monotonic", lambda: now + 500)
    with pytest.raises(InputError, match="rank 1 of 3 has given no sign of life for 300 s"):
        watch.check()


# ── started by others ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(tmp_path: Path, tiny_model: Path) -> Callable[[str], list[str]]:
    """`monotreme evaluate --model` of a small benchmark, into a folder of that name."""
    write_lines(tmp_path / "data/sums.jsonl", [arc_row(i) for i in range(9)])
    words = ["evaluate", "--model", str(tiny_model), "--tasks", "sums", "--quiet"]
    words += ["--data", str(tmp_path / "data"), "--set", "evaluate.precision=fp32"]
    return lambda name: ["-m", "monotreme.cli", *words, "--out", str(tmp_path / name)]


def done(words: Sequence[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert found.returncode == 0, found.stderr[-2000:]


@pytest.mark.slow
def test_torchrun_of_two_scores_what_one_scores_and_of_what_is_up_to_date_ends(
    command: Callable[[str], list[str]], tmp_path: Path
) -> None:
    done(command("one"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for _ in range(2):
        done([*torchrun, *command("two")])
    for name in ("items.parquet", "scores.json"):
        one, two = (tmp_path / folder / "evaluate" / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def ranks_of(words: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Two processes as Slurm starts them: nobody but they themselves meets at the port."""
    from monotreme.train.parallel import _free_port

    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.slow
def test_as_slurm_starts_them(command: Callable[[str], list[str]], tmp_path: Path) -> None:
    both = ranks_of(command("slurm"))
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert json.loads((tmp_path / "slurm/evaluate/scores.json").read_text())["scores"]


@pytest.mark.slow
def test_an_error_of_the_first_rank_lets_the_others_go(
    command: Callable[[str], list[str]],
) -> None:
    both = ranks_of([*command("bad"), "--tasks", "nothing"])
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [InputError.exit_code, 0], said


@pytest.mark.slow
def test_who_helps_ends_when_the_first_rank_is_killed(
    command: Callable[[str], list[str]], tmp_path: Path
) -> None:
    first, other = ranks_of(command("killed"))
    end = time.monotonic() + 100
    while not (tmp_path / "killed/evaluate/parts/order.json").exists() and time.monotonic() < end:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    other.communicate(timeout=60)


def test_tasks_of_the_harness_are_not_shared() -> None:
    with pytest.raises(
        RecipeError, match="2 processes cannot share tasks that begin with lm-eval:"
    ):
        harness.check_alone(2)
    harness.check_alone(1)
    assert team.PATIENCE_SECONDS > 10 * team.SIGN_SECONDS
