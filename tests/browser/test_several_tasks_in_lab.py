"""`%headscore` with several tasks in JupyterLab: the grids of all tasks fill side by side, and become the study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from jupyter_pages import Jupyter, notebook, run_cell, start_cell

if TYPE_CHECKING:
    from playwright.sync_api import Page

MADE = """%load_ext headnb
import time, torch
torch.set_num_threads(1)
from headnb import load_task
from tiny import tiny_model, tiny_tokenizer
model, tokenizer = tiny_model(layers=6, heads=8, kv_heads=4, hidden=64), tiny_tokenizer()
sums = load_task([(f"What is {a} + {b}? ", f"The answer is {a + b}.") for a in range(8) for b in range(8)], name="sums")
words = load_task([(f"Say {a}: ", f"word {a}") for a in range(64)], name="words")
slow = model.model.layers[3].register_forward_pre_hook(lambda *_: time.sleep(0.5))"""
SCORED = "study = %headscore model sums words --batch-tokens 128"
SHOTS = os.environ.get("HEADNB_SHOTS")


def test_grids_of_all_tasks_fill_side_by_side(page: Page, jupyter: Jupyter) -> None:
    shown = "list(study.task.values), study.sizes['layer']"
    jupyter.open_lab(page, jupyter.save(notebook(MADE, SCORED, shown)))
    run_cell(page, 0)
    output = start_cell(page, 1)
    expect(output.locator(".progress")).to_contain_text("task 2 of 2")
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / "several-filling.png")
    expect(output.locator(".progress")).to_be_hidden()
    expect(output.locator("table tbody th")).to_have_text(["sums", "words"])
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / "several-done.png")
    expect(run_cell(page, 2)).to_contain_text("'words'")
