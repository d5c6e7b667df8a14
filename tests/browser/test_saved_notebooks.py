"""A saved grid is drawn again: without a kernel, without trust, in JupyterLab and in Notebook 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from grids import levels
from jupyter_pages import Jupyter, no_kernel, shown_notebook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_saved_grid_is_drawn_without_a_kernel(page: Page, jupyter: Jupyter, *, trusted: bool) -> None:
    jupyter.open_lab(page, jupyter.save(shown_notebook(levels()), trusted=trusted))
    no_kernel(page)
    expect(page.locator(".headnb-grid .title")).to_have_text("smollm2-135m · gsm8k")
    expect(page.locator(".headnb-grid canvas").first).to_be_visible()
