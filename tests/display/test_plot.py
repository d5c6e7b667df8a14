"""Figures by matplotlib and files for papers: text stays text, values keep their colours, pyplot is not used."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import headnb
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from headnb.display.colours import paint
from headnb.display.grid import HeadGrid, check_writable
from headnb.errors import HeadnbError
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from synthetic_results import comparison, pattern, random_pattern, scores

if TYPE_CHECKING:
    from pathlib import Path


def change() -> xr.Dataset:
    values = random_pattern(6, 4).to_numpy() - 0.02
    values[2] = np.nan
    return comparison(values, values > 0.01, kv_heads=2)


def mesh_colours(figure: Figure) -> np.ndarray:
    (mesh,) = [one for one in figure.axes[0].collections if type(one).__name__ == "QuadMesh"]
    figure.draw_without_rendering()
    return mesh.get_facecolors()


def test_every_cell_has_its_colour() -> None:
    data = random_pattern(5, 4)
    made = HeadGrid.of(data).payload
    scale = (made["scale"]["low"], made["scale"]["high"])
    expected = [to_rgb(paint(value, scale).colour) for value in data.to_numpy().ravel()]
    assert mesh_colours(data.heads.plot())[:, :3] == pytest.approx(np.array(expected), abs=1 / 255)


@pytest.mark.parametrize(("theme", "page"), [("light", 1.0), ("dark", 17 / 255)])
def test_a_difference_of_zero_has_the_colour_of_the_page(theme: str, page: float) -> None:
    zero = comparison([[0.0, 0.1]], [[False, False]])
    figure = zero.heads.plot(theme=theme)
    assert mesh_colours(figure)[0, :3] == pytest.approx([page] * 3)
    assert figure.get_facecolor()[:3] == pytest.approx((page,) * 3)


def test_significant_and_missing_heads_are_marked_at_their_cells() -> None:
    data = change()
    ax = data.heads.plot().axes[0]
    missing, marked = (mark.get_offsets() for mark in ax.collections if type(mark).__name__ == "PathCollection")
    cells = np.argwhere(data["significant"].to_numpy())
    assert sorted(map(tuple, marked.tolist())) == sorted((head + 0.5, layer + 0.5) for layer, head in cells.tolist())
    assert sorted(map(tuple, missing.tolist())) == [(head + 0.5, 2.5) for head in range(4)]
    assert ax.get_ylim() == (6, 0)


def test_size_colour_bar_and_panels() -> None:
    assert random_pattern(30, 9).heads.plot().get_figwidth() == pytest.approx(85 / 25.4)
    assert random_pattern(30, 64).heads.plot().get_figwidth() == pytest.approx(170 / 25.4)
    assert random_pattern(30, 9).heads.plot(width="5 in").get_figwidth() == 5
    study = xr.concat([random_pattern(3, 2, seed) for seed in range(4)], xr.IndexVariable("task", list("abcd")))
    *grids, bar = study.heads.plot().axes
    assert [ax.get_title() for ax in grids] == list("abcd")
    assert bar.get_ylabel() == "activation level (nats)"
    assert len({one.get_clim() for ax in grids for one in ax.collections[:1]}) == 1


def test_names_from_data_are_not_mathematics(tmp_path: Path) -> None:
    named = {"$\\frac{1}$": random_pattern(2, 2), "$x_": random_pattern(2, 2, 1)}
    path = HeadGrid.of(named, title="$\\undefined$ _^").save(tmp_path / "x.pdf")
    assert path.stat().st_size > 1000


def test_ax_draws_one_panel_in_the_users_axes() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert random_pattern(3, 2).heads.plot(ax=right) is figure
    assert right.get_xlabel() == "head"
    assert not left.collections
    several = xr.concat([random_pattern(3, 2), random_pattern(3, 2, 1)], "task")
    with pytest.raises(HeadnbError, match="ax= draws one grid, but there are 2"):
        several.heads.plot(ax=left)


@pytest.mark.parametrize("width", ["85", "wide", "-3 mm", "0 mm", "9000 in", 85])
def test_a_width_without_a_unit_is_an_error(width: object) -> None:
    with pytest.raises(HeadnbError, match="width must be"):
        random_pattern(3, 2).heads.plot(width=width)


def test_an_unknown_theme_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HeadnbError, match="unknown theme 'drak'; did you mean 'dark'"):
        random_pattern(3, 2).heads.plot(theme="drak")
    with pytest.raises(HeadnbError, match="theme"):
        HeadGrid.of(random_pattern(3, 2)).save(tmp_path / "x.svg", theme="drak")
    assert not list(tmp_path.iterdir())


def test_a_pdf_has_its_text_as_text(tmp_path: Path) -> None:
    content = HeadGrid.of(change()).save(tmp_path / "change.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Type /Font" in content
    assert b"/Subtype /Type0" in content or b"/Subtype /TrueType" in content
    assert b"/Subtype /Type3" not in content
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    drawn = b"".join(zlib.decompress(stream) for stream in streams if stream[:1] == b"x").replace(b"\0", b"")
    shown = [b"".join(re.findall(rb"\((.*?)\)", line)) for line in re.findall(rb"\[(.*?)\] TJ", drawn)]
    assert {b"layer", b"head"} <= {*shown, *re.findall(rb"\((.*?)\) Tj", drawn)}


@pytest.mark.parametrize(("theme", "page"), [("light", (255, 255, 255)), ("dark", (17, 17, 17))])
def test_a_png_has_print_resolution_and_the_theme(tmp_path: Path, theme: str, page: tuple[int, ...]) -> None:
    image = Image.open(HeadGrid.of(change()).save(tmp_path / "x.png", theme=theme))
    assert image.width == int(85 / 25.4 * 300)
    assert image.info["dpi"] == pytest.approx((300, 300), abs=1)
    assert image.convert("RGB").getpixel((1, 1)) == page


@pytest.mark.parametrize(("theme", "page"), [("light", "#ffffff"), ("dark", "#111111")])
def test_an_svg_has_text_and_the_theme(tmp_path: Path, theme: str, page: str) -> None:
    text = HeadGrid.of(change()).save(tmp_path / "x.svg", theme=theme).read_text(encoding="utf-8")
    assert f'<rect width="100%" height="100%" fill="{page}"/>' in text
    assert ">layer</text>" in text


def test_a_csv_has_the_values_of_the_arrays(tmp_path: Path) -> None:
    data = change().assign(q_value=np.abs(change()["difference"]) ** 2)
    table = pd.read_csv(HeadGrid.of(data).save(tmp_path / "x.csv"))
    assert list(table) == ["name", "layer", "head", "value", "low", "high", "significant", "q", "units"]
    assert table["name"][:2].tolist() == ["L0H0", "L0H1"]
    shape = data["difference"].shape
    for column, variable in (("value", "difference"), ("low", "low"), ("high", "high"), ("q", "q_value")):
        expected = data[variable].to_numpy()
        assert table[column].to_numpy().reshape(shape) == pytest.approx(expected, rel=5e-3, nan_ok=True)
    assert (table["significant"].to_numpy().reshape(shape) == data["significant"].to_numpy()).all()
    assert set(table["units"]) == {"nats"}


def test_a_csv_of_panels_and_of_selected_heads(tmp_path: Path) -> None:
    two = {"=1+1": pattern([[0.1, 0.2]]), "a,b": pattern([[0.3, 0.4]])}
    table = pd.read_csv(HeadGrid.of(two).save(tmp_path / "x.csv"))
    assert table["panel"].tolist() == ["'=1+1", "'=1+1", "a,b", "a,b"]
    assert table["value"].tolist() == [0.1, 0.2, 0.3, 0.4]
    some = random_pattern(9, 5).isel(layer=[3, 8], head=[4])
    table = pd.read_csv(HeadGrid.of(some).save(tmp_path / "y.csv"))
    assert table[["name", "layer", "head"]].to_numpy().tolist() == [["L3H4", 3, 4], ["L8H4", 8, 4]]


def test_pyplot_is_not_imported_and_xarrays_own_plot_remains(tmp_path: Path) -> None:
    code = f"""
import sys, headnb, numpy as np
grid = headnb.grid(np.ones((3, 2)))
grid.save({str(tmp_path / "x.png")!r}); grid.save({str(tmp_path / "x.pdf")!r})
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert type(random_pattern(3, 2).plot).__module__.startswith("xarray")
    assert headnb.grid(scores(8)).payload == scores(8).heads.grid().payload


def test_a_notebook_shows_a_figure_without_pyplot() -> None:
    content, size = random_pattern(30, 9).heads.plot()._repr_png_()
    assert Image.open(io.BytesIO(content)).width == int(85 / 25.4 * 200)
    assert size == {"width": round(85 / 25.4 * 96)}


def test_without_matplotlib_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "headnb.display.notebook_figure", raising=False)
    grid = HeadGrid.of(random_pattern(3, 2))
    message = r"this needs matplotlib: pip install 'headnb\[plot\]'"
    for act in (
        lambda: grid.save(tmp_path / "x.pdf"),
        lambda: check_writable(tmp_path / "x.png"),
        random_pattern(3, 2).heads.plot,
    ):
        with pytest.raises(HeadnbError, match=message):
            act()
    grid.save(tmp_path / "x.svg")
