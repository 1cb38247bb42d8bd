"""The page says what the records say: every number is found in them, every text stays text."""

import copy
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import HOSTILE
from test_review_page import CHROMIUM, DRIVER, chromium  # noqa: F401 (a fixture)
from typer.testing import CliRunner

from monotreme import pipeline
from monotreme.cli import app
from monotreme.errors import InputError, UsageError
from monotreme.evaluate.compare import compare
from monotreme.plot import Cell, heat_map
from monotreme.recipe import STAGES, check_recipe
from monotreme.report.facts import PICTURE_BYTES, _time, facts
from monotreme.report.page import html, markdown, write_report
from monotreme.report.sections import sections
from monotreme.run import Run

SUBJECTS = ("first", "second")
ASKED = """Why does ice float on water?|Which planet is the largest?|How many legs has a spider?
What do bees make from nectar?|Who paints the walls of a house?|Where do penguins live?
When do leaves fall from the trees?|What metal is used for wires?|How is bread baked?
Which organ pumps the blood?|What does a thermometer measure?|How long is a marathon?
Why is the sky blue?|What is the square of nine?|Which gas do plants take in?
What do you call a young sheep?|Which language is spoken in Brazil?|How fast does sound travel?
What is the capital of Norway?|Which instrument has 88 keys?""".replace("\n", "|").split("|")


def lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run of tiny real things; a question of it and its licence are markup."""
    place = tmp_path_factory.mktemp("reported")
    rows = [{"instruction": q, "output": f"The answer is {i}."} for i, q in enumerate(ASKED)]
    rows += [{**rows[0], "instruction": ASKED[0].replace("?", ", please?")}]
    rows += [{"instruction": f"What is {HOSTILE}?", "output": f"It is | `x` {HOSTILE}."}]
    rows += [{"instruction": f"What  is {HOSTILE}?", "output": f"It is | `x` {HOSTILE}"}]
    (place / "mine.jsonl").write_text(lines(rows))
    bench = [
        {"question": q if i % 3 else q[::-1], "choices": {"text": ["7", str(i), "x"], "label": list("ABC")}, "answerKey": "B", "subject": SUBJECTS[i % 2]}
        for i, q in enumerate(ASKED[:8])
    ]  # fmt: skip
    (place / "bench.jsonl").write_text(lines(bench))
    (place / "texts.jsonl").write_text(lines([{"text": "The answer is 12."}] * 3))
    path = str(place / "bench.jsonl")
    recipe = {
        "name": "tiny",
        "curate": {"sources": [{"id": "mine", "path": "mine.jsonl", "license": HOSTILE}]},
        "decontaminate": {"benchmarks": [{"id": "bench", "path": path}]},
        "train": {"base": str(tiny_model), "base_precision": "fp32", "rank": 2, "batch_size": 4, "validation": 0.1},
        "merge": {"into": ["base"]},
        "evaluate": {"benchmarks": [{"id": "bench", "path": path}], "texts": "texts.jsonl", "precision": "fp32"},
    }  # fmt: skip
    made = Run(place / "runs" / "tiny", check_recipe(recipe, "tiny"), place)
    pipeline.execute(made, STAGES[:-1])
    return made


@pytest.fixture(scope="module")
def told(run: Run) -> dict[str, Any]:
    return facts(run)


class Cells(HTMLParser):
    """The texts that a page says: cells, paragraphs and figures to see first; the names of all its
    elements and their attributes."""

    SAYING = ("td", "th", "p", "dt", "dd", "summary")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.names: Counter[str] = Counter()
        self.headings: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.update([tag, *(name for name, _ in attrs)])
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(tag)
        if tag in self.SAYING:
            self._inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in self.SAYING

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def leaves(value: Any) -> Iterator[Any]:
    """Every value of plain JSON that is neither a dict nor a list; keys of dicts, too."""
    if isinstance(value, dict):
        yield from value
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, (dict, list, tuple)):
            yield from leaves(each)
        else:
            yield each


def numbers(value: Any) -> set[float]:
    return {v for v in leaves(value) if isinstance(v, (int, float)) and not isinstance(v, bool)}


CONSTANT = {"95 %"}  # the one number that the page's own words have
FORMS = (",", ",.1f", ".2f", ".3f", ".4f", ".2g", ",.3g", ",.4g", "g")
NUMBER = re.compile(r"(?<![\w.,-])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])(?: %| to [\d.]+ %)?")


def renderings(value: float) -> set[str]:
    """How a number may be written: as it is, rounded, or as a share."""
    return {f"{value:{form}}" for form in FORMS} | {f"{100 * value:.1f} %"}


def written(cell: str) -> Iterator[str]:
    """The numbers of a cell; both ends of an interval of shares are shares."""
    for found in NUMBER.findall(cell):
        first, _, last = found.partition(" to ")
        yield from [f"{first} %", last] if last else [first]


def test_every_number_in_a_cell_is_one_of_the_facts(told):
    known = {text for value in numbers(told) for text in renderings(value)}
    texts = {str(v) for v in leaves(told) if isinstance(v, str)}
    cells = [c for c in Cells(html(told)).cells if not {c, *c.split("\n")} & texts]
    found = [number for cell in cells for number in written(cell)]
    assert len(found) > 150
    assert [number for number in found if number not in known | CONSTANT] == []


def renumbered(value: Any, fresh: Iterator[int]) -> Any:
    """The same with another number, each its own, wherever there is one."""
    if isinstance(value, dict):
        return {key: renumbered(each, fresh) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [renumbered(each, fresh) for each in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    number = 37 * next(fresh)
    return number if isinstance(value, int) else number / 997_003


def test_with_other_facts_every_number_is_another(told):
    """So none is written by the page itself, or taken from where the facts do not say it."""
    other = renumbered(told, count(3_001))
    known = {text for value in numbers(other) for text in renderings(value)}
    texts = {str(v) for v in leaves(other) if isinstance(v, str)}
    cells = [c for c in Cells(html(other)).cells if not {c, *c.split("\n")} & texts]
    found = [number for cell in cells for number in written(cell)]
    assert len(found) > 150
    assert [number for number in found if number not in known | CONSTANT] == []


def test_every_number_of_the_facts_is_in_the_records(run, told):
    records = [json.loads(path.read_text()) for path in sorted(run.folder.glob("*/*.json"))]
    recorded = numbers(records)
    for path in run.folder.glob("*/*.parquet"):
        table = pq.read_table(path)
        if "similarity" in table.column_names:
            recorded |= set(table["similarity"].to_pylist())
    counted = ("similarity", "licenses", "speed", "time")
    assert numbers({k: v for k, v in told.items() if k not in counted}) <= recorded


def test_what_is_counted_here_is_what_the_tables_hold(run, told):
    for stage, found in told["similarity"].items():
        values = pq.read_table(run.output(stage, "pairs.parquet"))["similarity"].to_pylist()
        assert sum(bar["pairs"] for bar in found["bars"]) == len(values) > 0
        for bar in found["bars"]:
            inside = [v for v in values if bar["low"] <= v < bar["high"] or v >= bar["high"] == 1]
            assert bar["pairs"] == len(inside)
    rows = pq.read_table(run.output("decontaminate", "questions.parquet")).to_pylist()
    assert [(row["license"], row["questions"]) for row in told["licenses"]] == [
        (HOSTILE, len(rows))
    ]
    log = [json.loads(line) for line in run.output("train", "log.jsonl").read_text().splitlines()]
    *stages, whole = told["time"]
    for row in stages:
        record = run.record(row["stage"])
        assert (row["seconds"], row["peak_gib"] * 2**30) == (
            record["seconds"],
            record["peak_bytes"],
        )
        assert row["hours"] == record["seconds"] / 3600
    assert whole["hours"] == pytest.approx(sum(row["hours"] for row in stages))
    assert told["speed"] == [
        (line["step"], round(line["num_tokens"] / line["seconds"], 1)) for line in log
    ]


def test_of_each_source_and_reason_the_most_doubtful_row_is_shown(run, told):
    for what, stage, kind in (
        ("dropped", "curate", "reason"),
        ("leaked", "decontaminate", "verdict"),
    ):
        table = pq.read_table(run.output(stage, f"{what}.parquet")).to_pylist()
        least = {
            (row["source"], row[kind]): min(
                each["similarity"]
                for each in table
                if (each["source"], each[kind]) == (row["source"], row[kind])
            )
            for row in table
        }
        shown = told["examples"][what]
        assert [row["similarity"] for row in shown] == sorted(least.values())
        assert {(row["source"], row[kind]) for row in shown} == set(least)


def test_a_whole_run_has_every_section(told):
    titles = [section.title for section in sections(told)]
    assert titles == [
        "At a glance",
        "From what was read to what was kept",
        "What the exclusion guarantees",
        "Similar questions",
        "Similar benchmark questions",
        "What was dropped, beside its twin",
        "Leaks, beside their twin",
        "Leaks of benchmarks",
        "Licences",
        "Training",
        "Merges",
        "Scores against base",
        "Scores by exposure",
        "By subject",
        "Perplexity on held-out text",
        "Time and memory",
        "Versions, seeds and digests",
        "How to rebuild it all",
    ]


def test_hostile_texts_stay_text(told):
    page, text = html(told), markdown(told)
    found = Cells(page)
    assert HOSTILE in found.cells
    assert any(HOSTILE in cell and cell != HOSTILE for cell in found.cells)
    assert not {"script", "img", "onerror", "onclick"} & set(found.names)
    outside_code = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<" not in outside_code
    widths = [re.sub(r"\\.", "", line).count("|") for line in outside_code.splitlines() if line.startswith("| mine")]  # fmt: skip
    assert widths
    assert set(widths) <= {4, 5, 6}


def test_the_page_is_one_small_file_that_loads_nothing(told):
    page = html(told)
    assert len(page.encode()) < 2_000_000
    assert not {"src", "link", "script", "iframe"} & set(Cells(page).names)
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_a_page_is_made_of_its_json_alone_and_the_same_again(run, told, tmp_path):
    first = write_report(told, tmp_path / "a")
    second = write_report(facts(run), tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert html(json.loads(first[2].read_text())) == first[0].read_text()


@pytest.mark.parametrize("num", range(1, 5))
def test_a_half_finished_run_shows_what_there_is(run, tmp_path, num):
    shutil.copytree(run.folder, tmp_path / "half")
    for stage in STAGES[num:]:
        shutil.rmtree(tmp_path / "half" / stage, ignore_errors=True)
    half = Run(tmp_path / "half", run.recipe, run.recipe_folder)
    titles = [section.title for section in sections(facts(half))]
    assert "From what was read to what was kept" in titles
    assert ("Training" in titles) == ("train" in STAGES[:num])
    assert ">How to rebuild it all</h2>" in html(facts(half))
    assert f"kept by {STAGES[min(num, 3) - 1]}" in markdown(facts(half))


def test_a_run_without_a_finished_stage_has_no_report(make_run):
    with pytest.raises(InputError, match="no stage has finished"):
        facts(make_run())


def test_the_command_writes_three_files_and_prints_the_facts(run, told, tmp_path):
    done = CliRunner().invoke(app, ["report", str(run.folder), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md", "report.json"}
    printed = CliRunner().invoke(app, ["report", str(run.folder), "--out", str(tmp_path), "--json"])
    assert json.loads(printed.stdout) == json.loads(json.dumps(told))


def test_choice_subjects_and_share_of_peak_are_shown_where_there_are_some(told):
    difference = {"delta": 1.25, "stderr": 0.5, "low": 0.25, "high": 2.25, "p_holm": 0.01}
    candidate = {
        "id": "half",
        "model": "base",
        "adapters": [{"adapter": "a", "weight": 0.5}, {"adapter": "b", "weight": 1.0}],
        **{"score": 50.5, "stderr": 1.5, "low": 47.0, "high": 53.0},
        **{"gain": difference, "against_best": None, "overlap": [0.125]},
    }
    more = copy.deepcopy(told)
    more["choice"] = {"candidates": [candidate], "chosen": "half", "reason": f"best {HOSTILE}"}
    more["stages"]["train"]["facts"]["share_of_peak"] = 0.415
    more["figures"]["evaluate/heatmap.svg"] = heat_map("Map", "", ["m"], [("law", [Cell(2, True)])])
    more["figures"]["train/loss.svg"] = None
    page = html(more)
    cells = Cells(page).cells
    wanted = {
        "half (chosen)",
        "0.5 + 1",
        "50.50 ± 1.50",
        "+1.25 (+0.25 to +2.25)",
        "12.5 %",
        "41.5 %",
    }
    assert wanted <= set(cells)
    assert 'aria-label="Map"' in page
    assert "The picture is train/loss.svg; it is too large for this page." in page
    assert HOSTILE not in page


def test_people_s_and_a_model_s_verdicts_planted_leaks_and_a_mixed_merge_are_shown(told):
    more = copy.deepcopy(told)
    said = {"duplicate": 1, "gray_area": 0, "similar_but_different": 6}
    more["leaks"]["review"] |= {"judged": 7, "changed": 6, "reviewers": ["ada", HOSTILE]}
    more["leaks"]["review"]["verdicts"] = [{"proposed": "duplicate", "judged": said}]
    asked = {"model": HOSTILE, "undecided": 31, "asked": 29, "llm_judged": 17, "llm_failed": 12}
    more["stages"]["decontaminate"]["facts"]["llm_judge"] = asked
    planted = {"benchmark": "bench", "kind": "number_changed", "is_leak": False}
    more["self_test"] = [{**planted, "planted": 97, "caught": 41, "interval": [0.25, 0.75]}]
    merged = more["stages"]["merge"]["facts"]["base"]
    merged["adapters"] *= 2
    merged["pairs"] = [{"first": 0, "second": 1, "cosine": 0.876, "sign_conflicts": 0.432}]
    merged["differences"] = {"chat_template": ["absent", f"{HOSTILE} {'x' * 400}"]}
    page = html(more)
    cells = Cells(page).cells
    assert {"31", "29", "17", "12", "97", "41", "25.0 to 75.0 %", "+0.876", "43.2 %"} <= set(cells)
    place = cells.index("judged similar but different")
    assert cells[place + 1 : place + 5] == ["duplicate", "1", "0", "6"]
    assert any("judged 7 of the" in cell and "ada" in cell for cell in cells)
    assert HOSTILE not in page
    assert max(map(len, re.findall("x+", page))) < 100


def test_a_price_is_told_where_one_was_stated_and_only_there(run, told, tmp_path):
    assert "price" not in Cells(html(told)).cells
    priced = facts(run, 2.5)
    assert [row["price"] for row in priced["time"]] == [2.5 * row["hours"] for row in told["time"]]
    assert Cells(html(priced)).cells.count("price") == 1
    two = ["report", f"{run.folder}:base", f"{run.folder}:adapter", "--price-per-hour", "2"]
    done = CliRunner().invoke(app, [*two, "--out", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert not list(tmp_path.iterdir())


def test_hours_are_of_every_process(told):
    four = copy.deepcopy(told["stages"])
    four["train"]["facts"]["num_ranks"] = 4
    rows = {row["stage"]: row for row in _time(four, None)}
    before = {row["stage"]: row for row in told["time"]}
    assert rows["train"]["hours"] == 4 * before["train"]["hours"]
    assert rows["curate"] == before["curate"]


def test_a_page_of_many_sources_merges_and_files_is_small_still(told):
    more = copy.deepcopy(told)
    (row,), (rate,) = more["leaks"]["table"], more["leaks"]["rates"]
    more["leaks"]["table"] = [{**row, "source": f"s{n}"} for n in range(200)]
    more["leaks"]["rates"] = [{**rate, "source": f"s{n}"} for n in range(200)]
    merges = more["stages"]["merge"]["facts"]
    more["stages"]["merge"]["facts"] = {f"m{n}": merges["base"] for n in range(50)}
    outputs = {f"m/model-{n:05}.safetensors": {"sha256": "f" * 64} for n in range(2_000)}
    more["origin"]["merge"]["outputs"] = outputs
    more["figures"] = dict.fromkeys(more["figures"], "<svg>" + " " * PICTURE_BYTES + "</svg>")
    assert len(html(more).encode()) < 2_000_000


def test_a_reader_by_ear_or_keyboard_finds_the_way(told):
    """Headings step by step, heads of rows and columns, a name for every picture, no colour alone."""
    page = html(told)
    found = Cells(page)
    assert found.headings == ["h1"] + ["h2"] * (len(found.headings) - 1)
    assert (
        len(re.findall("<th[ >]", page)) == len(re.findall(r'<th scope="(?:row|col)"', page)) > 50
    )
    assert page.count("<svg") == len(re.findall(r'<svg [^>]*role="img"[^>]*aria-label="[^"]+"', page)) > 1  # fmt: skip
    assert set(re.findall(r'href="#(\w+)"', page)) == set(re.findall(r'<h2 id="(\w+)"', page))
    assert page.count("<details>") == page.count("<details><summary>") > 0


def test_two_models_are_compared_with_the_numbers_of_compare(run, tmp_path):
    sides = [f"{run.folder}:{model}" for model in ("base", "adapter")]
    done = CliRunner().invoke(app, ["report", *sides, "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["evaluation"] == json.loads(json.dumps(compare(*sides, 42)))
    page = (tmp_path / "report.html").read_text()
    assert f"<h1>{sides[1]} against {sides[0]}</h1>" in page
    assert f"Scores against {sides[0]}" in page
    known = {text for value in numbers(told) for text in renderings(value)}
    cells = [cell for cell in Cells(page).cells if str(run.folder) not in cell]
    found = [number for cell in cells for number in written(cell)]
    assert len(found) > 10
    assert set(found) <= known | CONSTANT


@pytest.mark.browser
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing")
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_a_browser_shows_it_at_any_width_without_complaint(chromium, told, tmp_path, width):  # noqa: F811
    """Wide tables scroll by themselves, the page does not; hostile text changes no title."""
    write_report(told, tmp_path)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get((tmp_path / "report.html").as_uri())
    root = "const root = document.documentElement; "
    assert chromium.execute_script(f"{root}return root.scrollWidth <= root.clientWidth")
    assert chromium.title == "tiny · report"
    assert [line for line in chromium.get_log("browser") if line["level"] == "SEVERE"] == []
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is missing")
def test_on_paper_what_is_folded_is_open(chromium, told, tmp_path):  # noqa: F811
    write_report(told, tmp_path)
    chromium.get((tmp_path / "report.html").as_uri())
    seen = "return [...document.querySelectorAll('details table')].map(t => t.checkVisibility() && t.offsetHeight > 20)"
    folded = chromium.execute_script(seen)
    assert folded
    assert not any(folded)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert all(chromium.execute_script(seen))
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_pairs_that_were_looked_for_in_lists_come_with_the_share_that_was_found(told):
    join = {"pairs": "lists", "lists": 1000, "lists_a_row": 5, "recall_share": 0.9977, "recall_low": 0.9947, "recall_high": 0.9993, "recall_num_texts": 8192, "recall_num_pairs": 2219}  # fmt: skip
    changed = copy.deepcopy(told)
    changed["stages"]["curate"]["facts"]["join"] = join
    page = markdown(changed)
    assert "share of near pairs that was found, over 2,219 pairs of 8,192 questions drawn" in page
    assert "0.9977 (0.9947 to 0.9993)" in page
    assert "near pairs that was found" not in markdown(told)
