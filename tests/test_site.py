"""The documentation site: whole, without a dead link, and searchable from a folder without a network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS, ROOT
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_review_page import CHROMIUM, DRIVER, chromium  # noqa: F401 (a fixture)

ZENSICAL = Path(sys.executable).with_name("zensical")
pytestmark = pytest.mark.skipif(
    not ZENSICAL.exists(), reason='zensical is missing: pip install ".[docs]"'
)
LOADED = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"')

# The search lives in a shadow root: where the keys go, and the pages that it has found.
FOCUSED = "return document.activeElement.shadowRoot?.activeElement?.role"
FOUND = """
    const roots = [...document.querySelectorAll("*")].map((node) => node.shadowRoot).filter(Boolean);
    const links = roots.flatMap((root) => [...root.querySelectorAll("a[href*='?h=cohen']")]);
    return links.map((link) => new URL(link.href).pathname.split("/").pop()).sort();
"""


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """The site of a copy of the pages, as `make docs` builds it."""
    shutil.copy(ROOT / "mkdocs.yml", folder)
    command = [ZENSICAL, "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def navigation() -> set[str]:
    """The pages that mkdocs.yml names."""
    return set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_page_is_on_it_and_in_its_navigation(site):
    named = navigation()
    assert named == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert all((site / page).with_suffix(".html").exists() for page in named)


def test_nothing_is_loaded_from_a_network(site):
    for page in site.rglob("*.html"):
        loaded = [a or b for a, b in LOADED.findall(page.read_text())]
        assert loaded, page
        assert [url for url in loaded if "//" in url] == [], page


def test_a_dead_link_fails(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in navigation():
        (tmp_path / "docs" / page).parent.mkdir(exist_ok=True)
        (tmp_path / "docs" / page).write_text("# A page\n")
    assert build(tmp_path).returncode == 0
    (tmp_path / "docs" / "index.md").write_text("# A page\n\n[nowhere](absent.md)\n")
    assert build(tmp_path).returncode != 0


@pytest.mark.browser
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing")
def test_the_search_box_answers_without_a_server(chromium, site):  # noqa: F811
    chromium.get((site / "index.html").as_uri())
    chromium.find_element(By.TAG_NAME, "body").send_keys(Keys.CONTROL + "k")
    waiting = WebDriverWait(chromium, 10)
    waiting.until(lambda page: page.execute_script(FOCUSED) == "combobox")
    for letter in "cohen":
        ActionChains(chromium).send_keys(letter).pause(0.05).perform()
    waiting.until(lambda page: page.execute_script(FOUND) == ["review-team.html", "review.html"])
    assert [line for line in chromium.get_log("browser") if line["level"] == "SEVERE"] == []
