"""Grids with a running kernel: new results, updates in place, and the selection shared with Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

import grids
from head_grid import Drawn
from jupyter_pages import Jupyter, notebook, run_all, run_cell, shown_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Page

MADE = """import sys
import grids
"""
WIDGET = """from headnb.explorer.grid_widget import HeadGridWidget
grid = HeadGridWidget(grids.grid())
seen = []
grid.observe(lambda change: seen.append(change["new"]), "selected")
grid"""
FILLING = """import time
from IPython.display import display
from headnb.display.grid import HeadGrid
partial = dict(grids.grid().payload, title="filling", progress={"done": 4, "total": 32, "message": ""})
handle = display(HeadGrid.of(partial), display_id=True)
input("continue?")
handle.update(HeadGrid.of(dict(grids.grid().payload, title="filled")))"""


def test_trusted_grid_with_a_kernel_that_has_run_nothing(page: Page, jupyter: Jupyter) -> None:
    grid = grids.grid()
    jupyter.open_lab(page, jupyter.save(shown_notebook(grid, kernel=True), trusted=True))
    drawn = Drawn(page, page.locator(".headnb-grid"), grid)
    drawn.hover(5, 2)
    expect(drawn.tooltip).to_contain_text("L5H2")


def test_run_all_draws_and_an_update_changes_the_same_grid(page: Page, jupyter: Jupyter) -> None:
    jupyter.open_lab(page, jupyter.save(notebook(MADE + "grids.tasks()", FILLING)))
    run_all(page)
    question = page.locator(".jp-Stdin-input")
    question.wait_for()
    expect(page.locator(".headnb-grid .title").first).to_have_text("smollm2-135m")
    drawn = Drawn(page, page.locator(".headnb-grid").nth(1), grids.grid())
    expect(drawn.root.locator(".progress")).to_contain_text("4 of 32 samples done.")
    drawn.click(5, 2)
    drawn.stage.evaluate("stage => { stage.dataset.same = 'yes'; }")
    question.fill("yes")
    question.press("Enter")
    expect(drawn.root.locator(".title")).to_have_text("filled")
    expect(drawn.root.locator(".progress")).to_be_hidden()
    assert drawn.stage.get_attribute("data-same") == "yes"
    assert drawn.selected() == "L5H2"


@pytest.mark.parametrize("host", ["lab", "notebook"])
def test_the_selection_is_synchronised_between_browser_and_python(page: Page, jupyter: Jupyter, host: str) -> None:
    name = jupyter.save(notebook(MADE + WIDGET, "grid.selected, seen", 'grid.selected = ["L7H1", "L3H5"]'))
    (jupyter.open_lab if host == "lab" else jupyter.open_notebook)(page, name)
    cells = page.locator(".jp-CodeCell")
    run_cell(page, 0)
    drawn = Drawn(page, cells.nth(0).locator(".jp-OutputArea-output").last, grids.grid())
    drawn.click(5, 2)
    drawn.click(6, 2, "Control")
    run_cell(page, 1)
    expect(cells.nth(1).locator(".jp-OutputArea-output")).to_contain_text(
        "(['L5H2', 'L6H2'], [['L5H2'], ['L5H2', 'L6H2']])"
    )
    run_cell(page, 2)
    expect(drawn.root.locator(".selection .names")).to_have_text("L3H5,L7H1")
