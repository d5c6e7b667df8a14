"""Head roles in a grid: which heads are marked, in the payload and in the text forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError, grid
from headnb.display.grid import HeadGrid
from headnb.display.payload_parser import parse_payload
from headnb.display.role_marks import roles_line

from synthetic_results import comparison, pattern, random_pattern, scores

SCORES = [[[0.83, 0.1, 0.5], [np.nan, np.nan, np.nan]], [[0.2, 0.31, 0.3], [0.9, 0.1, 0.0]]]


def roles(values: object = SCORES, **attrs: object) -> xr.Dataset:
    found = np.asarray(values)
    return xr.Dataset(
        {"score": (("role", "layer", "head"), found)},
        coords={
            "role": ["induction", "sink"],
            "threshold": ("role", [0.4, 0.3]),
            "layer": range(found.shape[1]),
            "head": range(found.shape[2]),
        },
        attrs=attrs,
    )


def test_a_role_lists_the_cells_above_its_threshold_and_their_scores() -> None:
    found = grid(random_pattern(2, 3), roles=roles()).payload
    assert found["roles"] == [
        {"name": "induction", "threshold": 0.4, "cells": [0, 2], "scores": [0.83, 0.5]},
        {"name": "sink", "threshold": 0.3, "cells": [1, 3], "scores": [0.31, 0.9]},
    ]
    assert parse_payload(json.loads(json.dumps(found))) == found


def test_the_threshold_is_the_readers_to_change() -> None:
    strict = roles().assign_coords(threshold=("role", [0.6, 0.95]))
    assert [role["cells"] for role in grid(random_pattern(2, 3), roles=strict).payload["roles"]] == [[0], []]


def test_a_selection_of_heads_has_the_roles_of_these_heads() -> None:
    chosen = random_pattern(2, 3).isel(layer=[1, 0], head=[2, 0])
    found = grid(chosen, roles=roles()).payload["roles"]
    assert [(role["cells"], role["scores"]) for role in found] == [([2, 3], [0.5, 0.83]), ([1], [0.9])]


@pytest.mark.parametrize(
    "data",
    [
        pattern(np.ones((2, 3))),
        comparison(np.ones((2, 3)), np.zeros((2, 3))),
        scores(6, 2, 3),
        {"a": random_pattern(2, 3), "b": random_pattern(2, 3, 1)},
        np.ones((2, 3)),
        grid(random_pattern(2, 3)),
    ],
    ids=["pattern", "comparison", "scores", "panels", "matrix", "grid"],
)
def test_everything_that_can_be_drawn_can_be_marked(data: object) -> None:
    marked = grid(data, roles=roles())
    assert isinstance(marked, HeadGrid)
    assert [role["name"] for role in marked.payload["roles"]] == ["induction", "sink"]


def test_text_forms_count_the_heads() -> None:
    marked = grid(random_pattern(2, 3), roles=roles())
    line = "Head roles: induction (2 above 0.4), sink (2 above 0.3)."
    assert roles_line(marked.payload) == line
    assert line in repr(marked)
    assert line in marked._repr_mimebundle_()["text/html"]
    assert "Head roles" not in repr(grid(random_pattern(2, 3)))


def test_roles_of_another_model_are_named_and_those_of_another_shape_refused() -> None:
    marked = grid(random_pattern(2, 3), roles=roles(model="another"))
    assert "The head roles were measured on another." in marked.payload["panels"][0]["notes"]
    assert grid(random_pattern(2, 3), roles=roles(model="smollm2-135m")).payload["panels"][0]["notes"] == []
    with pytest.raises(HeadnbError, match="roles are for 2 layers of 3 heads, but the grid has 3 layers of 3 heads"):
        grid(random_pattern(3, 3), roles=roles())
    with pytest.raises(HeadnbError, match="roles are for 2 layers of 3 heads, but the grid has 1 layers of 3 heads"):
        grid(random_pattern(1, 3), roles=roles())


@pytest.mark.parametrize("wrong", [scores(6, 2, 3), roles().drop_vars("threshold")], ids=["scores", "no threshold"])
def test_what_is_not_roles_is_refused(wrong: xr.Dataset) -> None:
    with pytest.raises(HeadnbError, match=r"expects the result of headnb\.head_roles"):
        grid(random_pattern(2, 3), roles=wrong)


def test_the_explorer_keeps_the_roles() -> None:
    explorer = grid(random_pattern(2, 3), roles=roles(), live=True)
    assert [role["cells"] for role in explorer.payload["roles"]] == [[0, 2], [1, 3]]
