"""Selection between a live grid in JupyterLab and Python: mouse, keyboard, brush, undo, links and hostile pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import headnb
from playwright.sync_api import expect

import grids
from head_grid import Drawn
from jupyter_pages import Jupyter, notebook, run_cell, start_cell

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

MADE = """import headnb, grids
grid = headnb.grid(grids.rising(), live=True)
calls = []
remove = grid.on_select(calls.append)
grid"""
LINKED = """other = headnb.grid(grids.rising(), title="linked", live=True)
shared = grid.link(other)
other"""
BROKEN = """def broken(heads):
    raise ValueError("no such thing")
grid.on_select(broken);"""
SELECTED = "grid.selected, len(calls)"
SHOTS = os.environ.get("HEADNB_SHOTS")
HEAD_NUMBERS, BARS = 8, 72  # pixels below the grid


def shot(page: Page, name: str) -> None:
    """Save a screenshot if HEADNB_SHOTS is set."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def opened(page: Page, jupyter: Jupyter, *cells: str) -> Drawn:
    page.set_viewport_size({"width": 1280, "height": 1400})
    jupyter.open_lab(page, jupyter.save(notebook(MADE, *cells)))
    run_cell(page, 0)
    drawn = drawn_in(page, 0)
    expect(drawn.stage).to_be_visible()
    return drawn


def drawn_in(page: Page, cell: int) -> Drawn:
    root: Locator = page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output").last
    return Drawn(page, root, headnb.grid(grids.rising()))


def corner(drawn: Drawn) -> tuple[float, float, float]:
    """Left and bottom of the cells, and the width of a cell, in pixels on the page."""
    (left, y), (right, _) = drawn.point(5, 0), drawn.point(5, 1)
    above = drawn.point(4, 0)[1]
    return left - (right - left) / 2, y + (y - above) / 2, right - left


def test_what_the_mouse_selects_is_a_value_in_the_next_cell(page: Page, jupyter: Jupyter) -> None:
    drawn = opened(page, jupyter, SELECTED, SELECTED, SELECTED, SELECTED)
    left, bottom, width = corner(drawn)
    page.mouse.click(left - 10, drawn.point(2, 0)[1])
    expect(run_cell(page, 1)).to_have_text(f"({[f'L2H{head}' for head in range(8)]}, 1)")
    page.mouse.click(left + 3.5 * width, bottom + HEAD_NUMBERS)
    expect(run_cell(page, 2)).to_have_text(f"({[f'L{layer}H3' for layer in range(6)]}, 2)")
    shot(page, "select-column")
    # Values rise from 0 to 47 in reading order, so the right end of the histogram holds the last layer.
    page.mouse.move(left + 8 * width - 4, bottom + BARS)
    page.mouse.down()
    page.mouse.move(left + 7.4 * width, bottom + BARS, steps=4)
    shot(page, "select-brush")
    page.mouse.up()
    brushed = drawn.selected()
    assert brushed.split(",")[-1] == "L5H7"
    assert 2 <= len(brushed.split(",")) <= 6
    expect(run_cell(page, 3)).to_have_text(f"({brushed.split(',')}, 3)")
    drawn.drag((0, 0), (1, 1))
    expect(run_cell(page, 4)).to_have_text("(['L0H0', 'L0H1', 'L1H0', 'L1H1'], 4)")


def test_keyboard_selects_and_undo_takes_back(page: Page, jupyter: Jupyter) -> None:
    drawn = opened(page, jupyter, SELECTED, SELECTED, SELECTED)
    drawn.stage.focus()
    drawn.press("ArrowDown", "ArrowDown", "Shift+Space")
    expect(run_cell(page, 1)).to_contain_text(f"({[f'L1H{head}' for head in range(8)]}")
    drawn.stage.focus()
    drawn.press("ArrowRight", "Control+Space")
    assert len(drawn.selected().split(",")) == 13
    drawn.press("Control+z")
    assert drawn.selected() == ",".join(f"L1H{head}" for head in range(8))
    expect(drawn.root.get_by_role("status")).to_have_text("8 heads selected")
    drawn.press("Escape", "Escape")  # the tooltip, then the selection
    assert drawn.selected() == ""
    drawn.root.get_by_role("button", name="Undo the last change of the selection").click()
    assert drawn.selected() == ",".join(f"L1H{head}" for head in range(8))
    expect(run_cell(page, 2)).to_contain_text(f"({[f'L1H{head}' for head in range(8)]}")
    drawn.button("Options")
    drawn.root.get_by_label("Lowest value to select").fill("45")
    drawn.root.get_by_role("button", name="Select the heads with these values").press("Enter")
    assert drawn.selected() == "L5H5,L5H6,L5H7"
    shot(page, "select-by-values")
    expect(run_cell(page, 3)).to_contain_text("(['L5H5', 'L5H6', 'L5H7']")


def test_heads_selected_while_the_kernel_is_busy_are_a_value_in_the_cell_queued_next(
    page: Page, jupyter: Jupyter
) -> None:
    drawn = opened(page, jupyter, "import time; time.sleep(6)", SELECTED)
    start_cell(page, 1)
    for head in range(4):
        drawn.click(3, head)
    assert drawn.selected() == "L3H3"
    expect(page.locator(".jp-CodeCell").nth(1)).to_contain_text("[*]")
    expect(run_cell(page, 2)).to_have_text("(['L3H3'], 4)")


def test_python_selects_links_and_shows_errors(page: Page, jupyter: Jupyter) -> None:
    drawn = opened(page, jupyter, LINKED, 'grid.selected = ["L3H5", "L0H1"]', BROKEN, SELECTED, "shared.unlink()")
    run_cell(page, 1)
    other = drawn_in(page, 1)
    expect(other.stage).to_be_visible()
    run_cell(page, 2)
    for view in (drawn, other):
        expect(view.root.locator(".selection .names")).to_have_text("L0H1,L3H5")
    other.click(5, 6)
    expect(drawn.root.locator(".selection .names")).to_have_text("L5H6")
    shot(page, "select-linked")
    drawn.press("Control+z")
    expect(other.root.locator(".selection .names")).to_have_text("L0H1,L3H5")
    run_cell(page, 3)
    drawn.click(4, 4)
    expect(drawn.root.get_by_role("alert")).to_have_text("on_select(broken): ValueError: no such thing")
    shot(page, "select-callback-error")
    expect(run_cell(page, 4)).to_contain_text("(['L4H4']")
    run_cell(page, 5)
    other.click(0, 0)
    expect(other.root.locator(".selection .names")).to_have_text("L0H0")
    assert drawn.selected() == "L4H4"


def test_a_hostile_page_changes_nothing_in_the_kernel(page: Page, jupyter: Jupyter) -> None:
    drawn = opened(page, jupyter, "grid.selected, grid.payload['layers'], grid._esm[:3] != 'bad'")
    drawn.click(1, 1)
    page.evaluate(
        """async () => {
          const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
          const ids = (await kernel.requestCommInfo({ target_name: 'jupyter.widget' })).content.comms;
          const states = [{ selected: ['L99H99'] }, { selected: 7 }, { selected: [null, {}] }, { payload: 3 }, 5,
                          { _esm: 'bad' }, { problem: '<img src=x>' }, { selected: ['x'.repeat(1e6)] }];
          for (const comm_id of Object.keys(ids)) {
            const comm = kernel._comms.get(comm_id); // the page's own channel to the widget
            for (const state of states) comm.send({ method: 'update', state, buffer_paths: [] });
            comm.send({ method: 'custom', content: { do: 'run' } });
            comm.send(null);
            comm.send({ method: 'update' });
          }
        }"""
    )
    expect(run_cell(page, 1)).to_contain_text("(['L1H1'], 6, True)")
