"""Plain matrices are drawn as values without units, reliability or statistics; the truth is the given matrix."""

from __future__ import annotations

import headnb
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from headnb import HeadnbError
from headnb.display.grid import HeadGrid
from headnb.notebook.arguments import find_drawable
from headnb.notebook.variables import Variables

X = np.random.default_rng(0).random((4, 3))
FORMS = {
    "numpy": lambda x: x,
    "integers": lambda x: (100 * x).astype(int),
    "torch": torch.tensor,
    "torch with a gradient": lambda x: torch.tensor(x, requires_grad=True),
    "bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "frame": pd.DataFrame,
    "named frame": lambda x: pd.DataFrame(x, index=list("abcd"), columns=list("xyz")),
    "lists": lambda x: x.tolist(),
    "array": lambda x: xr.DataArray(x, dims=("layer", "head")),
    "array without names": xr.DataArray,
    "transposed array": lambda x: xr.DataArray(x.T, dims=("head", "layer")),
    "chunked array": lambda x: xr.DataArray(x, dims=("layer", "head")).chunk(2),
}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_matrix_is_drawn_as_values(form, signed):
    given = FORMS[form](X - 0.5 * signed)
    expected = np.asarray(given) if form == "integers" else X - 0.5 * signed
    grid = headnb.grid(given)
    payload, (panel,) = grid.payload, grid.payload["panels"]
    assert (payload["quantity"], payload["units"], payload["title"]) == ("value", "", "attention heads")
    assert payload["scale"]["low"] == (-payload["scale"]["high"] if signed else 0)
    assert (panel["samples"], panel["reliability"], panel["statistics"], panel["notes"]) == (None, None, {}, [])
    np.testing.assert_allclose(np.array(panel["values"]), expected, rtol=8e-3 if form == "bfloat16" else 1e-3)
    html = grid._repr_mimebundle_()["text/html"]
    assert "nats" not in html
    assert "eliabilit" not in html
    assert HeadGrid.of(payload).payload == payload  # the validator accepts it
    assert HeadGrid.of(find_drawable("x", Variables({"x": given}))).payload == payload  # like %headgrid
    if isinstance(given, xr.DataArray) and "layer" in given.dims:
        assert given.heads.grid().payload == payload


def test_several_matrices_are_panels_on_one_scale():
    payload = headnb.grid({"one": X, "two": torch.tensor(X - 1)}, title="both").payload
    assert (payload["title"], payload["kind"]) == ("both", "signed")
    assert [panel["title"] for panel in payload["panels"]] == ["one", "two"]
    assert len(headnb.grid(np.stack([X, X, X])).payload["panels"]) == 3


def test_rows_of_a_frame_may_be_numbered():
    payload = headnb.grid(pd.DataFrame(X, index=[5, 6, 7, 8])).payload
    assert payload["layer_numbers"] == [5, 6, 7, 8]


def test_missing_and_infinite_values_are_not_drawn():
    holes = X.copy()
    holes[0, 0], holes[1, 1] = np.nan, np.inf
    values = headnb.grid(holes).payload["panels"][0]["values"]
    assert (values[0][0], values[1][1]) == (None, None)


@pytest.mark.parametrize(
    "given", [[], [1.0, 2.0], np.zeros(3), np.zeros((0, 3)), [[1, 2], [3]], [["a"]], "abc", None, 3.0, {"a": 1}]
)
def test_input_that_is_not_a_matrix_is_a_one_line_error(given):
    for live in (False, True):
        with pytest.raises(HeadnbError) as error:
            headnb.grid(given, live=live)
        assert "\n" not in str(error.value)


def test_the_live_grid_is_a_widget():
    assert type(headnb.grid(X, live=True)).__name__ == "HeadGridWidget"
