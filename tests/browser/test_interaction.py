"""Interaction with a grid on the offline page; JupyterLab and the widget use the same code."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from headnb.display import grid_text
from headnb.display.colours import paint
from headnb.display.grid import HeadGrid
from headnb.display.page import interactive_page
from PIL import Image
from playwright.sync_api import expect

import grids
from head_grid import Drawn
from paths import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

Opened = "Callable[..., Drawn]"


@pytest.fixture
def opened(page: Page, tmp_path: Path) -> Opened:
    """A function that opens a grid's offline page and checks that the page sends no requests."""
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))

    def opener(grid: HeadGrid, panels: int = 1) -> Drawn:
        path = tmp_path / "page.html"
        path.write_text(interactive_page(grid.payload), encoding="utf-8")
        page.goto(path.as_uri())
        page.locator("#headnb-grid .stage canvas").first.wait_for()
        assert requests == [path.as_uri()]
        return Drawn(page, page.locator("#headnb-grid"), grid, panels)

    return opener


def head(grid: HeadGrid, rank: int) -> tuple[int, int]:
    return grid_text.ranking(grid.payload["panels"][0])[rank - 1]


@pytest.mark.parametrize("make", [grids.grid, grids.change], ids=["levels", "difference"])
def test_cells_have_the_colours_of_the_python_picture(opened: Opened, make: Callable[[], HeadGrid]) -> None:
    drawn = opened(make())
    payload = drawn.grid.payload
    scale = (payload["scale"]["low"], payload["scale"]["high"])
    values = grid_text.panel_matrix(payload["panels"][0])
    for layer, place in [(3, 1), (5, 6), (8, 4), head(drawn.grid, 1)]:
        if payload["panels"][0].get("significant", values * 0)[layer][place]:
            continue
        colour, opacity = paint(values[layer, place], scale)
        expected = [*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), 255 * opacity]
        found = drawn.pixel(layer, place)
        assert found[3] == pytest.approx(expected[3], abs=3)
        assert np.allclose(found[:3], expected[:3], atol=8 if opacity == 1 else 40) or opacity < 0.1


def test_the_tooltip_has_head_value_interval_rank_and_group(opened: Opened) -> None:
    drawn = opened(grids.change())
    drawn.hover(11, 9)
    expect(drawn.tooltip).to_contain_text("L11H9  −0.02500 nats")
    expect(drawn.tooltip).to_contain_text("95 % interval −0.0290 to −0.0210")
    expect(drawn.tooltip).to_contain_text("rank 1 of 256")
    expect(drawn.tooltip).to_contain_text("key/value head 2")
    expect(drawn.tooltip).to_contain_text("significant")
    drawn.page.mouse.move(2, 2)
    expect(drawn.tooltip).to_be_hidden()


def test_text_next_to_the_grid_is_equal_to_pythons(opened: Opened) -> None:
    drawn = opened(grids.grid())
    payload = drawn.grid.payload
    (panel,) = payload["panels"]
    for line in (
        grid_text.heading(payload),
        grid_text.subtitle(payload),
        panel["statistics_line"],
        panel["reliability_line"],
    ):
        expect(drawn.root.locator(".card")).to_contain_text(line)
    names = [f"L{layer}H{place}" for layer, place in grid_text.ranking(panel)[:5]]
    assert drawn.root.locator(".top button > :first-child").all_inner_texts() == names


def test_click_shift_control_and_drag_select(opened: Opened) -> None:
    drawn = opened(grids.grid())
    drawn.click(5, 2)
    assert drawn.selected() == "L5H2"
    drawn.click(6, 3, "Shift")
    assert drawn.selected() == "L5H2,L5H3,L6H2,L6H3"
    drawn.click(20, 8, "Control")
    assert drawn.selected() == "L5H2,L5H3,L6H2,L6H3,L20H8"
    drawn.drag((10, 0), (11, 1))
    assert drawn.selected() == "L10H0,L10H1,L11H0,L11H1"
    expect(drawn.root.get_by_role("status")).to_have_text("4 heads selected")
    drawn.button("Clear")
    assert drawn.selected() == ""


def test_the_keyboard_moves_selects_and_announces(opened: Opened) -> None:
    drawn = opened(grids.grid())
    drawn.stage.focus()
    drawn.press("ArrowDown", "ArrowDown", "ArrowRight", "Space", "Shift+ArrowDown")
    assert drawn.selected() == "L1H1,L2H1"
    active = drawn.root.locator(f"#{drawn.stage.get_attribute('aria-activedescendant')}")
    expect(active).to_contain_text("L2H1")
    assert active.get_attribute("aria-rowindex") == "3"
    assert active.get_attribute("aria-selected") == "true"
    drawn.press("Escape", "Escape", "Shift+Enter")
    assert drawn.selected() == ""


def test_escape_closes_the_tooltip_before_it_clears_the_selection(opened: Opened) -> None:
    drawn = opened(grids.grid())
    drawn.click(5, 2)
    expect(drawn.tooltip).to_be_visible()
    drawn.press("Escape")
    expect(drawn.tooltip).to_be_hidden()
    assert drawn.selected() == "L5H2"
    drawn.press("Escape")
    assert drawn.selected() == ""


def test_the_keyboard_cursor_describes_the_change_of_a_head_and_names_its_panel(opened: Opened) -> None:
    drawn = opened(HeadGrid.open(FIXTURES / "payloads" / "valid" / "study.heads.json"))
    drawn.stage.focus()
    drawn.press("ArrowDown")
    value = grid_text.panel_matrix(drawn.grid.payload["panels"][-1]["change"])[0, 0]
    active = drawn.root.locator(f"#{drawn.stage.get_attribute('aria-activedescendant')}")
    expect(active).to_contain_text(f"L0H0  {grid_text.format_number(value, 4)} nats, difference (step 6 − step 0), ")


def test_the_keys_are_a_description_and_not_part_of_the_name(opened: Opened) -> None:
    drawn = opened(grids.grid())
    assert "Arrow keys" not in (drawn.stage.get_attribute("aria-label") or "")
    expect(drawn.root.locator(f"#{drawn.stage.get_attribute('aria-describedby')}")).to_contain_text("Arrow keys")


def test_the_head_at_the_keyboard_cursor_is_scrolled_into_view(opened: Opened) -> None:
    drawn = opened(grids.grid(layers=4, heads=128))
    drawn.page.set_viewport_size({"width": 340, "height": 800})
    drawn.stage.focus()
    drawn.press("ArrowDown", "End")
    active = drawn.root.locator(f"#{drawn.stage.get_attribute('aria-activedescendant')}")
    expect(active).to_contain_text("L0H127")
    box = active.bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= 340
    assert drawn.page.evaluate("document.documentElement.scrollWidth") <= 340


def test_the_selection_is_copied(opened: Opened) -> None:
    drawn = opened(grids.grid())
    drawn.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    drawn.drag((3, 5), (3, 6))
    drawn.press("Control+c")
    expect(drawn.root.get_by_role("button", name="Copied")).to_be_visible()
    assert drawn.page.evaluate("navigator.clipboard.readText()") == "L3H5,L3H6"


def test_several_tasks_share_one_scale_and_the_tooltip_lists_all_tasks(opened: Opened) -> None:
    drawn = opened(grids.tasks(), panels=3)
    drawn.hover(12, 4, panel=1)
    expect(drawn.tooltip).to_contain_text("mbpp")
    expect(drawn.tooltip).to_contain_text("gsm8k: ")
    values = [panel["values"][12][4] for panel in drawn.grid.payload["panels"]]
    expect(drawn.tooltip).to_contain_text(f"L12H4  {grid_text.format_number(values[1] or 0, 4)} nats")
    low, high = drawn.grid.payload["scale"].values()
    for panel, value in enumerate(values):
        colour = paint(value or 0, (low, high)).colour
        expected = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.allclose(drawn.pixel(12, 4, panel)[:3], expected, atol=8)


def test_tabs_show_one_task_at_a_time(opened: Opened) -> None:
    drawn = opened(grids.tasks(), panels=3)
    drawn.button("Options")
    drawn.root.get_by_label("side by side").uncheck()
    tabs = drawn.root.get_by_role("tab")
    assert tabs.all_inner_texts() == ["gsm8k", "mbpp", "boolq"]
    tabs.nth(0).press("ArrowRight")
    expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")
    expect(tabs.nth(1)).to_be_focused()
    panel = drawn.root.get_by_role("tabpanel", name="mbpp")
    assert tabs.nth(1).get_attribute("aria-controls") == panel.get_attribute("id")
    tabs.nth(1).press("End")
    expect(tabs.nth(2)).to_be_focused()
    tabs.nth(2).press("Home")
    tabs.nth(0).press("ArrowRight")
    expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")
    top = grid_text.ranking(drawn.grid.payload["panels"][1])[0]
    expect(drawn.root.locator(".top button").first).to_contain_text(f"L{top[0]}H{top[1]}")


def test_the_difference_of_two_tasks(opened: Opened) -> None:
    drawn = opened(grids.tasks(), panels=3)
    drawn.button("Options")
    expect(drawn.root.get_by_role("tabpanel")).to_have_count(0)  # all panels are shown
    drawn.root.get_by_label("difference", exact=True).check()
    options = drawn.root.get_by_role("group", name="Options")
    chosen = [options.get_by_label(name, exact=True) for name in ("Panel", "minus panel")]
    assert [each.evaluate("list => list.value") for each in chosen] == ["boolq", "gsm8k"]
    first, last = (grid_text.panel_matrix(drawn.grid.payload["panels"][i]) for i in (0, 2))
    layer, place = divmod(int(np.abs(last - first).argmax()), 9)
    top = drawn.root.locator(".top button").first
    expect(top).to_contain_text(f"L{layer}H{place}")
    expect(top).to_contain_text(grid_text.format_number((last - first)[layer, place]))
    expect(drawn.root.locator(".aside")).to_contain_text("headnb.compare")


def test_steps_have_a_slider_that_plays(opened: Opened) -> None:
    drawn = opened(grids.steps())
    slider = drawn.root.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "step 100"
    slider.fill("1")
    expect(slider).to_have_attribute("aria-valuetext", "step 20")
    before = drawn.pixel(*head(drawn.grid, 1))
    drawn.button("▶ Play")
    expect(slider).to_have_attribute("aria-valuetext", "step 100")
    expect(drawn.root.get_by_role("button", name="▶ Play")).to_be_visible()
    assert drawn.pixel(*head(drawn.grid, 1)) != before


def test_colours_by_rank_and_a_pinned_scale(opened: Opened) -> None:
    drawn = opened(grids.grid())
    values = grid_text.panel_matrix(drawn.grid.payload["panels"][0])
    middle = divmod(int(np.argsort(values, axis=None)[values.size // 2]), 9)
    drawn.button("Options")
    drawn.root.get_by_label("rank").check()
    colour = paint(0.5, (0, 1)).colour
    assert np.allclose(drawn.pixel(*middle)[:3], [int(colour[i : i + 2], 16) for i in (1, 3, 5)], atol=8)
    drawn.root.get_by_label("linear").check()
    upper = drawn.root.get_by_label("Upper end of the colour scale")
    upper.fill(str(values[middle]))
    upper.press("Enter")
    expect(drawn.root.get_by_label("pinned")).to_be_checked()
    assert np.allclose(drawn.pixel(*middle)[:3], (253, 231, 37), atol=2)
    upper.fill("-1")
    upper.press("Enter")
    assert float(upper.input_value()) == pytest.approx(values[middle])
    drawn.root.get_by_label("pinned").uncheck()
    assert float(upper.input_value()) == drawn.grid.payload["scale"]["high"]


def test_downloads(opened: Opened, tmp_path: Path) -> None:
    drawn = opened(grids.grid())
    drawn.button("Save")
    saved: dict[str, Path] = {}
    for form in ("PNG", "SVG", "JSON"):
        with drawn.page.expect_download() as found:
            drawn.button(form)
        saved[form] = tmp_path / found.value.suggested_filename
        found.value.save_as(saved[form])
    assert {path.name for path in saved.values()} == {
        f"smollm2-135m-gsm8k.{end}" for end in ("png", "svg", "heads.json")
    }
    assert HeadGrid.open(saved["JSON"]).payload == json.loads(json.dumps(drawn.grid.payload))
    drawing = saved["SVG"].read_text()
    assert drawn.grid.payload["panels"][0]["reliability_line"] in drawing
    assert re.search(r"<(script|style|image|a)\b", drawing) is None
    with Image.open(saved["PNG"]) as image:
        assert image.width > 800
        assert len(set(image.convert("RGB").resize((80, 80)).get_flattened_data())) > 20


def test_the_data_table_has_every_value(opened: Opened) -> None:
    drawn = opened(grids.hybrid())
    drawn.button("Table")
    rows = drawn.root.locator(".data tbody tr")
    expect(rows).to_have_count(28)
    values = drawn.grid.payload["panels"][0]["values"]
    for layer in (2, 3):
        words = ["–" if value is None else grid_text.format_number(value) for value in values[layer]]
        assert rows.nth(layer).locator("td").all_inner_texts() == words
    drawn.hover(2, 2)
    expect(drawn.tooltip).to_contain_text("no softmax head")


def test_the_page_follows_light_and_dark(opened: Opened) -> None:
    drawn = opened(grids.grid())
    drawn.page.emulate_media(color_scheme="light")
    assert drawn.becomes("dark")
    drawn.page.emulate_media(color_scheme="dark")
    assert drawn.becomes("light")


def test_the_grid_fits_a_narrow_page(opened: Opened) -> None:
    drawn = opened(grids.grid())
    drawn.page.set_viewport_size({"width": 340, "height": 800})
    drawn.page.wait_for_timeout(200)
    assert drawn.page.evaluate("document.documentElement.scrollWidth") <= 340
    drawn.stage.focus()
    drawn.press("ArrowDown", "Enter")
    assert drawn.selected() == "L0H0"


def test_a_study_has_tabs_of_tasks_and_one_slider_of_steps(opened: Opened) -> None:
    drawn = opened(grids.study())
    slider, tabs = drawn.root.get_by_role("slider"), drawn.root.get_by_role("tab")
    assert tabs.all_inner_texts() == ["gsm8k", "mbpp"]
    assert slider.get_attribute("aria-valuetext") == "step 100"
    tabs.nth(1).click()
    slider.fill("2")
    expect(slider).to_have_attribute("aria-valuetext", "step 40")
    expect(tabs.nth(1)).to_have_attribute("aria-selected", "true")
    panel = drawn.grid.payload["panels"][2 * 2 + 1]
    assert panel["title"] == "step 40 · mbpp"
    (layer, place), *_ = grid_text.ranking(panel)
    expect(drawn.root.locator(".top button").first).to_contain_text(f"L{layer}H{place}")
    drawn.hover(layer, place)
    expect(drawn.tooltip).to_contain_text("gsm8k: ")
    expect(drawn.tooltip.locator("canvas")).to_have_count(1)
    drawn.page.mouse.move(2, 2)
    drawn.button("Options")
    drawn.root.get_by_label("difference", exact=True).check()
    first, last = (grid_text.panel_matrix(drawn.grid.payload["panels"][2 * step + 1]) for step in (0, 5))
    layer, place = divmod(int(np.abs(last - first).argmax()), 9)
    expect(drawn.root.locator(".top button").first).to_contain_text(f"L{layer}H{place}")


def test_roles_are_marked_filtered_by_keyboard_and_listed(opened: Opened) -> None:
    roles = xr.Dataset(
        {"score": (("role", "layer", "head"), np.zeros((2, 30, 9)))},
        coords={"role": ["induction", "sink"], "threshold": ("role", [0.4, 0.3]), "layer": range(30), "head": range(9)},
    )
    roles.score[0, 5, 2], roles.score[1, 5, 2], roles.score[1, 7, 1] = 0.83, 0.5, 0.6
    drawn = opened(grids.grid().with_roles(roles))
    drawn.hover(5, 2)
    expect(drawn.tooltip).to_contain_text("induction 0.83")
    expect(drawn.root.locator(".aside")).to_contain_text("I induction (1 above 0.4), S sink (2 above 0.3).")
    before = drawn.pixel(7, 1), drawn.pixel(10, 3)
    drawn.button("Options")
    induction = drawn.root.get_by_label("I induction (1)")
    induction.focus()
    drawn.page.keyboard.press("Space")
    expect(induction).to_be_checked()
    expect(induction).to_be_focused()
    assert drawn.pixel(10, 3) != before[1]
    assert drawn.pixel(7, 1) != before[0]
    drawn.page.keyboard.press("Space")
    assert drawn.pixel(10, 3) == before[1]
    drawn.button("Table")
    marked = drawn.root.locator(".data td", has=drawn.page.locator("abbr"))
    assert [cell.inner_text()[-2:].strip() for cell in marked.all()] == ["IS", "S"]
    expect(marked.first.locator("abbr")).to_have_attribute("title", "induction 0.83, sink 0.50")
