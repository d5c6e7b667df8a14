"""Layout at narrow and wide cards, what the parts of a picture say under the mouse, and accessibility by axe-core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
from headnb.display import grid_text
from headnb.display.frontend import bundle
from headnb.display.geometry import grid_geometry
from playwright.sync_api import expect

import grids
from head_grid import Drawn, enlarged
from widget_host_page import HOST

if TYPE_CHECKING:
    from headnb.display.grid import HeadGrid
    from playwright.sync_api import Locator, Page

    Box = dict[str, float]

WIDTHS = (700, 1100, 1800)
AXE = Path(headnb.__file__).parents[1] / "widgets" / "node_modules" / "axe-core" / "axe.min.js"  # from npm ci
IDLE = {"state": "idle", "job": "", "line": "", "done": 0, "total": 0, "error": "", "note": ""}
WEIGHTS = [1.0, 0.0, 0.0, 0.25, 0.75, 0.0, 0.5, 0.25, 0.25]
PRODUCTS = [0.0, 0.0, 0.0, 0.5, -1.0, 0.0, 1.0, 0.0, 0.0]
SAMPLE = {"place": 0, "id": "a", "score": 0.4, "loss": 1.5, "prompt": "2 + 2 = ", "completion": "4"}
ROW = {"task": "sums", "samples": 32, "before": 2.0, "after": 2.4, "change": 0.4, "low": 0.1, "high": 0.7}
EXPLORER: dict[str, Any] = {
    "selected": ["L3H5", "L24H6"],
    "focused": "L3H5",
    "task": "sums",
    "method": "activation",
    "samples": 32,
    "choices": {"model": "m", "tasks": ["sums", "words"], "methods": {"activation": "the paper's"}},
    "status": IDLE,
    "head": {
        "head": "L3H5",
        "task": "sums",
        "units": "nats",
        "samples": 7,
        "mean": 0.2,
        "spread": 0.1,
        "counts": [4, 1, 2],
        "edges": [0.0, 0.25, 0.5, 0.75],
        "strongest": [SAMPLE],
    },
    "attention": {},
    "ablation": {
        "heads": ["L3H5"],
        "factor": 0,
        "rows": [{**ROW, "controls": [0.01, -0.02, 0.03]}],
        "generation": {"task": "sums", "sample": "a", "prompt": "2 + 2 = ", "before": "4", "after": "5"},
    },
}
ATTEND = """([weights, products]) => window.model.set('attention', {
  head: 'L3H5', task: 'sums', sample: 'a', tokens: ['2', ' + 2 =', ' 4'], answer: [0, 0, 1], score: 0.5, loss: 1.5,
  weights: new DataView(Float32Array.from(weights).buffer),
  products: new DataView(Float32Array.from(products).buffer),
})"""


def hosted(page: Page, width: int, name: str, traits: dict[str, Any]) -> Locator:
    page.set_viewport_size({"width": width, "height": 1000})
    style = (
        "html { color-scheme: light dark; background: Canvas; } body { margin: 0; }"  # axe takes no colour for white
    )
    page.set_content(f"<!doctype html><html lang=en><title>t</title><style>{style}</style><body>")
    page.evaluate(HOST, {"script": bundle(name).read_text(encoding="utf-8"), "traits": traits})
    root = page.locator("#widget")
    expect(root.locator(".stage canvas").first).to_be_visible()
    return root


def explorer(page: Page, width: int) -> Locator:
    root = hosted(page, width, "explorer.js", {**EXPLORER, "payload": grids.grid().payload})
    page.evaluate(ATTEND, [WEIGHTS, PRODUCTS])
    return root


def drawn_at(page: Page, width: int, grid: HeadGrid, panels: int = 1) -> Drawn:
    root = hosted(page, width, "widget.js", {"payload": grid.payload, "selected": []})
    return Drawn(page, root, grid, panels)


def box(found: Locator) -> Box:
    place = found.bounding_box()
    assert place is not None
    return dict(place)


def apart(one: Box, other: Box) -> bool:
    """Whether two boxes do not overlap."""
    return (
        one["x"] + one["width"] <= other["x"]
        or other["x"] + other["width"] <= one["x"]
        or one["y"] + one["height"] <= other["y"]
        or other["y"] + other["height"] <= one["y"]
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tabs_stand_beside_the_grid_of_a_wide_explorer_and_below_that_of_a_narrow_one(
    page: Page, width: int
) -> None:
    root = explorer(page, width)
    grid, tabs = box(root.locator(".stage")), box(root.get_by_role("tablist"))
    if width > 1000:
        assert tabs["x"] >= width / 2 > grid["x"] + grid["width"]
        assert tabs["y"] < grid["y"]
    else:
        assert tabs["y"] > grid["y"] + grid["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_width_of_the_cell_counts_not_that_of_the_window(page: Page) -> None:
    root = explorer(page, 1800)
    root.evaluate("host => { host.style.width = '700px'; }")
    tabs = root.get_by_role("tablist")
    expect(root.locator(".card.wide")).to_have_count(0)
    assert box(tabs)["y"] > box(root.locator(".stage"))["y"] + box(root.locator(".stage"))["height"]


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_cells_grow_with_the_width_and_clicks_still_find_them(page: Page, width: int, panels: int) -> None:
    if panels > 1 and width < 900:
        pytest.skip("the panels are below each other")
    drawn = drawn_at(page, width, grids.tasks() if panels > 1 else grids.grid(), panels)
    drawn.click(29, 8)
    assert drawn.selected() == "L29H8"
    drawn.click(17, 3)
    assert drawn.selected() == "L17H3"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tooltip_never_covers_its_head(page: Page, width: int) -> None:
    drawn = drawn_at(page, width, grids.grid())
    for layer, head in [(0, 0), (0, 8), (29, 0), (29, 8), (15, 4)]:
        drawn.hover(layer, head)
        expect(drawn.tooltip).to_contain_text(f"L{layer}H{head}")
        x, y = drawn.point(layer, head)
        across, down = cell(drawn)
        cell_box = {"x": x - across / 2, "y": y - down / 2, "width": across, "height": down}
        assert apart(box(drawn.tooltip), cell_box)


def cell(drawn: Drawn) -> tuple[int, int]:
    layout = enlarged(grid_geometry(drawn.grid.payload, drawn.panels), drawn.width)
    return layout.cell_width - layout.gap, layout.cell_height - layout.gap


def test_escape_closes_the_tooltip_until_another_head_is_pointed_at(page: Page) -> None:
    drawn = drawn_at(page, 1100, grids.grid())
    drawn.hover(5, 2)
    expect(drawn.tooltip).to_be_visible()
    page.keyboard.press("Escape")  # the focus is not in the grid
    expect(drawn.tooltip).to_be_hidden()
    x, y = drawn.point(5, 2)
    page.mouse.move(x + 1, y + 1)
    expect(drawn.tooltip).to_be_hidden()
    drawn.hover(6, 2)
    expect(drawn.tooltip).to_contain_text("L6H2")


def test_layer_means_histogram_and_colour_bar_answer_the_mouse(page: Page) -> None:
    drawn = drawn_at(page, 1100, grids.grid())
    values = grid_text.panel_matrix(drawn.grid.payload["panels"][0])
    layout = enlarged(grid_geometry(drawn.grid.payload, 1), drawn.width)
    stage = box(drawn.stage)
    left, top = stage["x"] + 40, stage["y"]

    _, y = drawn.point(18, 0)
    page.mouse.move(left + layout.grid_width + 10 + 5, y)
    mean = grid_text.format_number(float(values[18].mean()))
    expect(drawn.tooltip).to_have_text(f"layer 18{mean} nats, mean of 9 heads")

    extent, count = layout.grid_width - layout.gap, layout.grid_width // 5
    counts, edges = np.histogram(values, bins=min(40, count), range=(0, values.max()))
    base = top + layout.origin(0)[1] + layout.grid_height + 34 + 20 + 36
    page.mouse.move(left + extent * 1.5 / len(counts), base - 2)
    expect(drawn.tooltip).to_contain_text(f"{counts[1]} heads{grid_text.format_number(edges[1])} to ")
    bin_box = {"x": left + extent / len(counts), "y": base - 36, "width": extent / len(counts), "height": 36 + 30}
    assert apart(box(drawn.tooltip), bin_box)

    high = drawn.grid.payload["scale"]["high"]
    page.mouse.move(left + 48, top + 23)
    expect(drawn.tooltip).to_contain_text(f"{grid_text.format_number(high / 4)} nats")
    expect(drawn.tooltip).to_contain_text(f"{int((values >= high / 4).sum())} of 270 heads have at least this value")
    assert apart(box(drawn.tooltip), {"x": left, "y": top + 18, "width": 192, "height": 24})


def test_the_list_of_top_heads_answers_mouse_and_keyboard(page: Page) -> None:
    drawn = drawn_at(page, 1100, grids.grid())
    entry = drawn.root.locator(".top button").nth(1)
    name = entry.locator(":first-child").inner_text()
    entry.hover()
    expect(drawn.tooltip).to_contain_text(f"{name}  ")
    expect(drawn.tooltip).to_contain_text("rank 2 of 270")
    assert apart(box(drawn.tooltip), box(entry))
    page.mouse.move(2, 2)
    expect(drawn.tooltip).to_be_hidden()
    entry.focus()
    expect(drawn.tooltip).to_contain_text(name)


def test_the_bins_of_a_heads_scores_answer_mouse_and_keyboard(page: Page) -> None:
    root = explorer(page, 1100)
    chart, told = root.locator(".histogram"), root.locator(".bin-line")
    chart.hover(position={"x": 36 + 340 / 2, "y": 40})
    expect(told).to_have_text("1 sample with a score from 0.250 to 0.500 nats")
    page.mouse.move(2, 2)
    expect(told).to_have_text("")
    chart.focus()
    chart.press("ArrowLeft")
    expect(told).to_have_text("2 samples with a score from 0.500 to 0.750 nats")
    chart.press("Escape")
    expect(told).to_have_text("")


def test_tokens_and_matrix_have_colour_keys_with_their_values(page: Page) -> None:
    root = explorer(page, 1100)
    root.get_by_role("tab", name="Attention").click()
    ticks = root.locator(".key .ticks")
    token, matrix = (ticks.nth(place).locator("span") for place in (0, 1))
    assert token.all_inner_texts() == ["0", "0.38", "0.75"]  # the second token predicts the answer
    assert matrix.all_inner_texts() == ["0", "0.25", "1.0"]
    tokens, told = root.get_by_label("Tokens; arrow keys select a query token"), root.locator(".readout")
    tokens.press("ArrowRight")
    tokens.press("ArrowRight")
    (first, second), words = sorted(enumerate(WEIGHTS[3:5]), key=lambda pair: -pair[1]), ["2", " + 2 ="]
    keys = [f'key {place} "{words[place]}": {grid_text.format_number(value)}' for place, value in (first, second)]
    expect(told).to_have_text(", ".join(['query 1 " + 2 ="', *keys]))
    tokens.press("Escape")
    expect(told).to_have_text("")
    root.get_by_label("What to show").select_option(index=1)
    assert token.all_inner_texts() == ["−1.5", "−0.75", "0", "0.75", "1.5"]
    expect(root.locator(".key").first).to_contain_text("nats")


@pytest.mark.parametrize("job", ["attend", "ablate"])
def test_measuring_shows_that_it_works_until_it_is_done(page: Page, job: str) -> None:
    root = explorer(page, 1100)
    if job == "attend":
        root.get_by_role("button", name="Attention of L3H5 on sample a").click()
    else:
        root.get_by_role("tab", name="Intervene").click()
        root.get_by_role("button", name="Measure").click()
    panel = root.locator(".tabpanel:visible")
    expect(panel.locator("[aria-busy=true]")).to_have_count(1)
    expect(panel.get_by_role("progressbar", name="Progress")).to_be_visible()
    expect(root.get_by_role("status").first).to_have_text("waiting for the kernel…")
    running = {**IDLE, "state": "running", "job": job, "line": "measuring: 3 of 8", "done": 3, "total": 8}
    page.evaluate("status => window.model.set('status', status)", running)
    expect(panel.get_by_role("progressbar")).to_have_attribute("value", "3")
    expect(panel.locator(".working")).to_have_text("measuring: 3 of 8")
    page.evaluate("status => window.model.set('status', status)", IDLE)
    expect(root.locator("[aria-busy=true]")).to_have_count(0)
    expect(panel.get_by_role("progressbar")).to_have_count(0)


def problems(page: Page, width: int) -> list[str]:
    """What axe-core finds wrong, or cannot decide, below the widget's root.

    axe does not decide the contrast of text that is scrolled out of view, so everything is brought into view.
    """
    page.set_viewport_size({"width": width, "height": 4000})
    for table in page.locator("#widget .data").all():
        table.evaluate("table => { table.style.maxHeight = table.style.maxWidth = 'none'; }")
    page.evaluate("script => { if (!window.axe) new Function(script).call(window); }", AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run('#widget').then(({ violations, incomplete }) => [...violations, ...incomplete])")
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_problem_in_the_explorer(page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    root = explorer(page, width)
    for tab in ("Head", "Attention", "Intervene"):
        root.get_by_role("tab", name=tab).click()
        assert problems(page, width) == []


@pytest.mark.parametrize("grid", ["grid", "tasks", "steps", "change"])
def test_axe_finds_no_problem_in_a_grid(page: Page, grid: str) -> None:
    drawn = drawn_at(page, 1100, getattr(grids, grid)())
    for drawer in ("Options", "Table", "Save"):
        drawn.button(drawer)
    drawn.stage.focus()
    drawn.press("ArrowDown", "Space")
    assert problems(page, 1100) == []
