"""Draw the pictures of the README: `monotreme report runs/pocket && python docs/picture.py runs/pocket`.

docs/demo.svg is the summary of the run; docs/report.png the report's beginning as Chromium shows it.
"""

import base64
import io
import re
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from selenium import webdriver

from monotreme.report.terminal import print_summary
from monotreme.run import open_run

HERE = Path(__file__).parent
WIDTH = 1200  # pixels
LAST = "Similar questions"  # the section that the picture ends with
COLOURS = 64  # enough for text and bars, and a third of the bytes

BOTTOM = """\
const titles = [...document.querySelectorAll("h2")];
const last = titles.find(title => title.textContent === arguments[0]);
return last.parentElement.getBoundingClientRect().bottom + 24;"""


def draw_summary(run: Path) -> None:
    """docs/demo.svg."""
    console = Console(record=True, width=100, file=sys.stderr)
    print_summary(open_run(run), console)
    svg = console.export_svg(title="monotreme run recipes/pocket.yaml")
    without_web_fonts = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (HERE / "demo.svg").write_text(without_web_fonts, encoding="utf-8")


def draw_report(run: Path) -> None:
    """docs/report.png."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", f"--window-size={WIDTH},900"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options) as browser:
        light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
        browser.get((run / "report.html").resolve().as_uri())
        clip = {"x": 0, "y": 0, "width": WIDTH, "scale": 1}
        clip["height"] = browser.execute_script(BOTTOM, LAST)
        asked = {"captureBeyondViewport": True, "clip": clip}
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", asked)
    picture = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    picture.quantize(COLOURS).save(HERE / "report.png", optimize=True)


draw_summary(Path(sys.argv[1]))
draw_report(Path(sys.argv[1]))
