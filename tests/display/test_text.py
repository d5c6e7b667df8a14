"""Text below a grid, and the grid as text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from headnb.display.footer import add_footer
from headnb.display.grid_text import as_text, format_number, ranking, significance_line
from headnb.display.payload import payload
from headnb.display.payload_parser import read_payload

from paths import FIXTURES
from synthetic_results import comparison, pattern

WORDS = json.loads((FIXTURES / "words.json").read_text(encoding="utf-8"))
HOSTILE = FIXTURES / "payloads" / "valid" / "markup-in-every-text.heads.json"


@pytest.mark.parametrize(("facts", "expected"), WORDS["reliability"])
def test_line_on_reliability(facts: dict[str, float], expected: str) -> None:
    assert payload(pattern([[1.0, 2.0]], **facts))["panels"][0]["reliability_line"] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.01234, "0.0123"), (0.05, "0.0500"), (-0.4, "−0.400"), (2.1e-7, "2.10e-7"), (123.4, "123"), (0, "0")],
)
def test_number(value: float, expected: str) -> None:
    assert format_number(value) == expected


def test_ranking_is_by_size_and_skips_missing_heads() -> None:
    panel = payload(pattern([[0.1, np.nan], [-0.5, 0.3]], kind="signed"))["panels"][0]
    assert ranking(panel) == [(1, 0), (1, 1), (0, 0)]


def statistics_line(**fields: object) -> str:
    made = payload(pattern([[1.0, 2.0]]))
    made["panels"][0] |= fields  # type: ignore[typeddict-item]
    add_footer(made)
    return made["panels"][0]["statistics_line"]


def test_statistics_line_shows_intervals_where_known() -> None:
    found = {"cv": {"value": 0.62}, "gini": {"value": 0.341, "low": 0.32, "high": 0.36}}
    assert statistics_line(statistics=found) == "Gini 0.341 [0.320, 0.360] · CV 0.620"


@pytest.mark.parametrize(("found", "expected"), WORDS["statistics"])
def test_statistics_have_the_digits_that_their_interval_carries(found: dict[str, float], expected: str) -> None:
    assert statistics_line(statistics={"gini": found}) == f"Gini {expected}"


def test_a_statistic_that_is_withheld_has_a_reason() -> None:
    found = statistics_line(statistics={"cv": {"value": 0.62}}, withheld={"kurtosis": "needs more samples"})
    assert found == "CV 0.620 · excess kurtosis needs more samples"


def test_panels_are_compared_in_a_table_with_a_column_for_runs_where_some_panel_has_several() -> None:
    one = pattern([[0.1, 0.4]], samples=9, reliability=-0.1)
    found = payload({"one": one, "two": pattern([[0.1, np.nan]])})
    labels = ["Gini", "CV", "excess kurtosis", "top head", "samples", "reliability", "samples for 0.90"]
    assert [column["label"] for column in found["columns"]] == labels
    assert all(column["help"] for column in found["columns"])
    assert found["panels"][0]["cells"] == ["0.300", "0.600", "−2.00", "L0H1", "9", "−0.10", "–"]  # by hand
    several = payload({"one": one, "three": pattern([[0.1, 0.4]], samples=9, runs=3)})
    assert [column["label"] for column in several["columns"]][4:6] == ["samples", "runs"]
    assert [panel["cells"][5] for panel in several["panels"]] == ["–", "3"]


def test_significance_line_counts_heads() -> None:
    made = payload(comparison([[0.01, 0.0, np.nan]], [[True, False, False]]))
    assert significance_line(made, made["panels"][0]) == "1 of 2 heads changed significantly (q < 0.05)."


def test_text_names_top_heads_statistics_and_reliability() -> None:
    facts = {"samples": 32, "reliability": 0.87, "samples_for_090": 60}
    lines = as_text(payload(pattern([[0.1, 0.4], [0.2, 0.3]], **facts))).splitlines()
    assert lines[0] == "smollm2-135m · gsm8k"
    assert lines[1].startswith("activation level (nats), 2 layers × 2 heads")
    assert lines[2] == "Top heads: L0H1 0.400 · L1H1 0.300 · L1H0 0.200 · L0H0 0.100"
    assert lines[3].startswith("Gini 0.250")  # by hand: sum |xi - xj| / (2 n^2 mean) = 2 / 8
    assert lines[4] == "Reliability 0.87 (32 samples); about 60 samples give 0.90"


def test_heat_map_has_one_line_per_layer_and_one_character_per_head() -> None:
    lines = as_text(payload(pattern([[0.0, 0.4], [np.nan, 0.2]])), heat_map=True).splitlines()
    assert "layer   0 ▁█" in lines
    assert "layer   1  ▅" in lines  # half of seven steps is 3.5, which rounds to 4


def test_colour_heat_map_puts_two_layers_on_a_line() -> None:
    text = as_text(payload(pattern([[0.0, 0.4]] * 5)), heat_map=True, colour=True)
    assert sum(line.startswith("layer") for line in text.splitlines()) == 3
    assert "\x1b[38;2;253;231;37m" in text  # the end of viridis


def test_text_has_no_control_characters_of_the_data() -> None:
    text = as_text(read_payload(HOSTILE), heat_map=True)
    assert "\x1b" not in text
    assert "<script>alert(1)</script>" in text
