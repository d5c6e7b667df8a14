"""Packed payloads of notebooks: matrices are binary, keep their digits, and are read like lists."""

from __future__ import annotations

import json

import numpy as np
import pytest
from headnb.display.grid import HeadGrid
from headnb.display.grid_text import panel_matrix
from headnb.display.packing import pack
from headnb.display.payload import payload
from headnb.display.payload_parser import parse_payload
from headnb.errors import HeadnbError

from synthetic_results import comparison, random_pattern, scores


def test_a_small_grid_stays_readable() -> None:
    made = payload(random_pattern(4, 4))
    assert pack(made) is made


@pytest.mark.parametrize(("shape", "digits"), [((30, 9), 1e-7), ((80, 64), 5e-4)])
def test_packed_matrices_have_the_values_of_the_lists(shape: tuple[int, int], digits: float) -> None:
    values = random_pattern(*shape).to_numpy() - 0.02
    values[3] = np.nan
    tested = comparison(values, values > 0.01)
    made = payload(tested.assign(q_value=np.abs(tested["difference"]) ** 3))
    packed = parse_payload(json.loads(json.dumps(pack(made), allow_nan=False)))
    small = shape == (30, 9)
    assert ("q" in packed["panels"][0]) is small
    for name in ("values", "low", "high", "significant", *(["q"] if small else [])):
        assert isinstance(packed["panels"][0][name], dict)
        one, two = (panel_matrix(source["panels"][0], name) for source in (made, packed))
        assert two == pytest.approx(one, rel=digits if name == "values" else 5e-4, abs=1e-9, nan_ok=True)
    if small:
        assert HeadGrid(packed)._repr_mimebundle_()["text/html"] == HeadGrid(made)._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("size", [1e-90, 1e90])
def test_extreme_values_survive(size: float) -> None:
    made = payload(random_pattern(10, 10) * size)
    packed = pack(made)["panels"][0]
    assert panel_matrix(packed) == pytest.approx(panel_matrix(made["panels"][0]), rel=1e-6)


def test_an_output_of_a_notebook_opens_as_the_same_grid() -> None:
    grid = HeadGrid.of(scores(8, 10, 10))
    stored = HeadGrid.of(json.loads(json.dumps(pack(grid.payload))))
    assert repr(stored) == repr(grid)


@pytest.mark.parametrize(
    "change", [{"uint8": "AgICAg=="}, {"heads": 3}, {"uint8": "A==="}, {"uint8": None}, {"uint8": "AAAAAAAA"}]
)
def test_invalid_marks_are_refused(change: dict[str, object]) -> None:
    made = payload(comparison([[0.1, 0.2], [0.3, 0.4]], [[True, False], [False, False]]))
    marks = {"uint8": "AQAAAA==", "factor": 1, "heads": 2}
    made["panels"][0]["significant"] = marks
    parse_payload(made)
    wrong = {name: value for name, value in (marks | change).items() if value is not None}
    made["panels"][0]["significant"] = wrong
    with pytest.raises(HeadnbError, match="significant"):
        parse_payload(made)
