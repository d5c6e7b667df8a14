"""Names with markup stay text in Chromium: in the HTML and SVG forms, and in the drawing core."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from headnb.display.frontend import bundle
from headnb.display.grid_text import MAX_PANELS
from headnb.display.html import card, standalone, static_html
from headnb.display.payload import payload
from playwright.sync_api import expect

from hostile_names import NAMES
from widget_host_page import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.display.payload_types import Payload
    from playwright.sync_api import Page


def _named(name: str) -> xr.DataArray:
    texts = dict.fromkeys(("units", "model", "task", "method", "loss_reduction"), name)
    levels = np.linspace(0, 1, 8).reshape(2, 4)
    return xr.DataArray(levels, dims=("layer", "head"), attrs={"kind": "level", **texts}, name=name)


def _grids() -> list[Payload]:
    """Grids with every name in every text field, with as few grids as possible."""
    grids: list[Payload] = []
    for start in range(0, len(NAMES), MAX_PANELS):
        names = NAMES[start : start + MAX_PANELS]
        grids += [payload({each: _named(name) for each in names}, title=name) for name in names]
    return grids


@pytest.fixture
def watched(page: Page) -> Page:
    """A page on which a dialog or a network request fails the test."""
    page.on("dialog", lambda dialog: pytest.fail(f"the page opened a dialog: {dialog.message}"))
    page.on("request", lambda request: _check_local(request.url))
    return page


def _check_local(url: str) -> None:
    assert url.startswith(("file:", "data:", "blob:", "about:")), url


def _check_no_script_ran(page: Page) -> None:
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None


def test_names_stay_text_in_html(watched: Page) -> None:
    watched.set_content("<!doctype html>" + "".join(card(grid) + static_html(grid) for grid in _grids()))
    _check_no_script_ran(watched)
    expect(watched.get_by_text(NAMES[0], exact=True).first).to_be_attached()


def test_names_stay_text_in_svg(watched: Page, tmp_path: Path) -> None:
    for number, grid in enumerate(_grids()[::MAX_PANELS]):
        path = tmp_path / f"{number}.svg"
        path.write_text(standalone(grid), encoding="utf-8")
        watched.goto(path.as_uri())
        assert watched.evaluate("document.documentElement.tagName") == "svg"
        _check_no_script_ran(watched)


def test_names_stay_text_in_the_drawing_core(watched: Page) -> None:
    script = bundle("widget.js").read_text(encoding="utf-8")
    for grid in _grids()[:: MAX_PANELS - 1]:
        watched.goto("about:blank")
        watched.evaluate(HOST, {"script": script, "traits": {"payload": grid, "selected": []}})
        stage = watched.locator("#widget .stage").first
        stage.focus()
        stage.press("ArrowDown")
        expect(watched.locator("#widget .tooltip").first).to_be_visible()
        _check_no_script_ran(watched)
