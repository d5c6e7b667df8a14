"""The explorer in a notebook: it scores, stops, shows a head's samples and attention, and ablates heads."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from headnb.explorer.session import EMPTY_MESSAGE
from playwright.sync_api import expect

from jupyter_pages import Jupyter, command, notebook, run_cell

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

MADE = """import sys, threading, time
import torch
torch.set_num_threads(1)
import headnb
from tiny import tiny_model, tiny_tokenizer
model, tokenizer = tiny_model(layers=6, heads=8, kv_heads=4, hidden=64), tiny_tokenizer()
sums = [(f"What is {a} + {b}? ", f"The answer is {a + b}.") for a in range(8) for b in range(8)]
words = [("How many apples? ", "There are 3."), ("One, two,", " <b>three</b>"), ("2 + 3 = ", "5")]
explorer = headnb.explore(model, tokenizer, {"sums": sums, "words": words}, batch_tokens=128, samples=64)
seen = []
explorer.observe(lambda change: seen.append(change["new"]), "selected")
explorer"""
# Every forward pass is slow, so that a run can be stopped.
SLOW = """slow = model.model.layers[3].register_forward_pre_hook(lambda *_: time.sleep(1))"""
SHOTS = os.environ.get("HEADNB_SHOTS")


def open_notebook(page: Page, jupyter: Jupyter, *cells: str, host: str = "lab") -> Locator:
    name = jupyter.save(notebook(MADE, *cells))
    (jupyter.open_lab if host == "lab" else jupyter.open_notebook)(page, name)
    run_cell(page, 0)
    return page.locator(".jp-CodeCell").first.locator(".jp-OutputArea-output").last


def press(explorer: Locator, name: str) -> None:
    explorer.get_by_role("button", name=name, exact=True).click()


def idle(explorer: Locator) -> None:
    expect(explorer.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def shot(page: Page, name: str) -> None:
    """Save a screenshot if HEADNB_SHOTS is set."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def test_explorer_scores_shows_a_head_and_ablates_it(page: Page, jupyter: Jupyter) -> None:
    page.set_viewport_size({"width": 1280, "height": 1300})
    explorer = open_notebook(page, jupyter, "explorer.selected, seen", 'explorer.selected = ["L2H5", "L4H1"]')
    expect(explorer.locator(".progress")).to_have_text(EMPTY_MESSAGE)
    expect(explorer.locator(".stage")).to_be_visible()
    shot(page, "explorer-empty")
    press(explorer, "Run")
    expect(explorer.locator(".stage")).to_be_visible()
    idle(explorer)
    expect(explorer.locator(".aside").first).to_contain_text("64 samples")

    explorer.locator(".top button").first.click()
    top = explorer.locator(".selection .names").inner_text()
    expect(explorer.locator(".chips button")).to_have_text([top])
    expect(explorer.locator(".tabpanel p").first).to_contain_text(f"{top} on sums: signed score over 64 samples")
    found = run_cell(page, 1)
    expect(found).to_contain_text(f"(['{top}'], [['{top}']])")
    shot(page, "explorer-head")

    run_cell(page, 2)
    expect(explorer.locator(".chips button")).to_have_text(["L2H5", "L4H1"])
    expect(explorer.locator(".selection .names")).to_have_text("L2H5,L4H1")

    explorer.locator(".samples button").first.click()
    expect(explorer.locator(".tokens span").first).to_be_visible()
    expect(explorer.locator(".tokens")).to_contain_text("What is")
    idle(explorer)
    shot(page, "explorer-attention-weights")
    explorer.get_by_label("What to show").select_option(index=1)
    explorer.locator(".tokens .answered").nth(2).click()
    expect(explorer.locator(".tokens .query")).to_have_count(1)
    explorer.locator("canvas.matrix").hover(position={"x": 60, "y": 250})
    expect(explorer.locator(".readout")).to_contain_text("query")
    shot(page, "explorer-attention-products")

    explorer.get_by_role("tab", name="Intervene").click()
    explorer.get_by_label("words", exact=True).check()
    explorer.get_by_label("compare with 3 random sets").check()
    press(explorer, "Measure")
    idle(explorer)
    rows = explorer.locator(".tabpanel tbody tr:visible")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("sums")
    expect(explorer.locator(".texts dd")).to_have_count(3)
    shot(page, "explorer-intervene")


@pytest.mark.parametrize("host", ["lab", "notebook"])
def test_stop_works_during_scoring_and_the_kernel_stays_responsive(page: Page, jupyter: Jupyter, host: str) -> None:
    explorer = open_notebook(page, jupyter, SLOW, "6 * 7", "explorer.scores.sizes['sample']", host=host)
    run_cell(page, 1)
    press(explorer, "Run")
    expect(explorer.locator(".state")).to_contain_text(re.compile(r"\b[1-9]\d* of 64 samples"))
    expect(run_cell(page, 2)).to_contain_text("42")
    expect(explorer.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    shot(page, "explorer-running")
    press(explorer, "Stop")
    idle(explorer)
    expect(explorer.locator(".state")).to_contain_text("stopped: ")
    scored = int(run_cell(page, 3).inner_text())
    assert 0 < scored < 64
    expect(explorer.locator(".state")).to_contain_text(f"stopped: {scored} of 64 samples are scored")


def test_error_in_the_kernel_shows_in_the_widget_and_the_next_run_works(page: Page, jupyter: Jupyter) -> None:
    broken = "broken = model.model.layers[0].register_forward_pre_hook(lambda *_: 1 / 0)"
    explorer = open_notebook(page, jupyter, broken, "broken.remove()")
    run_cell(page, 1)
    press(explorer, "Run")
    expect(explorer.get_by_role("alert").first).to_have_text("ZeroDivisionError: division by zero")
    idle(explorer)
    run_cell(page, 2)
    press(explorer, "Run")
    expect(explorer.locator(".stage")).to_be_visible()
    expect(explorer.get_by_role("alert").first).to_be_hidden()


def test_closing_stops_the_work(page: Page, jupyter: Jupyter) -> None:
    explorer = open_notebook(page, jupyter, SLOW, "explorer.close(); explorer.wait(300), explorer.scores")
    run_cell(page, 1)
    press(explorer, "Run")
    expect(explorer.get_by_role("button", name="Stop", exact=True)).to_be_enabled()
    expect(run_cell(page, 2)).to_contain_text("(True, None)")


def test_clearing_the_last_output_stops_the_work(page: Page, jupyter: Jupyter) -> None:
    explorer = open_notebook(page, jupyter, SLOW, "explorer.wait(300), explorer.status['note'][:7]")
    run_cell(page, 1)
    press(explorer, "Run")
    expect(explorer.locator(".state")).to_contain_text("of 64 samples")
    page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0")
    command(page, "notebook:clear-cell-output")
    expect(page.locator(".jp-CodeCell").first.locator(".jp-OutputArea-output")).to_have_count(0)
    expect(run_cell(page, 2)).to_contain_text("(True, 'stopped')")
