"""The report in a browser: charts and grids are interactive without a network, follow the theme, and run no data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from bokeh.embed import file_html
from bokeh.resources import INLINE
from headnb.display.charts import plots
from headnb.display.charts.chart import chart_row
from headnb.display.grid import HeadGrid
from headnb.display.report import Finding, Number, ReportContents, Section, report
from playwright.sync_api import expect

import grids

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

HOSTILE = "</script><img src=x onerror='window.hurt=1'>$$x$$"


@pytest.fixture
def opened(page: Page, tmp_path: Path) -> Page:
    """A report with a chart whose names are markup, and two grids; network requests and errors fail the test."""
    coords = {"task": [HOSTILE, "boolq"], "step": np.arange(4)}
    values = xr.DataArray(np.linspace(0, 1, 8).reshape(2, 4), coords, tuple(coords))
    chart = plots.trajectory(values, title=HOSTILE)
    section = Section(HOSTILE, HOSTILE, picture=chart, grids=(HeadGrid.of(grids.grid().payload),) * 2)
    path = report(ReportContents(HOSTILE, (section,)), tmp_path / "report.html")
    page.on("request", lambda request: _only_the_page(request.url))
    page.on("console", lambda message: _no_error(message.type, message.text))
    page.goto(path.as_uri())
    return page


def _only_the_page(url: str) -> None:
    assert url.startswith(("file:", "data:", "blob:"))


def _no_error(kind: str, words: str) -> None:
    assert kind not in {"error", "warning"}, words


def test_charts_and_grids_become_interactive(opened: Page) -> None:
    plot = opened.locator(".plot")
    plot.scroll_into_view_if_needed()
    expect(plot.locator(".live canvas").first).to_be_visible()
    expect(plot.locator(".still")).to_be_hidden()
    opened.get_by_text("Numbers and details").click()
    expect(opened.locator(".grid .live .stage canvas").first).to_be_visible()
    assert opened.locator(".grid .live .stage canvas").first.bounding_box()["width"] > 100
    assert opened.locator(".grid .live .card").count() == 2


def test_the_tooltip_of_a_point_has_its_name_as_text(opened: Page) -> None:
    canvas = opened.locator(".plot .live canvas").first
    canvas.scroll_into_view_if_needed()
    expect(canvas).to_be_visible()
    _frame_widths(opened)
    place = opened.evaluate(
        """() => {
            const view = [...Bokeh.index].find((one) => one.model.type === "Figure");
            const {left, top} = view.canvas.el.getBoundingClientRect();
            const x = view.frame.x_scale.compute(1), y = view.frame.y_scale.compute(1 / 7);
            return [left + x, top + y];
        }"""
    )
    opened.mouse.move(place[0] + 6, place[1] + 6)
    opened.mouse.move(*place)
    expect(opened.locator(".bk-Tooltip")).to_contain_text(f"{HOSTILE} · step 1 · 0.143")
    assert opened.evaluate("window.hurt") is None


def test_charts_follow_a_change_of_the_theme(opened: Page) -> None:
    canvas = opened.locator(".plot .live canvas").first
    expect(canvas).to_be_visible()
    assert _inks(opened) == ["rgb(28, 30, 33)"]
    opened.emulate_media(color_scheme="dark")
    for _ in range(1200):
        if _inks(opened) == ["rgb(228, 230, 233)"]:
            break
        opened.wait_for_timeout(100)  # the page's policy forbids eval, which waiting for an expression needs
    assert _inks(opened) == ["rgb(228, 230, 233)"]


def _inks(page: Page) -> list[str]:
    """The colour of the tick labels in every Bokeh figure."""
    return page.evaluate(
        """() => [...Bokeh.index]
            .filter((view) => view.model.type === "Figure")
            .map((view) => view.model.below[0].major_label_text_color)"""
    )


def test_the_static_pictures_are_printed(opened: Page) -> None:
    expect(opened.locator(".plot .live canvas").first).to_be_visible()
    opened.emulate_media(media="print")
    expect(opened.locator(".plot .still svg")).to_be_visible()
    expect(opened.locator(".plot .live")).to_be_hidden()
    expect(opened.locator("details")).to_be_hidden()
    opened.emulate_media(media="screen")
    opened.get_by_text("Numbers and details").click()
    opened.emulate_media(media="print")
    expect(opened.locator(".grid .still svg").first).to_be_visible()


def test_the_contents_stay_beside_a_wide_page(page: Page, tmp_path: Path) -> None:
    sections = tuple(Section(f"Part {number}", statement="A sentence. " * 200) for number in range(6))
    page.set_viewport_size({"width": 1500, "height": 700})
    page.goto(report(ReportContents("Long", sections), tmp_path / "report.html").as_uri())
    page.get_by_role("link", name="Part 5").click()
    expect(page.get_by_role("link", name="Part 0")).to_be_in_viewport()
    contents, text = (page.locator(name).bounding_box() for name in ("nav ol", "main"))
    assert contents["x"] + contents["width"] <= text["x"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 800, "height": 700})
    expect(page.get_by_role("link", name="Part 0")).not_to_be_in_viewport()


def test_a_report_of_nine_findings_is_printed_on_at_most_eight_pages(page: Page, tmp_path: Path) -> None:
    values = xr.DataArray(np.linspace(0, 1, 8).reshape(2, 4), {"task": ["a", "b"], "step": np.arange(4)})
    chart = plots.trajectory(values, title="A chart")
    finding = Finding("undecided", "It is open. " * 10, "A reason. " * 10, (Number("R²", 0.5),) * 20)
    section = Section("A finding", "A question?", finding, picture=chart, sentences=("A sentence. " * 100,))
    path = report(ReportContents("Nine", (section,) * 9), tmp_path / "report.html")
    page.goto(path.as_uri())
    assert 2 <= len(re.findall(rb"/Type */Page\b", page.pdf(prefer_css_page_size=True))) <= 8


def _matrix(size: int) -> xr.DataArray:
    names = [f"task {place}" for place in range(size)]
    values = np.random.default_rng(0).gamma(2, 1, (size, size))
    return xr.DataArray(values, {"train": names, "eval": names}, ("train", "eval"))


def _frame_widths(page: Page) -> list[float]:
    """The frame width of every Bokeh figure, once they are drawn and stay the same for half a second."""
    page.wait_for_selector(".bk-Figure", state="attached")
    widths: list[float] = []
    for _ in range(240):
        before = widths
        widths = page.evaluate(
            """() => [...Bokeh.index]
                .flatMap((view) => [view, ...(view.child_views ?? [])])
                .filter((view) => view.model.type === "Figure")
                .map((view) => view.frame.bbox.width)"""
        )
        if widths and widths == before and all(widths):
            break
        page.wait_for_timeout(500)
    return widths


def test_cells_with_text_do_not_shrink_on_a_narrow_page(page: Page, tmp_path: Path) -> None:
    chart = plots.train_eval(_matrix(12))
    page.set_viewport_size({"width": 420, "height": 800})
    page.goto(report(ReportContents("narrow", (Section("one", picture=chart),)), tmp_path / "report.html").as_uri())
    (width,) = _frame_widths(page)
    assert width == pytest.approx(chart.plots[0].width, abs=3)


def test_figures_in_a_row_keep_their_sizes(page: Page, tmp_path: Path) -> None:
    chart = chart_row(plots.train_eval(_matrix(3)), plots.weights(_matrix(3)[0]))
    (tmp_path / "row.html").write_text(file_html(chart.bokeh(), INLINE, "row"))
    page.goto((tmp_path / "row.html").as_uri())
    assert _frame_widths(page) == pytest.approx([plot.width for plot in chart.plots], abs=3)
