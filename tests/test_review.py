"""Laws of the review server: nobody but the browser that was given the address reads or writes;
a verdict that was answered is on the disk; what is wrong is refused and changes nothing."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from monotreme import verdicts
from monotreme.errors import InputError
from monotreme.review.app import MAX_BODY_BYTES, make_app
from monotreme.review.exchange import export_verdicts, import_verdicts
from monotreme.review.guard import Guard
from monotreme.review.marks import MOST_ALIGNED, mark
from monotreme.review.pairs import read_pairs
from monotreme.review.serve import _listen
from monotreme.run import Run


class Page:
    """A server in this process, and a client that has opened the page."""

    def __init__(self, run: Run, reviewer: str = "ada") -> None:
        self.addresses: list[str] = []
        listener = _listen(0)
        self.root = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = make_app("test", read_pairs(run), run.folder / verdicts.FILE, reviewer)
        guarded = Guard(app, listener.getsockname()[1], self.addresses.append)
        self.server = uvicorn.Server(uvicorn.Config(guarded, log_level="error", access_log=False))
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.client = httpx2.Client(base_url=self.root, headers={"Origin": self.root})
        self.first = self.client.get(self.addresses[0].removeprefix(self.root))

    def say(self, *given: object) -> httpx2.Response:
        return self.client.post("/api/verdicts", json=[list(one) for one in given])  # type: ignore[call-overload]

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def page(flagged: Run) -> Iterator[Page]:
    opened = Page(flagged)
    yield opened
    opened.close()


# ── who may ask ─────────────────────────────────────────────────────────────────────────────────


def test_an_address_opens_the_page_once_and_the_next_is_told(page: Page):
    assert page.first.status_code == 303
    assert len(page.addresses) == 2
    assert page.client.get("/").status_code == 200
    with httpx2.Client(base_url=page.root) as other:
        assert other.get(page.addresses[0].removeprefix(page.root)).status_code == 403
        assert other.get("/api/pairs").status_code == 403
        assert other.get(page.addresses[1].removeprefix(page.root)).status_code == 303
        assert other.get("/api/pairs").status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/pairs", "/api/pairs/0", "/api/verdicts.csv", "/nothing", "/?token=", "/?token=%C3%A9"])  # fmt: skip
def test_without_the_cookie_nothing_is_told(page: Page, path: str):
    with httpx2.Client(base_url=page.root) as other:
        assert other.get(path).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", ""])
def test_another_host_name_is_refused_though_the_cookie_is_right(page: Page, host: str):
    """DNS rebinding: a stranger's name that points at this machine."""
    assert page.client.get("/api/pairs", headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Content-Type": "text/plain"}],
)  # fmt: skip
def test_another_pages_request_writes_nothing(page: Page, flagged: Run, headers: dict[str, str]):
    own = {"Origin": page.root, "Content-Type": "application/json"}
    answer = page.client.post(
        "/api/verdicts", content='[[0, "duplicate"]]', headers={**own, **headers}
    )
    assert answer.status_code == 403
    assert verdicts.read(flagged.folder / verdicts.FILE) == []


def test_a_request_without_origin_writes_nothing(page: Page, flagged: Run):
    del page.client.headers["Origin"]
    assert page.say((0, "duplicate")).status_code == 403
    assert verdicts.read(flagged.folder / verdicts.FILE) == []


def test_every_answer_forbids_foreign_code_and_keeping(page: Page):
    for path in ("/", "/page.js", "/api/pairs", "/nothing"):
        headers = page.client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    cookie = page.first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_it_listens_on_this_machine_alone(page: Page):
    assert page.root.startswith("http://127.0.0.1:")
    (listener,) = page.server.servers[0].sockets
    assert listener.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_named(page: Page):
    with pytest.raises(InputError, match="--port"):
        _listen(int(page.root.rsplit(":", 1)[1]))


# ── pairs and verdicts ──────────────────────────────────────────────────────────────────────────


def test_pairs_come_by_uncertainty_times_questions_affected(flagged: Run):
    rows = read_pairs(flagged).rows
    weights = [(1 - row["confidence"]) * row["affected"] for row in rows]
    assert weights == sorted(weights, reverse=True)
    assert sorted(row["affected"] for row in rows) == [1, 2, 2]


def test_a_pair_is_told_with_all_that_a_person_needs(page: Page):
    listed = page.client.get("/api/pairs").json()
    number = next(n for n, row in enumerate(listed["pairs"]) if "5 miles" in row[-1])
    told = page.client.get(f"/api/pairs/{number}").json()
    assert ["5", "changed number"] in told["question"]["instruction"]
    assert ["3", "changed number"] in told["benchmark"]["stem"]
    assert [right for _, right in told["benchmark"]["options"]] == [True, False, False, False]
    assert (told["question"]["source"], told["question"]["license"]) == ("web", "MIT")
    assert page.client.get("/api/pairs/99").status_code == 404


def test_an_answered_verdict_is_on_the_disk_with_name_and_time(page: Page, flagged: Run):
    assert page.say((0, "gray_area"), (1, None)).json() == {"given": 2}
    first, second = verdicts.read(flagged.folder / verdicts.FILE)
    assert (first.verdict, first.reviewer, second.verdict) == ("gray_area", "ada", None)
    assert first.pair == read_pairs(flagged).key(0)
    assert first.at.endswith("+00:00")


def test_two_reviewers_at_once_lose_nothing_and_see_each_other(page: Page, flagged: Run):
    other = Page(flagged, "bob")
    try:
        with ThreadPoolExecutor(8) as pool:
            for turn in range(30):
                who = (page, other)[turn % 2]
                pool.submit(who.say, (turn % 3, ("duplicate", "gray_area")[turn % 2]))
        news = page.client.get("/api/verdicts?after=0").json()
        assert news == other.client.get("/api/verdicts?after=0").json()
        assert news["next"] == 30
        (agreement,) = news["agreement"]
        assert agreement["reviewers"] == ["ada", "bob"]
        assert (agreement["pairs"], agreement["agreed"]) == (3, 0)
        assert page.client.get("/api/verdicts?after=30").json()["verdicts"] == []
    finally:
        other.close()


@pytest.mark.parametrize(
    "body",
    ["", "{}", "[]", "[[0]]", '[[0, "maybe"]]', '[["0", "duplicate"]]', '[[3, "duplicate"]]', '[[-1, "duplicate"]]', '[[true, "duplicate"]]', "[" * 200_000, '[[0, "duplicate"], [0, 1]]', "\xff", '[[0, ["duplicate"]]]', "7"],
)  # fmt: skip
def test_a_wrong_request_is_refused_whole_and_the_server_goes_on(page: Page, flagged: Run, body: str):  # fmt: skip
    headers = {"Content-Type": "application/json"}
    answer = page.client.post("/api/verdicts", content=body.encode("latin-1"), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert verdicts.read(flagged.folder / verdicts.FILE) == []
    assert page.client.get("/api/pairs").status_code == 200


def test_an_endless_request_is_refused(page: Page):
    headers = {"Content-Type": "application/json"}
    answer = page.client.post("/api/verdicts", content=b" " * (MAX_BODY_BYTES + 1), headers=headers)
    assert answer.status_code == 413


def test_a_spoiled_verdicts_file_is_named_and_not_written_over(page: Page, flagged: Run):
    path = flagged.folder / verdicts.FILE
    path.write_text("spoiled\n")
    assert "line 1" in page.client.get("/api/verdicts").json()["error"]
    assert path.read_text() == "spoiled\n"


def test_search_finds_pairs_by_words_of_either_side(page: Page):
    found = {text: page.client.get("/api/search", params={"text": text}).json() for text in ("jupiter", "MILES home", "ice", "")}  # fmt: skip
    assert [len(numbers) for numbers in found.values()] == [1, 2, 0, 3]


def test_a_run_without_pairs_says_so(flagged: Run):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = flagged.folder / "decontaminate" / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([], pq.read_schema(path)), path)
    with pytest.raises(InputError, match="no pair"):
        read_pairs(flagged)


# ── spreadsheet ─────────────────────────────────────────────────────────────────────────────────


def test_a_spreadsheet_filled_in_elsewhere_comes_back(flagged: Run, tmp_path: Path):
    path = tmp_path / "verdicts.csv"
    assert export_verdicts(flagged, path) == 3
    header, first, *rest = path.read_text().split("\n")
    filled = first.replace(",,,", ",duplicate,,", 1)
    path.write_text("\n".join([header, filled, *rest]))
    assert import_verdicts(flagged, path, "eve") == 1
    assert import_verdicts(flagged, path, "eve") == 0  # again changes nothing
    (line,) = verdicts.read(flagged.folder / verdicts.FILE)
    assert (line.verdict, line.reviewer) == ("duplicate", "eve")


def test_the_page_offers_the_same_spreadsheet(page: Page, flagged: Run, tmp_path: Path):
    page.say((0, "duplicate"))
    export_verdicts(flagged, tmp_path / "verdicts.csv")
    answer = page.client.get("/api/verdicts.csv")
    assert answer.content == (tmp_path / "verdicts.csv").read_bytes()
    assert "attachment" in answer.headers["content-disposition"]


# ── marks ───────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.text(max_size=40), max_size=3), st.lists(st.text(max_size=40), max_size=3))
def test_pieces_are_the_text_and_equal_texts_have_no_change(ours: list[str], theirs: list[str]):
    for side, texts in zip(mark(ours, theirs), (ours, theirs), strict=True):
        assert ["".join(text for text, _ in pieces) for pieces in side] == texts
    left, right = mark(ours, ours)
    assert left == right
    assert not any("changed" in marks for pieces in left for _, marks in pieces)


def test_numbers_and_negations_are_marked_and_punctuation_is_no_change():
    (left,), (right,) = mark(["It isn't 12, is it?"], ["It is 13 is it"])
    assert ("isn't", "changed negation") in left
    assert ("12", "changed number") in left
    assert ("13", "changed number") in right
    assert not any("changed" in marks for text, marks in left if text.strip() in (",", "?"))


def test_very_long_texts_are_marked_by_vocabulary_in_no_time():
    long = " ".join(f"word{number}" for number in range(4 * MOST_ALIGNED))
    started = time.perf_counter()
    (left,), _ = mark([f"{long} new"], [f"{long} old"])
    assert time.perf_counter() - started < 20  # an alignment would take minutes
    assert left[-1] == ("new", "changed")
