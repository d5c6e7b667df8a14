"""HTML and SVG of head grids: they match the payload, contain no markup from data, and have a limited size."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import xarray as xr
from bokeh.palettes import Viridis256
from headnb.display.colours import FALL, RISE, paint, ticks
from headnb.display.geometry import grid_geometry
from headnb.display.grid_text import shown_panels
from headnb.display.html import card, page, standalone
from headnb.display.payload import payload
from headnb.display.payload_parser import read_payload

from paths import FIXTURES
from synthetic_results import comparison, pattern, random_pattern

HOSTILE = FIXTURES / "payloads" / "valid" / "markup-in-every-text.heads.json"
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Parser that collects all tags with their attributes, all text, and the text of titles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.words = ""
        self._title = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._title = tag == "title"

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._title:
            self.titles.append(data)
            self._title = False


def cells(text: str) -> dict[str, str]:
    """Head name -> stroke colour of every cell with a title."""
    matches = re.findall(r'stroke="(#\w+)"[^>]*><title>(L\d+H\d+) ', text)
    return {name: colour for colour, name in matches}


def rgb(code: str) -> np.ndarray:
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)])


def test_level_colours_are_viridis() -> None:
    for share in np.linspace(0, 1, 64):
        expected = rgb(Viridis256[min(int(share * 256), 255)].lower())
        assert abs(rgb(paint(share, (0, 1)).colour) - expected).max() <= 1  # bokeh rounds down


def test_difference_colours_are_symmetric_and_vanish_at_zero() -> None:
    assert paint(0, (-2, 2)).opacity == 0
    assert paint(1, (-2, 2)) == (RISE, 0.5)
    assert paint(-1, (-2, 2)) == (FALL, 0.5)
    assert paint(9, (-2, 2)) == (RISE, 1)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 0.104, [0, 0.05, 0.1]),
        (-0.01, 0.01, [-0.01, -0.005, 0, 0.005, 0.01]),
        (0, 7e-6, [0, 2e-6, 4e-6, 6e-6]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 4) == pytest.approx(expected, abs=1e-12)


def test_every_head_has_its_colour_and_its_hover_text() -> None:
    data = comparison([[0.01, -0.002], [0.0, np.nan]], [[True, False], [False, False]], kv_heads=1)
    text = page(payload(data))
    assert set(cells(text)) == {"L0H0", "L0H1", "L1H0"}
    assert cells(text)["L0H0"] == RISE
    assert cells(text)["L0H1"] == FALL
    titles = Page(text).titles
    assert "L0H0 0.01000 nats\n95 % interval 0.00900 to 0.0110\nrank 1 of 3\nkey/value head 0\nsignificant" in titles
    assert "L0H1 −0.002000 nats\n95 % interval −0.00300 to −0.00100\nrank 2 of 3\nkey/value head 0" in titles


def test_layer_zero_is_the_top_row_and_head_zero_the_left_column() -> None:
    place = grid_geometry(payload(random_pattern(30, 9, kv_heads=3)), 1)
    assert place.y(0) == 0 < place.y(1) < place.y(29)
    assert place.x(0) == 0 < place.x(1) < place.x(8)


def test_a_gap_separates_heads_of_different_key_value_heads_only() -> None:
    place = grid_geometry(payload(random_pattern(4, 6, kv_heads=2)), 1)
    steps = np.diff([place.x(head) for head in range(6)])
    assert len(set(steps[[0, 1, 3, 4]])) == 1
    assert steps[2] > steps[0]
    ungrouped = grid_geometry(payload(random_pattern(4, 6)), 1)
    assert len(set(np.diff([ungrouped.x(head) for head in range(6)]))) == 1


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 2), (30, 9), (32, 32), (126, 128)])
@pytest.mark.parametrize("panels", [1, 3])
def test_axis_labels_have_room_and_the_picture_fits_a_page(layers: int, heads: int, panels: int) -> None:
    place = grid_geometry(payload(random_pattern(layers, heads)), panels)
    assert place.layer_ticks().step * place.cell_height >= 12
    assert place.head_ticks().step * place.cell_width >= 8 * len(str(heads - 1))
    assert place.width <= 960
    assert min(place.cell_width, place.cell_height) >= 2


def test_layers_without_heads_are_hatched_and_explained() -> None:
    text = page(payload(pattern([[0.1, 0.2], [np.nan, np.nan], [0.3, 0.1]])))
    assert "layer 1: no softmax heads" in Page(text).titles
    assert "Layer 1 is hatched: it has no softmax attention heads." in text
    assert set(cells(text)) == {"L0H0", "L0H1", "L2H0", "L2H1"}


def test_heads_off_scale_are_counted_at_the_colour_bar() -> None:
    values = np.linspace(0.5, 1, 270)
    values[17] = 25.0
    made = payload(pattern(values.reshape(30, 9)))
    off_scale = int((values > made["scale"]["high"]).sum())
    assert f"{off_scale} head{'s' if off_scale > 1 else ''} off scale, up to 25.0" in card(made)


def test_several_panels_share_the_scale_and_have_a_table() -> None:
    made = payload({"low": pattern([[0.1, 0.1]]), "high": pattern([[0.4, 0.1]])})
    text = page(made)
    found = re.findall(r'stroke="(#\w+)"[^>]*><title>L0H0 ', text)
    assert found == [paint(0.1, (0, 0.4)).colour, paint(0.4, (0, 0.4)).colour]
    assert text.count("<tr>") == card(made).count("<tr>") == 3


def test_of_many_panels_a_subset_with_the_first_and_the_last_is_drawn() -> None:
    study = xr.concat([random_pattern(2, 2, s) for s in range(40)], xr.IndexVariable("step", range(40)))
    made = payload(study)
    panels, note = shown_panels(made)
    assert [panels[0]["title"], panels[-1]["title"], len(panels)] == ["step 0", "step 39", 12]
    assert note == "12 of 40 panels are shown."
    assert note in card(made)


@pytest.mark.parametrize("draw", [card, page, standalone])
def test_text_from_models_and_data_stays_text(draw: object) -> None:
    drawn = Page(draw(read_payload(HOSTILE)))
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "body",
        "div",
        "b",
        "span",
        "svg",
        "g",
        "path",
        "text",
        "rect",
        "img",
        "br",
    }
    assert {tag for tag, _ in drawn.tags} <= allowed
    for tag, attributes in drawn.tags:
        assert not [name for name in attributes if name.startswith("on") or name in {"href", "id", "class"}]
        assert ("src" in attributes) == (tag == "img")
    assert "<script>alert(1)</script>" in drawn.words


def test_a_page_that_removes_inline_svg_shows_the_same_picture_as_an_image() -> None:
    made = payload(random_pattern(4, 3))
    (image,) = [attributes for tag, attributes in Page(page(made)).tags if tag == "img"]
    assert "hidden" in image
    kind, _, content = image["src"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    root = ET.fromstring(base64.b64decode(content))
    colours = {path.get("stroke") for path in root.iter(f"{SVG}path")} - {None}
    assert colours >= set(cells(page(made)).values())


def test_control_characters_of_names_are_written_out() -> None:
    named = payload(pattern([[0.1, 0.2]]), title="a\x1b[31m\x00b\u202e")
    for draw in (card, standalone):
        assert "a\\x1b[31m\\x00b\\u202e" in draw(named)
    ET.fromstring(standalone(named))


def test_standalone_svg_of_names_with_control_characters_is_well_formed() -> None:
    root = ET.fromstring(standalone(read_payload(HOSTILE)))
    assert "<script>alert(1)</script>" in "".join(root.itertext())
    assert not list(root.iter(f"{SVG}script"))


@pytest.mark.parametrize("shape", [(2, 2), (30, 9), (126, 128)])
def test_standalone_svg_is_well_formed_and_draws_each_head_once(shape: tuple[int, int]) -> None:
    root = ET.fromstring(standalone(payload(random_pattern(*shape))))
    place = grid_geometry(payload(random_pattern(*shape)), 1)
    strokes = "".join(path.get("d", "") for path in root.iter(f"{SVG}path"))
    starts = re.findall(rf"M(\d+) (\d+)h{place.cell_width - place.gap}(?!\d|\.)", strokes)
    assert len(set(starts)) == shape[0] * shape[1]


def test_html_is_well_formed_enough_to_be_xml() -> None:
    text = card(payload(random_pattern(3, 4, kv_heads=2)))
    tags = [element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()]
    assert tags == [tag for tag, _ in Page(text).tags]


@pytest.mark.parametrize("kind", ["level", "difference"])
def test_a_large_grid_has_a_limited_size(kind: str) -> None:
    data = random_pattern(126, 128)
    made = payload(data if kind == "level" else comparison(data - data.mean(), data > data.quantile(0.95)))
    text = page(made)
    assert len(cells(text)) == 126 * 128
    assert len(text) < 2_000_000
    assert len(standalone(made)) < 400_000


def test_above_twenty_thousand_cells_there_are_no_hover_texts() -> None:
    made = payload({"a": random_pattern(126, 128), "b": random_pattern(126, 128, seed=1)})
    text = page(made)
    assert not cells(text)
    assert "No hover texts: the picture has more than 20000 cells." in text
    assert len(text) < 1_000_000


def test_significant_heads_have_a_dot_in_the_middle_of_their_cell() -> None:
    made = payload(comparison([[0.01, -0.02], [0.0, 0.03]], [[True, False], [False, True]]))
    place = grid_geometry(made, 1)
    width, height = place.cell_width - place.gap, place.cell_height - place.gap
    dots = re.findall(r'd="([^"]+)" stroke="#000" stroke-width="[\d.]+" stroke-linecap="round"', page(made))
    expected = [(place.x(head) + width / 2, place.y(layer) + height / 2) for layer, head in ((0, 0), (1, 1))]
    assert dots == ["".join(f"M{x:g} {y:g}h0" for x, y in expected)]
    assert "● significant (q &lt; 0.05)" in page(made)
