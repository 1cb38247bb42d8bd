"""Laws of people's verdicts: what was confirmed is never lost, whoever writes at the same time; the
last word of each counts, the gravest of several; a spreadsheet brings them back unchanged."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monotreme import verdicts
from monotreme.errors import InputError
from monotreme.records import VERDICTS
from monotreme.verdicts import Line, Settled


def line(verdict: object, reviewer: str = "one", pair: tuple[str, str] = ("q", "b")) -> Line:
    return Line(*pair, verdict, reviewer, "2026-01-01T00:00:00+00:00")  # type: ignore[arg-type]


def test_the_last_word_of_a_reviewer_counts_and_null_takes_it_back():
    said = [line("duplicate"), line("gray_area")]
    assert verdicts.settle(said) == {("q", "b"): Settled("gray_area", ("one",))}
    assert verdicts.settle([*said, line(None)]) == {}


def test_where_reviewers_disagree_the_gravest_verdict_holds():
    said = [line("similar_but_different"), line("duplicate", "two")]
    assert verdicts.settle(said) == {("q", "b"): Settled("duplicate", ("one", "two"))}
    assert verdicts.settle(reversed(said)) == verdicts.settle(said)


def test_what_is_appended_is_read_back_in_order(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    said = [line("duplicate", "Zoë \u2028 ß"), line(None), line("gray_area", pair=("q", "c"))]
    verdicts.append(path, said[:1])
    verdicts.append(path, said[1:])
    assert verdicts.read(path) == said
    assert verdicts.read(tmp_path / "none.jsonl") == []


def test_a_line_cut_in_half_was_never_confirmed_and_spoils_nothing(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    verdicts.append(path, [line("duplicate")])
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert verdicts.read(path) == [line("duplicate")]
        verdicts.append(path, [line("gray_area")])
        assert verdicts.read(path) == [line("duplicate"), line("gray_area")]


def test_many_writers_at_once_lose_nothing(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            pool.submit(verdicts.append, path, [line("duplicate", pair=("q", str(number)))])
    assert len(verdicts.standing(verdicts.read(path))) == 200


WRITER = """
import sys
from pathlib import Path
from monotreme import verdicts
for number in range(10_000):
    line = verdicts.Line("q" * 5000, str(number), "duplicate", "one", "now")
    verdicts.append(Path(sys.argv[1]), [line])
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_has_kept_all_that_it_confirmed(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    confirmed = [next(writer.stdout) for _ in range(30)]
    os.kill(writer.pid, signal.SIGKILL)
    confirmed += list(writer.stdout)
    writer.wait()
    writer.stdout.close()
    kept = {said.benchmark_question for said in verdicts.read(path)}
    assert {number.strip() for number in confirmed if number.endswith("\n")} <= kept


@pytest.mark.parametrize(
    "text",
    ["no JSON", "[]", '{"question": "q"}', "[" * 100_000, '{"question": "q", "benchmark_question": "b", "verdict": "maybe", "reviewer": "r", "at": "t"}'],
)  # fmt: skip
def test_a_line_that_is_no_verdict_is_named(tmp_path: Path, text: str):
    path = tmp_path / "verdicts.jsonl"
    verdicts.append(path, [line("duplicate")])
    with path.open("a") as file:
        file.write(text + "\n")
    with pytest.raises(InputError, match="line 2"):
        verdicts.read(path)


def test_kappa_is_cohens():
    """Worked by hand: 20 and 15 of 50 agreed on, chance .5, κ = (.7 − .5) / (1 − .5)."""
    a, b = "duplicate", "gray_area"
    both = [(a, a)] * 20 + [(a, b)] * 5 + [(b, a)] * 10 + [(b, b)] * 15
    assert verdicts.cohens_kappa(both) == pytest.approx(0.4)  # type: ignore[arg-type]
    assert verdicts.cohens_kappa([(a, a)] * 3) is None  # type: ignore[list-item]


def test_agreement_looks_at_pairs_that_both_judged():
    said = [line("duplicate"), line("duplicate", "two"), line("gray_area", "two", ("q", "c"))]
    (one,) = verdicts.agreement(said)
    assert (one.reviewers, one.pairs, one.agreed) == (("one", "two"), 1, 1)


PAIRS = [(f"q{number}", "b") for number in range(4)]
SAID = st.lists(
    st.builds(
        line,
        st.sampled_from([*VERDICTS, None]),
        st.sampled_from(["one", "=two", "-drei, \"x\""]),
        st.sampled_from(PAIRS),
    )
)  # fmt: skip


@given(SAID)
def test_a_spreadsheet_brings_them_back_unchanged(tmp_path_factory, said: list[Line]):
    path = tmp_path_factory.mktemp("csv") / "verdicts.csv"
    texts = {pair: {"text": '=1+1\n"quoted", ünïcode'} for pair in PAIRS}
    path.write_text(verdicts.to_csv(said, texts), encoding="utf-8", newline="")
    again = verdicts.from_csv(path, "nobody", PAIRS)
    assert verdicts.standing(again) == verdicts.standing(said)


def test_what_a_spreadsheet_would_run_is_text_there():
    text = verdicts.to_csv([line("duplicate", "=cmd()")], {("q", "b"): {"text": "@SUM(A1)"}})
    assert "'=cmd()" in text
    assert "'@SUM(A1)" in text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a,b\n1,2\n", "'question'"),
        ("question,benchmark_question,verdict\nq,b,maybe\n", "row 2"),
        ("question,benchmark_question,verdict\nq,b,\nz,b,duplicate\n", "row 3"),
        ("question,benchmark_question,verdict,reviewer\nq,b,duplicate,\x07\n", "reviewer"),
    ],
)
def test_a_wrong_spreadsheet_is_refused_whole(tmp_path: Path, text: str, named: str):
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=named):
        verdicts.from_csv(path, "one", [("q", "b")])


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb"])
def test_a_name_is_a_line_of_text(name: str):
    with pytest.raises(InputError, match="reviewer"):
        verdicts.reviewer_name(name)
