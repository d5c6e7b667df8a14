"""Names with HTML, SVG or terminal markup stay plain text in every output of headnb.

tests/browser draws the same names in Chromium.
"""

from __future__ import annotations

import functools
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from headnb.analysis.result import result_html
from headnb.display.grid import HeadGrid
from headnb.display.grid_text import as_text
from headnb.display.html import card, page, standalone, static_html
from headnb.display.live import _progress_html
from headnb.display.payload import payload
from headnb.display.payload_parser import read_payload
from headnb.explorer.ablation_card import AblationCard
from headnb.notebook.tables import NameTable
from headnb.scoring.ablation import Generation
from headnb.scoring.attention import HeadAttention

from hostile_names import NAMES


class Elements(HTMLParser):
    """Elements and attributes of a page, as a browser would parse it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def harmless(html):
    """Check that a page has no active elements, no event handlers and no URLs except embedded pictures."""
    parser = Elements()
    parser.feed(html)
    parser.close()
    for tag, attributes in parser.found:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "math"}, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in {"srcdoc", "formaction", "action"}, (tag, name)
            if name in {"href", "src", "xlink:href"}:
                assert value.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")), (tag, name, value)
            assert "expression(" not in (value or ""), (tag, name)
    return parser.found


def named(name):
    """Data of a grid with two panels, with this name in every field for a name."""
    one = xr.DataArray(
        np.linspace(0, 1, 8).reshape(2, 4),
        dims=("layer", "head"),
        attrs={"kind": "level", "units": name, "model": name, "task": name, "method": name, "loss_reduction": name},
        name=name,
    )
    return {name: one, f"{name} again": one * 2}


def elements(grid):
    """Elements of each output form."""
    pages = [{tag for tag, _ in harmless(form(grid))} for form in (card, static_html, page)]
    return [*pages, {element.tag for element in ET.fromstring(standalone(grid)).iter()}]


@functools.cache
def elements_of_a_plain_name():
    return elements(payload(named("x"), title="x"))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_text_in_every_form(name):
    grid = payload(named(name), title=name)
    assert elements(grid) == elements_of_a_plain_name()
    for text in (as_text(grid, heat_map=True), as_text(grid, heat_map=True, colour=True)):
        without_colours = re.sub(r"\x1b\[(0|[34]8;2;\d+;\d+;\d+)m", "", text)
        assert all(letter == "\n" or letter.isprintable() for letter in without_colours)
    assert read_payload(json.dumps(grid))["title"] == name


def cards_named(name):
    """HTML of all other displays than grids, with this name in every field for a name."""
    losses = {"loss_before": ("sample", [1.0]), "loss_after": ("sample", [2.0]), "control_change": ("draw", [0.1])}
    attrs = {"model": name, "task": name, "heads": "L0H1", "factor": 0, "samples": 1, "level": 0.95}
    ablated = xr.Dataset({**losses, "low": 0.1, "high": 1.2, "mean_change": 1.0}, attrs=attrs)
    written = Generation(name, prompt=name, before=name, after=name)
    values = np.eye(2)
    return {
        "ablation": AblationCard(ablated, written)._repr_html_(),
        "attention": HeadAttention(name, name, (name, "b"), np.array([False, True]), values, values, 1.0)._repr_html_(),
        "names": NameTable((name, name), ((name, name),), name)._repr_html_(),
        "finding": result_html(name, pd.DataFrame({name: [name]}, index=[name]), verdict=name),
        "progress": _progress_html(name, name),
    }


@functools.cache
def cards_of_a_plain_name():
    return {card: harmless(html) for card, html in cards_named("x").items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_text_in_every_card(name):
    for kind, html in cards_named(name).items():
        plain = cards_of_a_plain_name()[kind]
        assert [(tag, sorted(attrs)) for tag, attrs in harmless(html)] == [(tag, sorted(attrs)) for tag, attrs in plain]
        if kind in {"names", "progress"}:
            assert all(letter == "\n" or letter.isprintable() for letter in html)


def test_every_name_was_tried():
    print(f"names with markup: {len(NAMES)} tried in HTML, SVG, JSON and terminal, all stay text")
    assert len(NAMES) > 30
    assert HeadGrid.of(named(NAMES[0]))
