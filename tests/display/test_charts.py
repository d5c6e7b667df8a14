"""Chart renderers: positions of marks in the SVG and in the Bokeh figure match hand calculations."""

from __future__ import annotations

import base64
import itertools
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from headnb.display.charts import svg
from headnb.display.charts.bokeh import as_json, figure
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.marks import INK, Axis, Cells, Line, Plot, Points, Rule, Segments, space_out
from headnb.display.colours import FALL, RISE, SERIES
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text></title><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m$$\\alpha$$\"'&"
NOTHING = np.full(3, np.nan)


class Tags(HTMLParser):
    """Parser that collects all tags with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, set[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name for name, _ in attrs}))


def line(y: object, low: object = NOTHING, high: object = NOTHING, name: str = "gsm8k") -> Line:
    x, y, low, high = (np.array(part, dtype=float) for part in ([0, 5, 10], y, low, high))
    return Line(name, x, y, low, high, tuple(f"{name} step {step:g}" for step in x), RISE)


def plot(*marks: object, **changes: object) -> Plot:
    """A frame of 100 x 50 pixels for 0..10 and 0..1."""
    settings = {"x": Axis(0, 10, "step"), "y": Axis(0, 1, "level"), "width": 100, "height": 50} | changes
    return Plot(marks=marks, **settings)


def drawn(*marks: object, **changes: object) -> ET.Element:
    return ET.fromstring(Chart("a chart", (plot(*marks, **changes),)).svg())


def paths(root: ET.Element, **attributes: str) -> list[str]:
    wanted = attributes.items()
    return [path.get("d", "") for path in root.iter(f"{SVG}path") if all(path.get(k) == v for k, v in wanted)]


def sources(figure_: object) -> list[dict[str, list]]:
    """The data columns of each glyph."""
    return [{k: list(v) for k, v in one.data_source.data.items()} for one in figure_.renderers]


def test_a_line_passes_through_its_values() -> None:
    root = drawn(line([0, 0.5, 1]))
    assert "M0.0 50.0L50.0 25.0L100.0 0.0" in paths(root, stroke=RISE)
    (markers,) = [d for d in paths(root, fill=RISE) if d.count("M") == 3]
    assert re.findall(r"M(\S+) (\S+?)m", markers) == [("0.0", "50.0"), ("50.0", "25.0"), ("100.0", "0.0")]
    below, above, through = sources(figure(plot(line([0, 0.5, 1], [0, 0.4, 0.9], [0.1, 0.6, 1]))))
    assert (below["y1"], below["y2"]) == ([0, 0.4, 0.9], [0.1, 0.6, 1])
    assert above["x"] == through["x"] == [0, 5, 10]
    assert above["y"] == through["y"] == [0, 0.5, 1]


def test_an_interval_is_a_band_between_its_ends() -> None:
    root = drawn(line([0.5, 0.5, 0.5], [0.4, 0.2, 0.0], [0.6, 0.8, 1.0]))
    assert "M0.0 20.0L50.0 10.0L100.0 0.0L100.0 50.0L50.0 40.0L0.0 30.0Z" in paths(root, fill=RISE)


def test_a_missing_value_breaks_the_line_and_has_no_marker() -> None:
    root = drawn(line([0.2, np.nan, 0.4]))
    assert "M0.0 40.0M100.0 30.0" in paths(root, stroke=RISE)
    assert sum(d.count("a2.5") for d in paths(root, fill=RISE)) == 2 * 2  # two arcs per circle


def test_each_mark_has_a_hover_text() -> None:
    chart = Chart("a chart", (plot(line([0, 0.5, 1])),))
    titles = re.findall(r"<title>(.*?)</title>", svg.inline(chart))
    assert titles == ["gsm8k step 0", "gsm8k step 5", "gsm8k step 10"]
    assert next(one for one in sources(figure(chart.plots[0])) if "hover" in one)["hover"] == titles


def test_a_plot_of_very_many_points_stays_small_and_draws_them_all() -> None:
    many = svg.MAX_TITLED_MARKS + 1
    values = np.linspace(0, 1, many)
    points = Points("", values * 10, values, tuple("L0H0" for _ in values), FALL)
    text = svg.inline(Chart("many", (plot(points),)))
    assert "<title>" not in text
    assert text.count("a3.5") == 2 * many


def test_segments_cells_and_rules_are_drawn_at_their_values() -> None:
    one = np.array([1.0])
    bar = Segments("", one, np.array([0.5]), 9 * one, np.array([0.5]), FALL, 3.0)
    root = drawn(bar, Rule("half", x=5), Rule("", y=0.1), y=Axis(0, 1))
    assert paths(root, stroke=FALL) == ["M10.0 25.0L90.0 25.0"]
    assert paths(root, **{"stroke-dasharray": "3 3"}) == ["M50.0 0v50", "M0 45.0h100"]
    both = np.array([0.0, 1.0])
    cells = Cells(both, both, (RISE, FALL), (0.5, 1.0), ("1", "2"), (INK, INK), ("", ""))
    root = drawn(cells, x=Axis.columns(["a", "b"]), y=Axis.rows(["a", "b"]))
    squares = [[rect.get(name) for name in ("x", "y", "width", "height", "fill")] for rect in root.iter(f"{SVG}rect")]
    assert squares == [["0.0", "0.0", "49.0", "24.0", RISE], ["50.0", "25.0", "49.0", "24.0", FALL]]


def test_the_line_of_equality_joins_the_points_where_x_equals_y() -> None:
    root = drawn(Rule("equal"), x=Axis(0, 10), y=Axis(5, 15))
    assert paths(root, **{"stroke-dasharray": "3 3"}) == ["M50.0 50.0L100.0 25.0"]


def test_a_logarithmic_axis_includes_zero_and_spaces_large_ratios_equally() -> None:
    axis = Axis(0, 1000, unit=1)
    assert axis.fractions([0, 1000]).tolist() == [0, 1]
    places = axis.transform([100, 200, 400, 800])
    assert np.allclose(np.diff(places), np.log(2), rtol=0.01)
    assert [name for _, name in axis.ticks(700)] == ["0", "1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"]
    few = axis.ticks(200)
    assert few[0] == (0.0, "0")
    assert np.diff(axis.fractions([value for value, _ in few]) * 200).min() >= 34


def test_both_renderers_have_the_same_ticks_at_the_same_places() -> None:
    one = plot(line([0, 0.5, 1]), x=Axis(0, 10, unit=2.0))
    drawn_ = figure(one)
    assert np.allclose(drawn_.xaxis[0].ticker.ticks, np.log1p(np.array([v for v, _ in one.x.ticks(100)]) / 2))
    names = [label.text for label in drawn_.xaxis[0].major_label_overrides.values()]
    assert names == [name for _, name in one.x.ticks(100)]
    assert drawn_.x_range.end == pytest.approx(np.log1p(5))


def test_rows_run_from_top_to_bottom() -> None:
    axis = Axis.rows(["first", "second", "third"])
    assert axis.fractions([0, 1, 2]).tolist() == pytest.approx([5 / 6, 1 / 2, 1 / 6])
    assert axis.ticks(90) == [(0.0, "first"), (1.0, "second"), (2.0, "third")]


@pytest.mark.parametrize("seed", range(5))
def test_names_at_lines_ends_do_not_overlap_and_keep_their_order(seed: int) -> None:
    wanted = np.random.default_rng(seed).uniform(0, 200, 12)
    places = space_out(wanted, 13, 0, 200)
    assert np.all(np.diff(np.sort(places)) >= 13 - 1e-9)
    assert np.argsort(places).tolist() == np.argsort(wanted).tolist()
    assert places.min() >= 0
    assert places.max() <= 200
    assert space_out([10, 100], 13, 0, 200).tolist() == [10, 100]


@pytest.mark.parametrize("make", [Chart.svg, svg.card, svg.page])
def test_names_stay_text(make: object) -> None:
    marks = (line([0, 0.5, 1], name=HOSTILE), Rule(HOSTILE, x=1), Rule(HOSTILE, y=0.2))
    label = Axis(0, 1, HOSTILE)
    chart = Chart(HOSTILE, (plot(*marks, y=label, title=HOSTILE, names_at="ends"),), (HOSTILE,), (HOSTILE,))
    text = make(chart)
    found = Tags()
    found.feed(text)
    tags = {tag for tag, _ in found.tags}
    assert tags <= {"svg", "title", "g", "path", "text", "html", "head", "meta", "body", "div", "b", "img"}
    for tag, names in found.tags:
        assert not [name for name in names if name.startswith("on") or name in {"href", "id", "class"}]
        assert ("src" in names) == (tag == "img")
    if make is Chart.svg:
        assert "<script>alert(1)</script>" in "".join(ET.fromstring(text).itertext())


def test_bokeh_gets_names_as_plain_text_only() -> None:
    marks = (line([0, 0.5, 1], name=HOSTILE), Rule(HOSTILE, x=1))
    rows = Axis.rows([HOSTILE, "b"], HOSTILE)
    found = as_json(plot(*marks, y=rows, x=Axis(0, 10, HOSTILE), title=HOSTILE, names_at="ends"))
    text = str(found)
    assert "'TeX'" not in text
    assert "MathML" not in text
    models = str(figure(plot(title=HOSTILE, x=Axis(0, 10, HOSTILE))).title.text)
    assert "PlainText" in models


def test_a_chart_is_drawn_without_script_and_survives_sanitizers() -> None:
    chart = Chart("a chart", (plot(line([0, 0.5, 1])),), notes=("a note",))
    bundle = chart._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    assert set(chart._repr_mimebundle_(include=["text/plain"])) == {"text/plain"}
    assert "<script" not in bundle["text/html"]
    (source,) = re.findall(r'<img hidden="" [^>]*src="data:image/svg\+xml;base64,([^"]+)"', bundle["text/html"])
    ET.fromstring(base64.b64decode(source))
    assert "a note" in "".join(ET.fromstring(bundle["image/svg+xml"]).itertext())


def test_the_file_format_follows_from_the_name(tmp_path: Path) -> None:
    chart = Chart("a chart", (plot(line([0, 0.5, 1])),))
    ET.parse(chart.save(tmp_path / "x.svg"))
    assert chart.save(tmp_path / "x.html").read_text().startswith("<!doctype html>")
    with pytest.raises(HeadnbError, match=r"ends in \.svg, \.html"):
        chart.save(tmp_path / "x.png")
    with pytest.raises(HeadnbError, match="cannot write"):
        chart.save(tmp_path / "missing" / "x.svg")


def test_a_row_of_charts_keeps_their_plots_and_wraps() -> None:
    one = Chart("one", (plot(line([0, 0.5, 1]), width=310),), ("up",), ("same",))
    both = chart_row(one, one, one, title="three")
    assert [p.title for p in both.plots] == ["one"] * 3
    assert both.notes == ("same",)
    _, width, height = svg.picture(both)
    assert width <= 960
    assert height > one.plots[0].outer_height
    with pytest.raises(HeadnbError, match="no charts"):
        chart_row()


def _linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    parts = np.cbrt(to_xyz @ np.clip(linear, 1e-4, 1) / [0.9505, 1, 1.089])
    return np.array([116 * parts[1] - 16, 500 * (parts[0] - parts[1]), 200 * (parts[1] - parts[2])])


# Machado, Oliveira and Fernandes 2009, severity 1.0
SEEN = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("eyes", SEEN)
def test_series_colours_are_distinguishable_with_colour_blindness(eyes: str) -> None:
    labs = [_lab(np.array(SEEN[eyes]) @ _linear(colour)) for colour in SERIES]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(labs, 2)) > 10  # CIE76; 2.3 is just noticeable


@pytest.mark.parametrize("page", ["#ffffff", "#131517"])
def test_series_colours_have_contrast_on_light_and_dark_pages(page: str) -> None:
    def luminance(colour: str) -> float:
        return float(_linear(colour) @ [0.2126, 0.7152, 0.0722])

    for colour in SERIES:
        dark, light = sorted((luminance(colour), luminance(page)))
        assert (light + 0.05) / (dark + 0.05) > 2.5
