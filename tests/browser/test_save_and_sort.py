"""Saving and copying of a grid's values, the colours of saved pictures, and sorting of the data table."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from headnb.display import grid_text
from headnb.display.page import interactive_page
from PIL import Image
from playwright.sync_api import expect

import grids
from head_grid import Drawn

if TYPE_CHECKING:
    from headnb.display.grid import HeadGrid
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("HEADNB_SHOTS")


def opened(page: Page, tmp_path: Path, grid: HeadGrid) -> Drawn:
    path = tmp_path / "page.html"
    path.write_text(interactive_page(grid.payload), encoding="utf-8")
    page.goto(path.as_uri())
    page.locator("#headnb-grid .stage canvas").first.wait_for()
    return Drawn(page, page.locator("#headnb-grid"), grid)


def shoot(page: Page, name: str) -> None:
    """Save a screenshot if HEADNB_SHOTS is set."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def check_values(table: pd.DataFrame, grid: HeadGrid) -> None:
    (panel,) = grid.payload["panels"]
    shape = grid.payload["layers"], grid.payload["heads"]
    for column, name in (("value", "values"), ("low", "low"), ("high", "high"), ("significant", "significant")):
        expected = np.array(panel[name], dtype=float)
        assert np.array_equal(table[column].to_numpy(float).reshape(shape), expected, equal_nan=True)


def test_csv_and_the_copied_table_have_the_values_of_the_grid(page: Page, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    drawn = opened(page, tmp_path, grids.change())
    drawn.button("Save")
    shoot(page, "save-drawer")
    with page.expect_download() as found:
        drawn.button("CSV")
    assert found.value.suggested_filename.endswith(".csv")
    check_values(pd.read_csv(found.value.path()), drawn.grid)
    drawn.button("Copy as table")
    expect(drawn.root.get_by_role("status")).to_have_text("copied")
    check_values(pd.read_csv(io.StringIO(page.evaluate("navigator.clipboard.readText()")), sep="\t"), drawn.grid)


@pytest.mark.parametrize(("theme", "ground"), [("light", (255, 255, 255)), ("dark", (17, 17, 17))])
def test_a_picture_is_saved_in_the_chosen_colours(page: Page, tmp_path: Path, theme: str, ground: object) -> None:
    page.emulate_media(color_scheme="dark" if theme == "light" else "light")
    drawn = opened(page, tmp_path, grids.change())
    drawn.button("Save")
    drawn.root.get_by_label("Colours of saved pictures").select_option(theme)
    with page.expect_download() as found:
        drawn.button("PNG")
    with Image.open(found.value.path()) as image:
        assert image.convert("RGB").getpixel((1, 1)) == ground
    if SHOTS:
        found.value.save_as(Path(SHOTS) / f"saved-in-the-browser-{theme}.png")


def test_the_data_table_sorts_by_click_and_by_keyboard(page: Page, tmp_path: Path) -> None:
    drawn = opened(page, tmp_path, grids.change())
    drawn.button("Table")
    values = np.array(drawn.grid.payload["panels"][0]["values"], dtype=float)
    headers, names = drawn.root.locator(".data thead th"), drawn.root.locator(".data tbody th")
    page.get_by_role("button", name="H3", exact=True).click()
    expect(headers.nth(4)).to_have_attribute("aria-sort", "descending")
    assert names.first.inner_text() == f"L{values[:, 3].argmax()}"
    shoot(page, "sorted-table")
    page.keyboard.press("Enter")
    expect(headers.nth(4)).to_have_attribute("aria-sort", "ascending")
    assert names.first.inner_text() == f"L{values[:, 3].argmin()}"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(headers.nth(3)).to_have_attribute("aria-sort", "descending")
    assert headers.nth(4).get_attribute("aria-sort") is None
    assert names.first.inner_text() == f"L{values[:, 2].argmax()}"
    assert drawn.root.locator('.data thead button[tabindex="0"]').count() == 1
    page.get_by_role("button", name="layer", exact=True).click()
    assert names.all_inner_texts() == [f"L{layer}" for layer in range(len(values))]


def test_a_sorted_table_stays_sorted_after_a_change_of_the_view(page: Page, tmp_path: Path) -> None:
    drawn = opened(page, tmp_path, grids.hybrid())
    drawn.button("Table")
    page.get_by_role("button", name="H1", exact=True).click()
    order = drawn.root.locator(".data tbody th").all_inner_texts()
    values = np.array(drawn.grid.payload["panels"][0]["values"], dtype=float)[:, 1]
    missing = int(np.isnan(values).sum())
    assert order[0] == f"L{np.nanargmax(values)}"
    assert {f"L{layer}" for layer in np.flatnonzero(np.isnan(values))} == set(order[len(order) - missing :])
    drawn.button("Options")
    drawn.root.get_by_label("rank").check()
    assert drawn.root.locator(".data tbody th").all_inner_texts() == order
    expect(drawn.root.locator(".data thead th").nth(2)).to_have_attribute("aria-sort", "descending")


def with_induction(grid: HeadGrid) -> HeadGrid:
    """The grid, with a role of every third head."""
    shape = grid.payload["layers"], grid.payload["heads"]
    score = (np.arange(shape[0] * shape[1]) % 3 == 0).reshape(1, *shape) * 0.8
    coords = {"role": ["induction"], "threshold": ("role", [0.4]), "layer": range(shape[0]), "head": range(shape[1])}
    return grid.with_roles(xr.Dataset({"score": (("role", "layer", "head"), score)}, coords=coords))


def test_heads_with_roles_are_sorted_by_their_values(page: Page, tmp_path: Path) -> None:
    drawn = opened(page, tmp_path, with_induction(grids.grid()))
    drawn.button("Table")
    page.get_by_role("button", name="H3", exact=True).click()
    values = np.array(drawn.grid.payload["panels"][0]["values"], dtype=float)[:, 3]
    expected = [f"L{layer}" for layer in np.argsort(-values)]
    assert drawn.root.locator(".data tbody th").all_inner_texts() == expected


def test_a_list_of_heads_is_sorted_by_numbers_only(page: Page, tmp_path: Path) -> None:
    drawn = opened(page, tmp_path, with_induction(grids.grid(layers=96, heads=96)))
    drawn.button("Table")
    headers = drawn.root.locator(".data thead th")
    assert headers.all_inner_texts() == ["head", "nats", "rank", "roles"]
    assert drawn.root.locator(".data thead button").all_inner_texts() == ["head", "nats", "rank"]
    headers.nth(2).locator("button").click()
    headers.nth(2).locator("button").press("ArrowRight")
    assert drawn.root.locator('.data thead button[tabindex="0"]').all_inner_texts() == ["rank"]
    names = drawn.root.locator(".data tbody th")
    *_, (layer, head) = grid_text.ranking(drawn.grid.payload["panels"][0])[:500]
    assert names.first.inner_text() == f"L{layer}H{head}"
