"""`%headsft` in a notebook: one grid with a slider on the loss curve gets new steps, and becomes the result."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nbformat
from headnb.display.payload import MIME_TYPE
from playwright.sync_api import expect

from jupyter_pages import command, finished, notebook, run_cell, start_cell

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from jupyter_pages import Jupyter

# Every training step is slow, so that the grid is updated several times.
MADE = """%load_ext headnb
import sys, time
from tiny import tiny_model, tiny_tokenizer
import headnb.tuning.finetuning
model, tokenizer = tiny_model(), tiny_tokenizer()
slow = model.model.layers[1].register_forward_pre_hook(lambda module, _: time.sleep(1.0 * module.training))
sums = [(f"What is {a} + {b}? ", f"{a + b}") for a in range(4) for b in range(4)]"""


def test_the_grid_follows_the_steps_and_ends_as_one_output(page: Page, jupyter: Jupyter) -> None:
    name = jupyter.save(notebook(MADE, "%headsft model sums --steps 8 --every 2 --learning-rate 0.01", "_"))
    jupyter.open_lab(page, name)
    expect(run_cell(page, 0)).to_have_count(0)
    written = start_cell(page, 1)
    drawn = page.locator(".jp-CodeCell").nth(1).locator(".headnb-grid")
    words = re.compile(r"[3-7] of 8 steps done\. (scoring sums at step \d: .*)?loss \d\.\d+ · about \d+ s left")
    expect(drawn.locator(".progress")).to_contain_text(words)
    expect(drawn.locator(".steps output")).to_have_text(re.compile(r"step [246]"))
    finished(page, 1)
    expect(drawn.locator(".progress")).to_be_hidden()
    expect(written).to_have_count(1)
    expect(drawn.locator(".steps output")).to_have_text("step 8")
    expect(drawn.locator(".aside")).to_contain_text("difference (step 8 − step 0)")
    expect(drawn.locator(".aside")).to_contain_text(re.compile(r"Reliability .*16 samples"))
    expect(drawn.locator(".aside")).to_contain_text("changed significantly (q < 0.05)")
    choose_steps_on_the_loss_curve(page, drawn)
    expect(run_cell(page, 2)).to_contain_text("after (step 8)")
    command(page, "docmanager:save")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    (output,) = nbformat.read(jupyter.files / name, as_version=4).cells[1].outputs
    assert [panel["title"] for panel in output.data[MIME_TYPE]["panels"]] == [f"step {step}" for step in range(0, 9, 2)]
    assert "progress" not in output.data[MIME_TYPE]


def choose_steps_on_the_loss_curve(page: Page, drawn: Locator) -> None:
    """Move the slider by keyboard and mouse."""
    slider, step = drawn.get_by_role("slider", name="Training step"), drawn.locator(".steps output")
    expect(drawn.locator("input[type=range]")).to_be_hidden()
    for key, reached in (("Home", 0), ("ArrowRight", 2), ("End", 8), ("ArrowLeft", 6)):
        slider.press(key)
        expect(step).to_have_text(f"step {reached}")
        expect(drawn.locator(".aside")).to_contain_text(f"after (step {reached})")
    expect(slider).to_have_attribute(
        "aria-valuetext", re.compile(r"^step 6, training loss \d.*, loss on \w+ \d.* nats$")
    )
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    expect(step).to_have_text("step 4")
    page.mouse.move(box["x"] + 5, middle, steps=5)
    expect(step).to_have_text("step 0")
    page.mouse.move(box["x"] + box["width"] - 5, middle, steps=5)
    page.mouse.up()
    expect(step).to_have_text("step 8")
    page.mouse.move(box["x"] + 5, middle)
    expect(step).to_have_text("step 8")


def test_an_interrupt_keeps_the_steps_that_were_tracked(page: Page, jupyter: Jupyter) -> None:
    jupyter.open_lab(page, jupyter.save(notebook(MADE, "%headsft model sums --steps 50 --every 2", "_.patterns.sizes")))
    run_cell(page, 0)
    written = start_cell(page, 1)
    drawn = page.locator(".jp-CodeCell").nth(1).locator(".headnb-grid")
    expect(drawn.locator(".steps output")).to_have_text(re.compile(r"step [2-9]"))
    command(page, "notebook:interrupt-kernel")
    finished(page, 1)
    expect(written).to_have_count(2)  # the grid, and the error line that stops "Run All"
    expect(written.last).to_contain_text("interrupted; ")
    expect(drawn.locator(".aside")).to_contain_text(re.compile(r"Interrupted: \d+ of 50 steps are done\."))
    expect(run_cell(page, 2)).to_contain_text("'step'")
