"""The widgets' modules on a page without Jupyter: they need only anywidget's specification (AFM).

They therefore run in VS Code, Colab and marimo too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from headnb.display import grid_text
from headnb.display.frontend import bundle
from headnb.display.grid import HeadGrid
from playwright.sync_api import expect

import grids
from head_grid import Drawn
from widget_host_page import HOST

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXPLORER = {
    "selected": [],
    "focused": "",
    "task": "sums",
    "method": "activation",
    "samples": 32,
    "choices": {"model": "m", "tasks": ["sums"], "methods": {"activation": "the paper's"}},
    "status": {"state": "idle", "line": "", "done": 0, "total": 0, "error": "", "note": ""},
    "head": {},
    "attention": {},
    "ablation": {},
}


def hosted(page: Page, name: str, traits: dict[str, Any]) -> None:
    page.evaluate(HOST, {"script": bundle(name).read_text(encoding="utf-8"), "traits": traits})
    expect(page.locator("#widget .stage")).to_be_visible()


def test_the_selection_is_sent_and_received(page: Page) -> None:
    hosted(page, "widget.js", {"payload": grids.grid().payload, "selected": ["L3H5"]})
    names = page.locator("#widget .selection .names")
    expect(names).to_have_text("L3H5")
    page.locator("#widget .top button").first.click()
    assert page.evaluate("window.saved") == [names.inner_text()]
    page.evaluate("window.model.set('selected', ['L1H2', 'L0H1'])")
    expect(names).to_have_text("L0H1,L1H2")
    assert page.evaluate("window.leave()") == 0
    expect(page.locator("#widget .stage")).to_have_count(0)


def test_an_update_of_the_payload_keeps_the_tooltip_the_tabs_and_the_scroll_position(page: Page) -> None:
    parts = {"gsm8k": grids.levels(), "mbpp": grids.levels(seed=1, task="mbpp")}
    study = HeadGrid.of(parts)
    hosted(page, "widget.js", {"payload": study.payload, "selected": []})
    drawn = Drawn(page, page.locator("#widget"), study, panels=2)
    drawn.hover(5, 2)
    after = HeadGrid.of({name: (2 * part).assign_attrs(part.attrs) for name, part in parts.items()}).payload
    drawn.button("Options")
    drawn.root.get_by_label("side by side").uncheck()
    drawn.button("Table")
    drawn.root.locator(".data").evaluate("table => { table.scrollTop = 50; }")
    alone = Drawn(page, drawn.root, grids.grid())
    alone.hover(5, 2)
    tab = drawn.root.get_by_role("tab").last
    tab.evaluate("tab => { tab.dataset.same = 'yes'; }")
    page.evaluate("payload => window.model.set('payload', payload)", after)
    expect(drawn.tooltip).to_contain_text(grid_text.format_number(after["panels"][0]["values"][5][2], 4))
    assert tab.get_attribute("data-same") == "yes"
    assert drawn.root.locator(".data").evaluate("table => table.scrollTop") == 50
    smaller = grids.grid(layers=4).payload
    page.evaluate("payload => window.model.set('payload', payload)", smaller)
    expect(drawn.tooltip).to_be_hidden()


def test_a_page_that_is_dark_only_by_its_colour_scheme_is_recognised(page: Page) -> None:
    page.evaluate("document.documentElement.style.colorScheme = 'dark'")
    grid = grids.change()
    hosted(page, "widget.js", {"payload": grid.payload, "selected": []})
    drawn = Drawn(page, page.locator("#widget"), grid)
    drawn.button("Save")
    with page.expect_download() as found:
        drawn.button("SVG")
    ink, ground = re.findall(r'fill="#([0-9a-f]{6})"', found.value.path().read_text())[1::-1]
    assert int(ground[:2], 16) < 64 < 192 < int(ink[:2], 16)


def test_the_focus_stays_on_a_chip_and_thousands_of_heads_are_not_all_named(page: Page) -> None:
    grid = grids.grid(layers=40, heads=40)
    some = ["L1H2", "L3H4", "L5H6"]
    hosted(page, "explorer.js", EXPLORER | {"payload": grid.payload, "selected": some, "focused": "L1H2"})
    chip = page.locator(".chips").get_by_role("button", name="L3H4")
    chip.focus()
    page.keyboard.press("Enter")
    page.evaluate("window.model.set('focused', 'L3H4')")
    expect(chip).to_be_focused()
    expect(chip).to_have_attribute("aria-pressed", "true")
    page.locator("#widget .stage").press("Control+a")
    expect(page.locator(".chips")).to_contain_text("and 1499 more")
    expect(page.locator(".chips button")).to_have_count(101)  # 100 and the focused head
    page.get_by_role("tab", name="Intervene").click()
    expect(page.locator(".tabpanel:visible")).to_contain_text("and 1560 more")


def test_the_explorer_sends_commands_and_stops_when_its_last_view_is_closed(page: Page) -> None:
    hosted(page, "explorer.js", EXPLORER | {"payload": grids.grid().payload})
    page.get_by_role("button", name="Run").click()
    page.evaluate("window.model.set('status', {...window.model.get('status'), error: 'out of <b>memory</b>'})")
    expect(page.get_by_role("alert").first).to_have_text("out of <b>memory</b>")
    assert page.evaluate("window.leave()") == 0
    assert page.evaluate("window.sent") == [{"do": "run"}, {"do": "stop"}]


@pytest.mark.parametrize("colour", ["#111111", "#eeeeee"])
def test_text_has_the_pages_colour_if_the_host_sets_no_variables(page: Page, colour: str) -> None:
    page.evaluate("colour => { document.body.style.color = colour; }", colour)
    hosted(page, "widget.js", {"payload": grids.grid().payload, "selected": []})
    found = page.locator("#widget .title").evaluate("title => getComputedStyle(title).color")
    value = int(colour[1:3], 16)
    assert found == f"rgb({value}, {value}, {value})"
