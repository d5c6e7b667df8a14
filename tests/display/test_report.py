"""Report: one page that is complete without scripts, sends no requests, and never treats names as markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import pytest
import xarray as xr
from headnb.display.charts import plots
from headnb.display.charts.chart import chart_row, widen
from headnb.display.grid import HeadGrid
from headnb.display.html import card
from headnb.display.report import Finding, Number, ReportContents, Section, Table, page, report
from headnb.errors import HeadnbError
from headnb.notebook.tables import NameTable
from headnb.stats.estimates import Estimate

from paths import FIXTURES
from synthetic_results import random_pattern

if TYPE_CHECKING:
    from pathlib import Path

MARKUP = FIXTURES / "payloads" / "valid" / "markup-in-every-text.heads.json"
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "<!--<script>",
    "javascript:alert(4)",
    "$$\\alpha$$ \\(x\\) {safe} @hover",
    "\x1b[31m\x00",
)


class Page(HTMLParser):
    """Parser that collects tags with their attributes, the contents of scripts, and the text between tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.depths: list[tuple[str, int]] = []  # texts and pictures, each with the number of `details` around it
        self._inside = ""
        self._folded = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._folded += tag == "details"
        if tag == "svg":
            self.depths.append((tag, self._folded))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        self._folded -= tag == "details"

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)
        elif self._inside != "style":
            self.words.append(data)
            self.depths.append((data, self._folded))


def chart(name: str = "gsm8k") -> object:
    coords = {"task": [name, "boolq"], "step": [0, 1, 5]}
    values = xr.DataArray([[0.0, 0.5, 1.0], [0.0, 0.25, 0.75]], coords, tuple(coords))
    return plots.trajectory(values, title=name, marks={name: 2})


def contents(name: str = "gsm8k") -> ReportContents:
    numbers = (Number(name, Estimate(0.331, 0.3, 0.36, 0.95, 64, 0.34), paper=name), Number("R²", 0.5))
    first = Section(
        title=name,
        question=name,
        finding=Finding("not found", f"{name} is not shown", name, numbers),
        picture=chart(name),
        sentences=(name,),
        charts=(plots.distribution({name: random_pattern(3, 2)}),),
        tables=(Table((name, "n", "Gini"), ((name, 3, None), ("b", 2.5, 0.25)), name),),
        grids=(HeadGrid.of(random_pattern(3, 2)), HeadGrid.open(MARKUP)),
    )
    return ReportContents(name, (first, Section("another")), (name,), {name: {name: name}})


@pytest.mark.parametrize(
    ("verdict", "mark", "css_class"),
    [
        ("found", "✓ Found", "found"),
        ("not found", "✗ Not found", "not-found"),
        ("undecided", "? Undecided", "undecided"),
    ],
)
def test_a_finding_has_the_mark_of_its_verdict(verdict: str, mark: str, css_class: str) -> None:
    text = page(ReportContents("t", (Section("s", finding=Finding(verdict, "A sentence.", "A reason.")),)))
    assert text.count(f'<span class="verdict {css_class}">{mark}</span>') == 2  # in the summary and in the section
    assert re.search(rf"^\.{css_class} {{", text, re.MULTILINE)
    assert text.count("A sentence.") == 2
    assert text.count("A reason.") == 1


def test_only_the_answer_and_one_picture_are_unfolded() -> None:
    """The depth of `details` around each element, by the parser."""
    found = Page(page(contents()))
    shown = [text for text, depth in found.depths if not depth]
    folded = [text for text, depth in found.depths if depth]
    assert "gsm8k is not shown" in " ".join(shown)
    assert "0.331 [0.300, 0.360]" not in " ".join(shown)
    assert "0.331 [0.300, 0.360]" in folded
    assert shown.count("svg") == 1
    assert folded.count("svg") == 3


@pytest.mark.parametrize(
    "markup",
    [
        page(contents()),
        card(HeadGrid.of({"a": random_pattern(3, 2), "b": random_pattern(3, 2)}).payload),
        NameTable(("name", "what"), (("a", "b"),), "two words")._repr_html_(),
        NameTable(("name", "what"), (("a", "b"),))._repr_html_(),
    ],
    ids=["report", "card", "names", "names without a caption"],
)
def test_screen_readers_find_the_names_of_rows_columns_and_scrolling_regions(markup: str) -> None:
    tags = Page(markup).tags
    begins = [tags[place + 1] for place, (tag, _) in enumerate(tags) if tag == "tr"]
    assert [tag for tag, _ in begins] == ["th"] * len(begins)
    names = [attrs for tag, attrs in tags if tag == "th"]
    tables = sum(tag == "table" for tag, _ in tags)
    assert tables > 0
    assert sum(tag == "thead" for tag, _ in tags) == tables
    assert {attrs["scope"] for attrs in names} == {"col", "row"}
    scrolling = [attrs for _, attrs in tags if attrs.get("class") in {"wide", "plots"} or "overflow" in str(attrs)]
    for attrs in scrolling:
        assert attrs["tabindex"] == "0"
        assert attrs["role"] in {"region", "group"}
        assert attrs["aria-label"]


def test_numbers_and_the_names_of_their_columns_are_at_the_right() -> None:
    text = page(contents())
    assert re.search(r"\.number {\s+text-align: right;", text)
    (heads,) = re.findall(r'<tr>(<th scope="col">gsm8k</th>.*?)</tr>', text)
    text_column, number_column = '<th scope="col">', '<th scope="col" class="number">'
    assert heads == f"{text_column}gsm8k</th>{number_column}n</th>{number_column}Gini</th>"


def test_the_page_is_complete_without_script() -> None:
    words = " ".join(Page(page(contents())).words)
    assert "✗ Not found" in words
    assert "gsm8k is not shown" in words
    assert "0.331 [0.300, 0.360]" in words
    assert re.search(r"2\.50\s+0\.250", words)
    assert "activation level" in words


def test_charts_and_grids_are_included_as_pictures_too() -> None:
    found = Page(page(contents()))
    stills = [place for place, (tag, attrs) in enumerate(found.tags) if tag == "div" and attrs.get("class") == "still"]
    pictures = [place for place, (tag, _) in enumerate(found.tags) if tag == "svg"]
    assert len(stills) == len(pictures) == 4
    assert all(still < picture for still, picture in zip(stills, pictures, strict=True))


def test_the_page_has_the_given_data_of_charts_and_grids() -> None:
    made = contents()
    data = [json.loads(text) for attrs, text in Page(page(made)).scripts if attrs.get("type") == "application/json"]
    shows = [a["data-shows"] for a, _ in Page(page(made)).scripts if "data-shows" in a]
    assert shows == ["chart", "chart", "grid", "grid"]
    assert data[2:] == [grid.payload for grid in made.sections[0].grids]
    assert "gsm8k · step 1 · 0.500" in json.dumps(data[0], ensure_ascii=False)


def test_each_script_is_included_once_and_nothing_else_may_run() -> None:
    text = page(contents())
    found = Page(text)
    policy = next(attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    run = [script for attrs, script in found.scripts if "type" not in attrs]
    assert len(run) == len(set(run))
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in run}
    assert set(re.search(r"script-src ([^;]+)", policy)[1].split()) == hashes
    assert policy.startswith("default-src 'none';")


def test_nothing_is_fetched() -> None:
    for tag, attributes in Page(page(contents("http://example.org/x"))).tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "srcset", "action", "data", "poster"):
            assert name not in attributes
        for name, value in attributes.items():
            if name.endswith("href"):
                assert value.startswith("#")
        assert "url(" not in (attributes.get("style") or "")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(name: str) -> None:
    plain, hostile = Page(page(contents())), Page(page(contents(name)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(attrs) for _, attrs in hostile.tags] == [sorted(attrs) for _, attrs in plain.tags]
    run = [[script for attrs, script in found.scripts if "type" not in attrs] for found in (plain, hostile)]
    assert run[0] == run[1]
    shown = name.replace("\x1b", "\\x1b").replace("\x00", "\\x00")
    assert shown in "".join(hostile.words)


def test_a_page_without_charts_does_not_include_bokeh() -> None:
    grids = ReportContents("grids", (Section("one", grids=(HeadGrid.of(random_pattern(2, 2)),)),))
    assert len(page(grids)) < 300_000
    words = page(ReportContents("words", (Section("one", sentences=("a sentence",)),)))
    assert "<script" not in words
    assert "script-src 'none'" in unescape(words)


def test_the_summary_lists_findings_and_links_to_them() -> None:
    found = Page(page(contents()))
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    assert links == ["#summary", "#section-1", "#section-2", "#provenance", "#section-1"]
    anchors = {attrs["id"] for tag, attrs in found.tags if "id" in attrs}
    assert {link[1:] for link in links} <= anchors


def test_the_file_is_complete_and_named_html(tmp_path: Path) -> None:
    path = report(contents(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8").endswith("</body></html>\n")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(HeadnbError, match=r"name it run\.html"):
        report(contents(), tmp_path / "run")
    with pytest.raises(HeadnbError, match="has 1 cells, but the table has 2 columns"):
        page(ReportContents("t", (Section("s", tables=(Table(("a", "b"), (("x",),)),)),)))


def test_a_data_frame_becomes_a_table_of_texts_and_numbers() -> None:
    frame = pd.DataFrame({"name": ["x", "y"], "r": [0.5, np.nan], "shown": [True, False]}, index=["a", "b"])
    found = Table.of(frame.rename_axis("task"), "what it is")
    assert found == Table(
        ("task", "name", "r", "shown"), (("a", "x", 0.5, "yes"), ("b", "y", None, "no")), "what it is"
    )


def test_whole_numbers_beside_fractions_stay_whole() -> None:
    frame = pd.DataFrame({"samples": [1200], "level": [0.25], "found": pd.Series([np.True_], dtype=object)})
    assert Table.of(frame).rows == (("0", 1200, 0.25, "yes"),)
    assert isinstance(Table.of(frame).rows[0][1], int)


def test_the_ends_of_an_interval_are_shown_with_their_value() -> None:
    frame = pd.DataFrame(
        {"value": [0.0643, np.nan], "low": [0.00591, np.nan], "high": [0.123, np.nan], "p": [0.5, 1]}, index=["a", "b"]
    )
    table = Table.of(frame)
    assert table.columns == ("", "value", "p")
    assert [str(table.rows[0][1]), table.rows[1][1]] == ["0.064 [0.006, 0.123]", None]
    one_sided = Table.of(frame[["value", "low", "p"]])
    assert one_sided.columns == ("", "value", "low", "p")


def test_plots_fill_the_row_if_they_fit() -> None:
    one = chart()
    (plot,) = one.plots
    total = plot.outer_width + 100
    (wider,) = widen(one, total).plots
    assert (wider.outer_width, wider.marks) == (total, plot.marks)
    two = widen(chart_row(one, one), 2 * plot.outer_width + 18 + 100)
    assert [wider.outer_width for wider in two.plots] == [plot.outer_width + 50] * 2
    assert widen(one, 5000).plots[0].width == pytest.approx(2.2 * plot.width, abs=1)
    assert widen(one, 200) == one
    assert widen(chart_row(one, one), plot.outer_width + 50).plots[0].width == plot.width


def test_plots_of_cells_keep_their_size() -> None:
    matrix = plots.train_eval(
        xr.DataArray(np.ones((2, 2)), {"train": ["a", "b"], "eval": ["a", "b"]}, ("train", "eval"))
    )
    assert widen(matrix, 930) == matrix
