"""Python side of the interactive grid: offline page and live widget."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from typing import TYPE_CHECKING

import headnb
import pytest
from headnb.display import frontend
from headnb.display.grid import HeadGrid
from headnb.display.page import interactive_page
from headnb.display.payload import MIME_TYPE
from headnb.errors import HeadnbError
from headnb.explorer.grid_widget import HeadGridWidget

from paths import ROOT
from synthetic_results import random_pattern

if TYPE_CHECKING:
    from pathlib import Path

MARKUP = ROOT / "tests" / "fixtures" / "payloads" / "valid" / "markup-in-every-text.heads.json"


def test_page_allows_its_own_script_and_nothing_else() -> None:
    page = interactive_page(HeadGrid.open(MARKUP).payload)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sources = html.unescape(policy[1])
    assert f"script-src 'sha256-{digest}';" in sources
    assert "default-src 'none'" in sources


def test_page_holds_names_as_data_only() -> None:
    given = HeadGrid.open(MARKUP).payload
    page = interactive_page(given)
    assert "<script>alert" not in page
    assert "<img" not in page.partition('<script type="application/json"')[0]
    (data,) = re.findall(r'<script type="application/json" id="headnb-payload" data-shows="grid">(.*?)</script>', page)
    assert json.loads(data) == given


def test_widget_validates_its_selection() -> None:
    grid = HeadGridWidget(random_pattern(12, 4), selected=["L10H0", "L2H3", "L10H0"])
    assert grid.selected == ["L2H3", "L10H0"]
    with pytest.raises(HeadnbError, match="unknown head 'L9H4'"):
        grid.selected = ["L9H4"]
    assert grid.selected == ["L2H3", "L10H0"]


def test_heads_of_a_selection_of_layers_have_the_models_numbers() -> None:
    grid = HeadGridWidget(random_pattern(12, 4)[9:], selected=["L11H0", "L9H3"])
    assert grid.selected == ["L9H3", "L11H0"]
    with pytest.raises(HeadnbError, match="unknown head 'L1H1'"):
        grid.selected = ["L1H1"]


def test_widget_accepts_the_same_data_as_a_grid() -> None:
    grid = HeadGridWidget(random_pattern(2, 2))
    pattern = random_pattern(3, 4)
    grid.payload = pattern
    assert grid.payload == HeadGrid.of(pattern).payload
    with pytest.raises(HeadnbError):
        grid.payload = "nothing to draw"


def test_a_smaller_payload_drops_heads_that_it_does_not_have() -> None:
    grid = HeadGridWidget(random_pattern(12, 4), selected=["L2H3", "L1H1", "L10H0"])
    grid.payload = random_pattern(3, 2)
    assert grid.selected == ["L1H1"]


def test_a_browser_cannot_select_heads_that_do_not_exist() -> None:
    grid = HeadGridWidget(random_pattern(3, 4), selected=["L2H3"])
    grid.set_state({"selected": ["L9H4"]})
    assert grid.selected == ["L2H3"]
    assert grid.problem.startswith("unknown head 'L9H4'")
    grid.set_state({"selected": ["L1H1"]})
    assert (grid.selected, grid.problem) == (["L1H1"], "")


def test_a_front_end_that_is_not_built_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(frontend, "_STATIC", tmp_path)
    with pytest.raises(HeadnbError, match="not built"):
        interactive_page(HeadGrid.open(MARKUP).payload)


def test_both_sides_have_one_version_and_one_mime_type() -> None:
    package = json.loads((ROOT / "widgets" / "package.json").read_text())
    assert package["version"] == headnb.__version__
    assert f'"{MIME_TYPE}"' in (ROOT / "widgets" / "src" / "grid" / "payload.ts").read_text()
