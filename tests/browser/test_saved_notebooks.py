"""Saved grids are drawn without a kernel and without trust, in JupyterLab and in Notebook 7."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from headnb.display.payload import MIME_TYPE
from headnb.explorer.grid_widget import HeadGridWidget
from playwright.sync_api import expect

import grids
from head_grid import Drawn
from jupyter_pages import Jupyter, command, no_kernel, shown_notebook
from paths import FIXTURES

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAYLOADS = FIXTURES / "payloads"


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_saved_grid_is_drawn_without_a_kernel(page: Page, jupyter: Jupyter, *, trusted: bool) -> None:
    grid = grids.grid()
    jupyter.open_lab(page, jupyter.save(shown_notebook(grid), trusted=trusted))
    no_kernel(page)
    drawn = Drawn(page, page.locator(".headnb-grid"), grid)
    drawn.hover(5, 2)
    expect(drawn.tooltip).to_contain_text("L5H2")
    drawn.click(5, 2)
    assert drawn.selected() == "L5H2"


def test_a_saved_widget_is_drawn_as_a_grid_without_a_kernel(page: Page, jupyter: Jupyter) -> None:
    grid = grids.grid()
    view, _ = HeadGridWidget(grid)._repr_mimebundle_()
    jupyter.open_lab(page, jupyter.save(shown_notebook(view)))  # a trusted notebook waits for a kernel
    no_kernel(page)
    drawn = Drawn(page, page.locator(".headnb-grid"), grid)
    drawn.hover(5, 2)
    expect(drawn.tooltip).to_contain_text("L5H2")


def test_keys_typed_in_a_grid_do_not_trigger_jupyterlabs_shortcuts(page: Page, jupyter: Jupyter) -> None:
    grid = grids.grid()
    jupyter.open_lab(page, jupyter.save(shown_notebook(grid)))
    no_kernel(page)
    drawn = Drawn(page, page.locator(".headnb-grid"), grid)
    drawn.click(0, 0)
    drawn.press("a", "b", "ArrowDown", "x", "Space")
    drawn.button("Options")
    drawn.root.get_by_label("Upper end of the colour scale").press("1")
    assert page.locator(".jp-Notebook-cell").count() == 1
    assert page.locator(".jp-MarkdownCell").count() == 0
    assert drawn.selected() == "L0H0,L1H0"


def test_a_grid_follows_jupyterlabs_theme(page: Page, jupyter: Jupyter) -> None:
    grid = grids.change()
    jupyter.open_lab(page, jupyter.save(shown_notebook(grid)))
    no_kernel(page)
    drawn = Drawn(page, page.locator(".headnb-grid"), grid)
    drawn.hover(5, 2)
    assert drawn.becomes("dark")
    command(page, "apputils:change-theme", {"theme": "JupyterLab Dark"})
    assert drawn.becomes("light")
    command(page, "apputils:change-theme", {"theme": "JupyterLab Light"})
    assert drawn.becomes("dark")


def test_a_grid_out_of_view_follows_jupyterlabs_theme_when_it_scrolls_into_view(page: Page, jupyter: Jupyter) -> None:
    grid = grids.grid()
    jupyter.open_lab(page, jupyter.save(shown_notebook(*[grid] * 8)))
    no_kernel(page)
    expect(page.locator(".headnb-grid")).to_have_count(8)  # cells are attached one at a time
    last = Drawn(page, page.locator(".headnb-grid").last, grid)
    last.hover(20, 2)
    assert last.becomes("dark")
    page.locator(".headnb-grid").first.scroll_into_view_if_needed()
    expect(last.root).not_to_be_in_viewport()
    command(page, "apputils:change-theme", {"theme": "JupyterLab Dark"})
    assert Drawn(page, page.locator(".headnb-grid").first, grid).becomes("light")
    page.locator(".jp-CodeCell").last.evaluate("cell => cell.scrollIntoView()")
    assert last.becomes("light")
    command(page, "apputils:change-theme", {"theme": "JupyterLab Light"})
    assert last.becomes("dark")


def test_heads_json_opens_as_a_grid(page: Page, jupyter: Jupyter) -> None:
    grid = grids.grid()
    grid.save(jupyter.files / "saved.heads.json")
    jupyter.open_lab(page, "saved.heads.json")
    drawn = Drawn(page, page.locator(".headnb-grid"), grid)
    expect(drawn.root.locator(".title")).to_have_text("smollm2-135m · gsm8k")
    drawn.hover(5, 2)
    expect(drawn.tooltip).to_contain_text("L5H2")


@pytest.mark.parametrize("name", ["cut-off", "nan-token", "nested-too-deeply", "a-million-cells"])
def test_an_invalid_heads_json_is_a_one_line_error(page: Page, jupyter: Jupyter, name: str) -> None:
    found = PAYLOADS / "invalid-beyond-schema" / f"{name}.heads.json"
    (jupyter.files / found.name).write_bytes(found.read_bytes())
    jupyter.open_lab(page, found.name)
    expect(page.locator(".headnb-grid").get_by_role("alert")).to_contain_text("head grid")
    expect(page.locator(".headnb-grid canvas").first).to_be_hidden()


def test_hostile_payloads_run_nothing_and_the_page_stays_responsive(page: Page, jupyter: Jupyter) -> None:
    """One untrusted notebook has all invalid payloads and one with markup in every text as outputs."""
    bad = [json.loads(path.read_text()) for path in sorted((PAYLOADS / "invalid").glob("*.heads.json"))]
    bad += [
        None,
        "no JSON",
        3,
        {"version": 1, "kind": "level", "units": "", "layers": 1000, "heads": 1000, "panels": [{"values": [[1]]}]},
    ]
    markup = json.loads((PAYLOADS / "valid" / "markup-in-every-text.heads.json").read_text())
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    jupyter.open_lab(page, jupyter.save(shown_notebook({MIME_TYPE: markup}, *({MIME_TYPE: one} for one in bad))))
    no_kernel(page)
    drawn = page.locator(".headnb-grid").first
    expect(drawn.locator(".title")).to_have_text("<script>alert(1)</script>")
    for name in ("Options", "Table", "Save"):
        drawn.get_by_role("button", name=name).click()
    stage = drawn.locator(".stage")
    stage.focus()
    stage.press("ArrowDown")
    expect(drawn.locator(".tooltip")).to_contain_text("</title><script>alert(2)</script>")
    assert drawn.locator("script, img, svg[onload]").count() == 0
    page.locator(".jp-Notebook-cell").last.scroll_into_view_if_needed()
    last = page.locator(".headnb-grid").last.get_by_role("alert")
    expect(last).to_contain_text("at most 500000 are drawn")  # cells are attached one at a time
    assert dialogs == []


def test_notebook_7_draws_a_saved_grid(page: Page, jupyter: Jupyter) -> None:
    grid = grids.grid()
    jupyter.open_notebook(page, jupyter.save(shown_notebook(grid)))
    no_kernel(page)
    drawn = Drawn(page, page.locator(".headnb-grid"), grid)
    drawn.hover(20, 8)
    expect(drawn.tooltip).to_contain_text("L20H8")
    drawn.stage.focus()
    drawn.press("ArrowDown", "b", "Space")
    assert drawn.selected() == "L0H0"
    assert page.locator(".jp-Notebook-cell").count() == 1
