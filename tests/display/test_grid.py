"""HeadGrid: forms for all front ends, saving and opening."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import headnb
import pytest
from headnb.display.grid import HeadGrid
from headnb.display.payload import MIME_TYPE
from headnb.errors import HeadnbError

from synthetic_results import comparison, random_pattern, scores

if TYPE_CHECKING:
    from pathlib import Path


def test_bundle_has_every_form() -> None:
    grid = HeadGrid.of(random_pattern(3, 4))
    bundle = grid._repr_mimebundle_()
    assert list(bundle) == [MIME_TYPE, "text/html", "image/png", "text/plain"]
    assert bundle[MIME_TYPE] == grid.payload
    assert bundle["text/html"].startswith("<div")
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "<svg" not in bundle["text/html"]
    assert bundle["text/plain"] == repr(grid)


def test_bundle_has_only_the_requested_forms() -> None:
    grid = HeadGrid.of(random_pattern(3, 4))
    assert list(grid._repr_mimebundle_(include={"text/plain"})) == ["text/plain"]
    assert "text/html" not in grid._repr_mimebundle_(exclude={"text/html"})


def test_saved_data_is_opened_as_the_same_grid(tmp_path: Path) -> None:
    grid = HeadGrid.of(comparison([[0.1, -0.2]], [[True, False]]))
    saved = grid.save(tmp_path / "change.heads.json")
    assert HeadGrid.open(saved) == headnb.grid(saved) == headnb.grid(str(saved)) == grid


def test_saved_pictures_are_complete_files(tmp_path: Path) -> None:
    grid = HeadGrid.of(random_pattern(3, 4))
    page = grid.save(tmp_path / "grid.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert grid.save(tmp_path / "grid.svg").read_text(encoding="utf-8").endswith("</svg>\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.html", "grid.svg"]


def test_an_unknown_format_and_an_unwritable_path_are_errors(tmp_path: Path) -> None:
    grid = HeadGrid.of(random_pattern(1, 2))
    with pytest.raises(HeadnbError, match=r"ends in \.heads\.json, \.csv, \.html, \.svg, \.png, \.pdf"):
        grid.save(tmp_path / "grid.gif")
    with pytest.raises(HeadnbError, match="cannot write"):
        grid.save(tmp_path / "nowhere" / "grid.svg")


def test_the_accessors_grid_has_the_same_values() -> None:
    data = scores(8)
    assert data.heads.grid().payload == HeadGrid.of(data).payload
    levels = data.heads.pattern()
    values = levels.heads.grid(title="mine").payload["panels"][0]["values"]
    assert values == [[pytest.approx(v, rel=1e-3) for v in row] for row in levels.values.tolist()]


def test_of_accepts_a_payload_and_a_grid() -> None:
    grid = HeadGrid.of(random_pattern(2, 2))
    assert HeadGrid.of(grid) is grid
    assert HeadGrid.of(json.loads(json.dumps(grid.payload))) == grid


def test_a_title_replaces_that_of_a_grid(tmp_path: Path) -> None:
    grid = HeadGrid.of(random_pattern(2, 2), title="old")
    path = grid.save(tmp_path / "saved.heads.json")
    for data in (grid, grid.payload, path):
        assert headnb.grid(data, title="new").payload == {**grid.payload, "title": "new"}
        assert headnb.grid(data).payload == grid.payload


def test_display_needs_neither_torch_nor_ipython_nor_a_schema_library() -> None:
    heavy = {"torch", "IPython", "jsonschema", "tqdm", "PIL", "matplotlib"}
    code = f"import sys, headnb.display.grid; print(*{heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.strip()
