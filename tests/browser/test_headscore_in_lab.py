"""`%headscore` in a notebook: one grid that is updated in place, one-line errors, and partial results on interrupt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nbformat
from headnb.display.payload import MIME_TYPE
from playwright.sync_api import expect

from jupyter_pages import Jupyter, command, finished, notebook, run_cell, start_cell

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

# Every forward pass is slow, so that the grid is updated several times.
MADE = """%load_ext headnb
import sys, time
import torch
torch.set_num_threads(1)
from tiny import tiny_model, tiny_tokenizer
model, tokenizer = tiny_model(layers=6, heads=8, kv_heads=4, hidden=64), tiny_tokenizer()
slow = model.model.layers[3].register_forward_pre_hook(lambda *_: time.sleep(0.8))
sums = [(f"What is {a} + {b}? ", f"The answer is {a + b}.") for a in range(8) for b in range(8)]"""
SCORE = "%headscore model sums --batch-tokens 128"


def open_notebook(page: Page, jupyter: Jupyter, *cells: str) -> str:
    name = jupyter.save(notebook(MADE, *cells))
    jupyter.open_lab(page, name)
    expect(run_cell(page, 0)).to_have_count(0)
    return name


def filling(page: Page, cell: int) -> Locator:
    """A cell's grid with its first samples, while scoring continues."""
    drawn = page.locator(".jp-CodeCell").nth(cell).locator(".headnb-grid")
    expect(drawn.locator(".progress")).to_contain_text(re.compile(r"\d+ of 64 samples done"))
    return drawn


def test_headscore_updates_one_grid_in_place_and_ends_as_one_output(page: Page, jupyter: Jupyter) -> None:
    name = open_notebook(page, jupyter, SCORE, "_.sizes['sample'], _.heads.pattern().heads.top(1).index[0]")
    written = start_cell(page, 1)
    drawn = filling(page, 1)
    before = drawn.locator(".progress").inner_text()
    drawn.locator(".stage").evaluate("stage => { stage.dataset.same = 'yes'; }")
    drawn.locator(".top button").first.click()
    chosen = drawn.locator(".selection .names").inner_text()
    expect(drawn.locator(".progress")).not_to_have_text(before)
    expect(drawn.locator(".progress")).to_contain_text("samples done")
    finished(page, 1)
    expect(drawn.locator(".progress")).to_be_hidden()
    expect(written).to_have_count(1)
    expect(drawn.locator(".aside")).to_contain_text("64 samples")
    assert drawn.locator(".stage").get_attribute("data-same") == "yes"
    assert drawn.locator(".selection .names").inner_text() == chosen
    top = drawn.locator(".top button > :first-child").first.inner_text()
    expect(run_cell(page, 2)).to_have_text(f"(64, '{top}')")

    command(page, "docmanager:save")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    (output,) = nbformat.read(jupyter.files / name, as_version=4).cells[1].outputs
    assert set(output.data) == {MIME_TYPE, "text/html", "image/png", "text/plain"}
    assert output.data[MIME_TYPE]["panels"][0]["samples"] == 64


def test_a_typo_is_a_one_line_error_with_the_nearest_name(page: Page, jupyter: Jupyter) -> None:
    lines = {
        "%headscore model gsm_symbolc": "'gsm_symbolic'",
        "%headscore model sums --method activatoin": "'activation'",
        "%headscore model sums --batch_token 9": "--batch",
    }
    open_notebook(page, jupyter, *lines)
    for cell, nearest in enumerate(lines.values(), 1):
        written = run_cell(page, cell)
        expect(written.last).to_contain_text(nearest)
        assert len("\n".join(written.all_inner_texts()).strip().splitlines()) == 1


def test_an_interrupt_keeps_the_partial_scores_and_notes_it(page: Page, jupyter: Jupyter) -> None:
    open_notebook(page, jupyter, SCORE, "_.sizes['sample']", "slow.remove()", SCORE)
    written = start_cell(page, 1)
    drawn = filling(page, 1)
    command(page, "notebook:interrupt-kernel")
    finished(page, 1)
    expect(written).to_have_count(2)
    expect(written.last).to_contain_text("interrupted; the scores so far are in _")
    expect(drawn.locator(".progress")).to_be_hidden()
    scored = int(run_cell(page, 2).inner_text())
    assert 0 < scored < 64
    expect(drawn.locator(".aside")).to_contain_text(f"Stopped early: {scored} of 64 samples are scored.")
    run_cell(page, 3)
    expect(run_cell(page, 4).locator(".aside")).to_contain_text("64 samples")
