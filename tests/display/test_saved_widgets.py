"""Saved widgets: a notebook contains the live view and the last picture, for readers without the view."""

from __future__ import annotations

import re

import headnb
import nbformat
import numpy as np
import pytest
from headnb.display.grid import HeadGrid
from headnb.display.payload import MIME_TYPE
from headnb.explorer.explorer import Explorer, explore
from headnb.explorer.grid_widget import HeadGridWidget
from headnb.suite import notebooks
from IPython.core.formatters import DisplayFormatter
from nbconvert import HTMLExporter

from tiny import tiny_model, tiny_tokenizer

PAIRS = [("2 + 3 = ", "5"), ("The sky is", " blue"), ("One, two,", " three"), ("def f(n):\n", "    return n")]
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def scores():
    return headnb.score_heads(tiny_model(), tiny_tokenizer(), PAIRS)


@pytest.fixture(params=["grid", "explorer"])
def widget(request, scores):
    made = HeadGridWidget(scores) if request.param == "grid" else Explorer(results=scores)
    yield made
    made.close()


def saved(widget):
    """The bundle that a kernel sends for a cell's last value."""
    data, _ = DisplayFormatter().format(widget)
    return data


def test_the_bundle_has_the_view_first_and_also_the_picture(widget, scores):
    data = saved(widget)
    expected = HeadGrid(widget.payload)._repr_mimebundle_()
    assert data[VIEW]["model_id"] == widget.model_id
    assert all(data[name] == expected[name] for name in (MIME_TYPE, "text/html", "text/plain"))
    levels = np.abs(scores["score"].values.astype(float)).mean(axis=0)
    np.testing.assert_allclose(np.array(data[MIME_TYPE]["panels"][0]["values"], float), levels, rtol=1e-3)
    assert list(data).index(VIEW) < list(data).index(MIME_TYPE)


@pytest.mark.parametrize("exporter", ["nbconvert", "page"])
def test_a_page_shows_the_picture(widget, tmp_path, exporter):
    output = nbformat.v4.new_output("execute_result", data=saved(widget), execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("widget", outputs=[output])])
    nbformat.write(notebook, tmp_path / "saved.ipynb")
    if exporter == "page":
        page = notebooks.html_page(tmp_path / "saved.ipynb", tmp_path / "saved.html").read_text()
    else:
        page, _ = HTMLExporter().from_filename(str(tmp_path / "saved.ipynb"))
    assert page.count('alt="activation level') == 1
    assert not re.search(r"(HeadGridWidget|Explorer)\(", page)


def test_the_last_scores_and_the_last_ablation_are_shown():
    explorer = explore(tiny_model(), tiny_tokenizer(), {"pairs": PAIRS})
    empty = saved(explorer)
    assert explorer.wait(300)
    explorer.run()
    assert explorer.wait(300)
    scored = saved(explorer)
    assert scored[MIME_TYPE] == explorer.payload != empty[MIME_TYPE]
    assert "ablated" not in scored["text/html"]
    explorer.ablate(heads=["L0H1"])
    assert explorer.wait(300)
    ablated = saved(explorer)
    for form in ("text/html", "text/plain"):
        assert ablated[form].startswith(scored[form])
        assert "L0H1 ablated" in ablated[form]
    explorer.close()
