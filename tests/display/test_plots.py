"""Plot functions: marks match the given arrays, and invalid arrays are clear errors."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from headnb.display.charts import plots
from headnb.display.charts.marks import Cells, Line, Points, Rule, Segments
from headnb.display.charts.matrices import clustered
from headnb.errors import HeadnbError

SVG = "{http://www.w3.org/2000/svg}"


def marks(chart: object, kind: type, place: int = 0) -> list:
    return [mark for mark in chart.plots[place].marks if isinstance(mark, kind)]


def study(**coords: object) -> xr.DataArray:
    values = [[1.0, 0.8, 0.5, 0.4], [1.0, 0.9, np.nan, 0.7]]
    names = {"task": ["gsm8k", "boolq"], "step": [0, 1, 5, 20], **coords}
    return xr.DataArray(values, dims=("task", "step"), coords=names, name="level", attrs={"units": "nats"})


def test_a_trajectory_has_one_line_per_task_with_its_interval() -> None:
    value = study()
    chart = plots.trajectory(xr.Dataset({"value": value, "low": value - 0.1, "high": value + 0.1}))
    lines = marks(chart, Line)
    assert [line.name for line in lines] == ["gsm8k", "boolq"]
    for line, row in zip(lines, value.values, strict=True):
        np.testing.assert_array_equal(line.x, [0, 1, 5, 20])
        np.testing.assert_array_equal(line.y, row)
        np.testing.assert_array_equal(line.low, row - 0.1)
    assert lines[0].hover[1] == "gsm8k · step 1 · 0.80 [0.70, 0.90]"
    assert "gsm8k: 1.00 → 0.400 over step 0 to 20" in repr(chart)


def test_a_trajectory_may_have_samples_seen_as_its_x_axis() -> None:
    chart = plots.trajectory(study(samples_seen=("step", [0, 8, 40, 160])), along="samples_seen", log=True)
    assert marks(chart, Line)[0].x.tolist() == [0, 8, 40, 160]
    assert chart.plots[0].x.unit == 8
    assert chart.plots[0].x.label == "samples seen"


def test_training_seeds_have_the_colour_of_their_task() -> None:
    runs = study().expand_dims(seed=[0, 1]).transpose("task", "seed", "step")
    lines = marks(plots.trajectory(runs), Line)
    assert [line.name for line in lines] == ["gsm8k", "", "boolq", ""]
    assert lines[0].colour == lines[1].colour != lines[2].colour == lines[3].colour
    assert lines[3].hover[0].startswith("boolq · seed 1 · step 0")


def test_marks_of_a_trajectory_are_vertical_lines() -> None:
    rules = marks(plots.trajectory(study(), marks={"50 %": 3.5}), Rule)
    assert [(rule.text, rule.x) for rule in rules] == [("50 %", 3.5)]


def test_a_distribution_shows_every_head_and_the_quantiles_of_numpy() -> None:
    rng = np.random.default_rng(0)
    coords = {"task": ["gsm8k", "boolq"], "layer": range(5), "head": range(4)}
    levels = rng.lognormal(-4, 1, (2, 5, 4))
    chart = plots.distribution(xr.DataArray(levels, coords, tuple(coords)), log=True)
    points = marks(chart, Points)
    np.testing.assert_array_equal(points[1].x, levels[1].ravel())
    assert np.abs(points[1].y - 1).max() < 0.5
    assert points[0].hover[7].startswith("gsm8k · L1H3 · ")
    layer, head = np.unravel_index(levels[0].argmax(), (5, 4))
    assert [name for name in points[0].labels if name] == [f"L{layer}H{head}"]
    whiskers, box, median = marks(chart, Segments)
    for row, values in enumerate(levels):
        found = [whiskers.x0[row], box.x0[row], median.x0[row], box.x1[row], whiskers.x1[row]]
        assert found == pytest.approx(np.percentile(values, [5, 25, 50, 75, 95]))


def test_a_distribution_of_one_head_over_samples_names_the_samples() -> None:
    one = xr.DataArray([0.1, 0.2, np.nan], dims="sample", coords={"sample": ["a", "b", "c"]})
    chart = plots.distribution({"before": one, "after": one * 0 + 0.3})
    assert marks(chart, Points)[0].hover == ("before · a · 0.100", "before · b · 0.200", "before · c · –")


def blocks() -> xr.DataArray:
    """Correlations of two groups of tasks in alternating order."""
    names = ["math1", "text1", "math2", "text2"]
    same = np.array([[n[0] == m[0] for n in names] for m in names])
    matrix = np.where(same, 0.8, -0.2) + np.eye(4) * 0.2
    return xr.DataArray(matrix, dims=("task", "other_task"), coords={"task": names, "other_task": names})


def test_similar_tasks_are_next_to_each_other() -> None:
    order = clustered(blocks())
    assert {frozenset(order[:2]), frozenset(order[2:])} == {
        frozenset({"math1", "math2"}),
        frozenset({"text1", "text2"}),
    }


def test_a_correlation_matrix_has_every_pair_in_its_cell() -> None:
    chart = plots.correlation_matrix(blocks(), order=["math1", "math2", "text1", "text2"])
    (cells,) = marks(chart, Cells)
    at = {(x, y): text for x, y, text in zip(cells.x, cells.y, cells.texts, strict=True)}
    assert at[1, 0] == at[0, 1] == "0.80"
    assert at[2, 0] == "−0.20"
    assert cells.hover[1] == "math1 · math2 · 0.800"
    strongest = dict(zip(cells.hover, cells.opacities, strict=True))
    assert strongest["math1 · math1 · 1.00"] < strongest["math1 · text1 · −0.200"] < strongest["math1 · math2 · 0.800"]


def test_stages_of_a_correlation_matrix_are_plots_in_one_order() -> None:
    both = xr.concat([blocks(), blocks() * 0.5], xr.IndexVariable("stage", ["before", "after"]))
    chart = plots.correlation_matrix(both)
    assert [plot.title for plot in chart.plots] == ["before", "after"]
    assert chart.plots[0].x.names == chart.plots[1].x.names == tuple(clustered(blocks()))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_train_eval_matrix_has_rows_of_training_and_columns_of_evaluation(sign: int) -> None:
    names = ["gsm8k", "boolq"]
    coords = {"train": names, "eval": [*names, "mbpp"]}
    chart = plots.train_eval(xr.DataArray([[1.5, sign, 0.2], [0.4, 2, 0]], dims=("train", "eval"), coords=coords))
    (cells,) = marks(chart, Cells)
    assert chart.plots[0].y.names == ("gsm8k", "boolq")
    assert cells.texts == ("1.50", f"{sign}.00".replace("-", "−"), "0.20", "0.40", "2.00", "0.00")
    assert ("#1f83d6" in cells.colours) == (sign < 0)


def matrix(values: np.ndarray) -> xr.DataArray:
    """A matrix with row and column names like those of losses after each of several tasks."""
    rows, columns = (range(size) for size in values.shape)
    coords = {"stage": [f"after task {row}" for row in rows], "task": [f"task {column}" for column in columns]}
    return xr.DataArray(values, coords, ("stage", "task"))


def drawn_width(words: str, size: float) -> float:
    """Width in pixels in DejaVu Sans, one of the widest fonts that a page may use."""
    return size * sum({".": 0.318, "−": 0.838, "e": 0.615}.get(letter, 0.636) for letter in words)


SIZED = pytest.mark.parametrize("size", [3, 7, 12, 15, 30])
SHAPED = pytest.mark.parametrize(
    ("factor", "shift"),
    [(1, 0), (0.05, -1), (100, -1.5), (3e-6, 0), (3e5, -1)],
    ids=["losses", "rises", "hundreds", "tiny", "huge"],
)


@SIZED
@SHAPED
def test_text_fits_into_the_cells_of_a_matrix_in_both_renderers(size: int, factor: float, shift: float) -> None:
    values = factor * (np.random.default_rng(size).gamma(2, 1, (size, size)) + shift)
    chart = plots.train_eval(matrix(values))
    (cells,) = marks(chart, Cells)
    root = ET.fromstring(chart.svg())
    written = [(group.find(f"{SVG}rect"), group.find(f"{SVG}text")) for group in root.iter(f"{SVG}g")]
    found = [(rect, text) for rect, text in written if rect is not None and text is not None]
    assert [text.text for _, text in found] == [words for words in cells.texts if words]
    for rect, text in found:
        assert drawn_width(text.text, float(text.get("font-size"))) <= float(rect.get("width"))
        assert float(text.get("font-size")) <= float(rect.get("height"))
    figure = chart.bokeh()
    texts = next(one for one in figure.renderers if type(one.glyph).__name__ == "Text")
    size_of_text = float(texts.glyph.text_font_size.removesuffix("px"))
    room = chart.plots[0].width / size - 1
    assert max(drawn_width(words, size_of_text) for words in texts.data_source.data["text"]) <= room
    assert figure.sizing_mode == ("fixed" if any(cells.texts) else "scale_width")


@SIZED
def test_text_fits_into_the_cells_of_correlations(size: int) -> None:
    names = [f"task{place}" for place in range(size)]
    values = np.corrcoef(np.random.default_rng(size).normal(size=(size, 4)))
    chart = plots.correlation_matrix(
        xr.DataArray(values, dict.fromkeys(("task", "other_task"), names), ("task", "other_task"))
    )
    (cells,) = marks(chart, Cells)
    assert max(drawn_width(words, 11) for words in cells.texts) <= chart.plots[0].width / size - 1
    assert any(cells.texts) == (size < 30)


def test_cells_that_are_too_small_for_text_have_hover_texts() -> None:
    values = np.random.default_rng(0).gamma(2, 1, (30, 30))
    (cells,) = marks(plots.train_eval(matrix(values)), Cells)
    assert not any(cells.texts)
    assert cells.hover[31] == f"after task 1 · task 1 · {values[1, 1]:.3g}"


def test_smaller_cells_have_fewer_digits_and_zero_has_no_minus() -> None:
    values = np.full((2, 12), -0.0004)
    values[0] = -0.0968
    few, many = (marks(plots.train_eval(matrix(values[:, :columns])), Cells)[0].texts for columns in (3, 12))
    assert few == ("−0.097",) * 3 + ("0.000",) * 3
    assert many == ("−0.10",) * 12 + ("0.00",) * 12


def test_regression_gives_the_r_squared_of_the_formula_and_names_heads() -> None:
    rng = np.random.default_rng(1)
    coords = {"layer": range(6), "head": range(4)}
    y = rng.normal(size=(6, 4))
    f = 0.7 * y
    f[2, 3] += 3  # far from the line
    chart = plots.regression(*(xr.DataArray(values, coords, tuple(coords)) for values in (y, f)))
    (points,) = marks(chart, Points)
    np.testing.assert_array_equal(points.x, f.ravel())
    np.testing.assert_array_equal(points.y, y.ravel())
    assert points.labels[2 * 4 + 3] == "L2H3"
    r2 = 1 - ((y - f) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert chart.title == f"observed and fitted, R² {r2:.4f}"
    assert chart.plots[0].x.start == chart.plots[0].y.start
    assert [rule for rule in marks(chart, Rule) if rule.x is None and rule.y is None]


def test_weights_have_intervals_and_a_note_on_how_often_they_were_selected() -> None:
    coords = {"basic": ["gsm8k", "mbpp"]}
    columns = {
        name: ("basic", values) for name, values in (("value", [0.6, 0.1]), ("low", [0.4, -0.1]), ("high", [0.8, 0.3]))
    }
    alpha = xr.DataArray([0.5, 0.0], coords)
    chart = plots.weights(xr.Dataset(columns, coords), others={"weights ≥ 0": alpha}, selected=alpha + 0.4)
    own, other = marks(chart, Points)
    assert own.x.tolist() == [0.6, 0.1]
    assert other.x.tolist() == [0.5, 0.0]
    interval = marks(chart, Segments)[0]
    assert (interval.x0.tolist(), interval.x1.tolist()) == ([0.4, -0.1], [0.8, 0.3])
    np.testing.assert_array_equal(interval.y0, own.y)
    assert chart.notes == ("Fraction of resamples with a weight above zero: gsm8k 90%, mbpp 40%.",)


def test_slopes_join_the_stages_of_each_task() -> None:
    coords = {"statistic": ["Gini", "CV"], "task": ["gsm8k", "boolq"], "stage": ["before", "after"]}
    values = xr.DataArray(np.arange(8.0).reshape(2, 2, 2), dims=tuple(coords), coords=coords)
    chart = plots.slopes(xr.Dataset({"value": values, "low": values - 0.5, "high": values + 0.5}))
    assert [plot.title for plot in chart.plots] == ["Gini", "CV"]
    lines = marks(chart, Line, 1)
    assert [(line.name, line.y.tolist()) for line in lines] == [("gsm8k", [4, 5]), ("boolq", [6, 7])]
    assert lines[0].hover == ("gsm8k · before · 4.00 [3.50, 4.50]", "gsm8k · after · 5.00 [4.50, 5.50]")
    np.testing.assert_array_equal(marks(chart, Segments, 1)[1].y1, [6.5, 7.5])


def test_a_null_model_far_below_zero_is_drawn_at_the_edge_with_its_number() -> None:
    table = pd.DataFrame({"r2": [0.6, -5.2], "r2_cv": [0.5, np.nan]}, index=["the fit", "a null"])
    chart = plots.nulls(table, ceiling=0.8)
    r2, r2_cv = marks(chart, Points)
    assert r2.x.tolist() == [0.6, -1.0]
    assert r2.labels == ("", "−5.20")
    assert r2_cv.labels == ("", "")
    assert 0.8 in [rule.x for rule in marks(chart, Rule)]
    assert "a null: R² −5.20, leave-layers-out R² –" in repr(chart)


def test_arrays_that_cannot_be_drawn_are_clear_errors() -> None:
    with pytest.raises(HeadnbError, match=r"no coordinate 'epoch'.*have task, step"):
        plots.trajectory(study(), along="epoch")
    with pytest.raises(HeadnbError, match="nothing to draw"):
        plots.trajectory(study().isel(step=[]))
    with pytest.raises(HeadnbError, match="got list"):
        plots.trajectory([1, 2])
    with pytest.raises(HeadnbError, match="logarithmic axis needs step of at least 0; got"):
        plots.trajectory(study(step=[-1, 0, 1, 2]), log=True)
    with pytest.raises(HeadnbError, match="no groups"):
        plots.distribution({})
    with pytest.raises(HeadnbError, match="the order must contain each of"):
        plots.correlation_matrix(blocks(), order=["math1"])
    with pytest.raises(HeadnbError, match="same names along both"):
        plots.correlation_matrix(blocks().isel(task=[0, 1]))
    with pytest.raises(HeadnbError, match="differ in shape"):
        plots.regression(study(), study().isel(step=[0]))
    with pytest.raises(HeadnbError, match="missing: r2_cv"):
        plots.nulls(pd.DataFrame({"r2": [1.0]}))
    with pytest.raises(HeadnbError, match="two stages"):
        plots.slopes(study().isel(step=[0]))
    with pytest.raises(HeadnbError, match="one dim"):
        plots.weights(study())


@pytest.mark.parametrize("value", [np.nan, 0.0, 0.3])
def test_constant_arrays_and_arrays_without_values_are_drawn(value: float) -> None:
    flat = study() * 0 + value
    coords = {"layer": range(2), "head": range(2)}
    grid = xr.DataArray(np.full((2, 2), value), dims=("layer", "head"), coords=coords)
    for chart in (
        plots.trajectory(flat),
        plots.distribution({"a": grid}),
        plots.regression(grid, grid),
        plots.slopes(flat),
        plots.train_eval(flat),
        plots.correlation_matrix(blocks() * 0 + value),
    ):
        assert "nan" not in chart.svg().lower()
        assert chart.bokeh() is not None
