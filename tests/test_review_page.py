"""Laws of the review page in a real browser: keys judge, undo takes back, a reload, a second window and
a killed server lose nothing, and a question that is markup stays text."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import HOSTILE
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from monotreme import verdicts
from monotreme.run import Run

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing: no browser tests"
    ),
]
Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,900"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


class Server:
    """`monotreme review` in a process of its own."""

    def __init__(self, run: Run, reviewer: str = "ada") -> None:
        command = [sys.executable, "-m", "monotreme.cli", "review", str(run.folder), "--no-browser", "--reviewer", reviewer]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []

    def address(self) -> str:
        """The next address that opens the page."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if "token=" in line:
                return line.strip()
        raise AssertionError(f"no address in {self.lines}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, how)
        code = self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def server(flagged: Run) -> Iterator[Server]:
    started = Server(flagged)
    yield started
    started.stop()


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Browser]:
    chromium.get("about:blank")  # a page of the test before would ask its server in vain
    chromium.get_log("browser")
    open_page(chromium, server.address())
    yield chromium
    chromium.get("about:blank")
    complaints = [line for line in chromium.get_log("browser") if line["level"] == "SEVERE"]
    assert complaints == []


def open_page(browser: Browser, address: str) -> None:
    browser.get(address)
    until(lambda: browser.execute_script("return document.body.dataset.ready"))


def until(holds: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to hold")


def press(browser: Browser, keys: str) -> None:
    browser.find_element(By.TAG_NAME, "body").send_keys(keys)


def text(browser: Browser, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector))  # fmt: skip


def current(browser: Browser) -> int:
    found = re.search(r"pair=(\d+)", browser.current_url)
    return int(found[1]) if found else -1


def said(run: Run) -> list[str | None]:
    return [line.verdict for line in verdicts.read(run.folder / verdicts.FILE)]


def test_keys_judge_and_go_on_to_the_next(page: Browser, flagged: Run):
    assert current(page) == 0
    for number, key in enumerate("123"):
        until(lambda number=number: current(page) == number)
        press(page, key)
        until(lambda number=number: len(said(flagged)) == number + 1)
    assert said(flagged) == list(verdicts.VERDICTS)
    until(lambda: text(page, "#progress") == "3 of 3")


def test_undo_takes_back_and_returns(page: Browser, flagged: Run):
    press(page, "1")
    until(lambda: current(page) == 1)
    press(page, "u")
    until(lambda: said(flagged) == ["duplicate", None])
    until(lambda: current(page) == 0)
    press(page, "u")
    until(lambda: "Nothing to undo" in text(page, "#notice"))
    assert said(flagged) == ["duplicate", None]


def test_next_and_previous_pass_over_what_is_judged(page: Browser):
    press(page, "j")
    until(lambda: current(page) == 1)
    press(page, "2")
    until(lambda: current(page) == 2)
    press(page, "p")
    until(lambda: current(page) == 0)
    press(page, "n")
    until(lambda: current(page) == 2)
    press(page, "k")
    until(lambda: current(page) == 1)


def test_a_reload_keeps_place_filters_and_verdicts(page: Browser):
    press(page, "j")
    press(page, "3")
    until(lambda: text(page, "#progress").startswith("1 of 3"))
    page.find_element(By.ID, "state").send_keys("judged by you")
    until(lambda: text(page, "#shown").startswith("1 of 3"))
    page.refresh()
    until(lambda: page.execute_script("return document.body.dataset.ready"))
    assert text(page, "#shown").startswith("1 of 3")
    assert text(page, "#progress").startswith("1 of 3")
    assert current(page) == 1


def test_search_and_filters_narrow_the_list(page: Browser):
    press(page, "/")
    page.switch_to.active_element.send_keys("jupiter" + Keys.ENTER)
    until(lambda: text(page, "#shown").startswith("1 of 3"))
    until(lambda: "planet" in text(page, "#pair"))
    page.find_element(By.ID, "search").clear()
    page.find_element(By.ID, "search").send_keys(" ")
    page.find_element(By.ID, "source").send_keys("web")
    until(lambda: text(page, "#shown").startswith("2 of 3"))
    page.find_element(By.ID, "high").send_keys("0.5" + Keys.TAB)
    until(lambda: "Loosen the filters" in text(page, "#pair"))


def test_one_verdict_for_all_that_is_shown_after_a_question(page: Browser, flagged: Run):
    page.find_element(By.ID, "source").send_keys("web")
    until(lambda: text(page, "#shown").startswith("2 of 3"))
    page.find_element(By.ID, "bulk-button").click()
    assert said(flagged) == []
    page.find_element(By.CSS_SELECTOR, "#bulk .close").click()
    page.find_element(By.ID, "bulk-button").click()
    page.find_element(By.CSS_SELECTOR, "#bulk button.gray_area").click()
    until(lambda: said(flagged) == ["gray_area", "gray_area"])
    press(page, "u")
    until(lambda: said(flagged)[2:] == [None, None])


def test_a_question_that_is_markup_stays_text(page: Browser):
    page.find_element(By.ID, "search").send_keys("planet")
    until(lambda: HOSTILE in text(page, "#pair"))
    assert "Review" in page.title
    assert not page.find_elements(By.CSS_SELECTOR, "#pair script, #pair img, #list img")


def test_markup_that_got_into_the_page_could_not_run(chromium: Browser, server: Server):
    """The content security policy: trusted types refuse it, and no inline code is allowed."""
    open_page(chromium, server.address())
    with pytest.raises(Exception, match="TrustedHTML"):
        chromium.execute_script("document.body.innerHTML = arguments[0]", HOSTILE)
    with pytest.raises(Exception, match="TrustedScript"):
        chromium.execute_script("document.body.setAttribute('onclick', '1')")
    chromium.get_log("browser")  # the browser's complaints are meant


def test_two_windows_and_another_reviewer_lose_nothing(page: Browser, server: Server, flagged: Run):
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    root = re.sub(r"/\?.*", "/", server.lines[-1].strip())
    open_page(page, root)
    press(page, "1")
    until(lambda: said(flagged) == ["duplicate"])
    page.switch_to.window(first)
    until(lambda: text(page, "#progress").startswith("1 of 3"))  # told by the other window
    bob = Server(flagged, "bob")
    page.switch_to.new_window("tab")
    open_page(page, bob.address())
    press(page, "3")
    until(lambda: len(said(flagged)) == 2)
    page.close()
    bob.stop()
    page.switch_to.window(first)
    until(lambda: "κ" in text(page, "#agreement"))
    press(page, "k")
    until(lambda: "bob" in text(page, ".given") or press(page, "k"))
    for handle in page.window_handles:
        if handle != first:
            page.switch_to.window(handle)
            page.close()
    page.switch_to.window(first)


def test_a_killed_server_has_kept_what_it_confirmed(chromium: Browser, flagged: Run):
    killed = Server(flagged)
    open_page(chromium, killed.address())
    press(chromium, "1")
    until(lambda: text(chromium, "#progress").startswith("1 of 3"))
    killed.stop(signal.SIGKILL)
    press(chromium, "1")
    until(lambda: "does not answer" in text(chromium, "#notice"))
    chromium.get_log("browser")  # the broken connection is meant
    again = Server(flagged)
    open_page(chromium, again.address())
    assert text(chromium, "#progress").startswith("1 of 3")
    assert again.stop() == 0
    assert said(flagged) == ["duplicate"]


def test_of_5000_pairs_only_the_rows_in_sight_are_in_the_page(page: Browser):
    numbers = page.execute_script(
        "const list = await import('/list.js'); const l = new list.List((n) => ({pair: {title: 't', similarity: 1, source: 's', benchmark: 'b'}, held: 'duplicate', judged: false}), () => {}); l.show([...Array(5000).keys()], 0); const n = document.querySelectorAll('.row').length; l.follow(4999); return [n, document.querySelector('.row.current').dataset.number]"
    )
    assert numbers[0] < 40
    assert numbers[1] == "4999"


def test_keys_are_explained_and_do_nothing_meanwhile(page: Browser, flagged: Run):
    press(page, "?")
    until(lambda: page.find_element(By.ID, "help").is_displayed())
    press(page, "1")
    time.sleep(0.3)
    assert said(flagged) == []


def test_ctrl_c_ends_it_and_says_what_is_next(flagged: Run):
    started = Server(flagged)
    started.address()
    os.kill(started.process.pid, signal.SIGINT)
    assert started.process.stdout is not None
    rest = started.process.stdout.read()
    assert started.stop() == 0
    assert "decontaminate" in rest
    assert json.loads((flagged.folder / "decontaminate" / "record.json").read_text())
