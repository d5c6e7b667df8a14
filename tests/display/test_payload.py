"""Display payload: its content matches the arrays, and its form matches the schema."""

from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest
import xarray as xr
from headnb.display import grid_text, html
from headnb.display.grid_text import panel_matrix, shown_panels
from headnb.display.payload import payload
from headnb.display.payload_parser import parse_payload, read_payload
from headnb.errors import HeadnbError
from headnb.stats.paired import compare

from synthetic_results import SCHEMA, comparison, pattern, random_pattern, scores

CASES = {
    "pattern": random_pattern(4, 6, kv_heads=2, samples=32, reliability=0.87, samples_for_090=43),
    "pattern without evidence": random_pattern(1, 1, samples=2, reliability=float("nan"), samples_for_090=-1),
    "layers without heads": pattern([[0.1, 0.2], [np.nan, np.nan]]),
    "nothing but missing": pattern([[np.nan, np.nan]]),
    "all zero": pattern([[0, 0]]),
    "signed": pattern([[0.1, -0.2]], kind="signed", method="ablate-zero"),
    "comparison": comparison([[0.01, -0.02]], [[True, False]]),
    "scores": scores(8),
    "one sample": scores(1),
    "mapping": {"gsm8k": random_pattern(2, 3), "mbpp": random_pattern(2, 3, seed=1)},
    "a selection": random_pattern(8, 6).isel(layer=slice(3, 5), head=[5, 1, 2]),
    "steps": xr.concat([random_pattern(2, 3, s) for s in range(3)], xr.IndexVariable("step", [0, 5, 10])),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES)
def test_payload_follows_the_schema_and_is_read_back_unchanged(data: object) -> None:
    made = payload(data)
    written = json.dumps(made, allow_nan=False)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(written))
    assert read_payload(written) == made


def test_the_schema_is_valid_under_its_own_json_schema_version() -> None:
    version = jsonschema.Draft202012Validator
    assert SCHEMA["$schema"] == version.META_SCHEMA["$id"]
    assert version(version.META_SCHEMA).is_valid(SCHEMA)


def test_values_keep_four_digits_and_missing_heads_are_null() -> None:
    panel = payload(pattern([[0.123456, 1.00004], [np.nan, 2.34567e-7]]))["panels"][0]
    assert panel["values"] == [[0.1235, 1.0], [None, 2.346e-7]]


def test_intervals_and_marks_of_a_comparison() -> None:
    made = payload(comparison([[0.0104, np.nan]], [[True, False]]))
    panel = made["panels"][0]
    assert panel["low"] == [[0.0094, None]]
    assert panel["high"] == [[0.0114, None]]
    assert panel["significant"] == [[1, 0]]
    assert (made["kind"], made["quantity"], made["alpha"]) == ("difference", "change in activation level", 0.05)
    assert panel["statistics"] == {}, "a Gini coefficient of differences would be an error"


def test_statistics_of_scores_are_bias_corrected_with_intervals() -> None:
    data = scores(40, 6, 5)
    found = payload(data)["panels"][0]["statistics"]["gini"]
    expected = data.heads.gini()
    assert [found[end] for end in ("value", "low", "high")] == pytest.approx(
        [expected.value, expected.low, expected.high], rel=1e-3
    )


def test_statistics_of_too_few_samples_are_withheld() -> None:
    panel = payload(scores(3))["panels"][0]
    assert panel["statistics"] == {}
    assert (panel["samples"], panel["reliability"], panel["samples_for_090"]) == (3, None, None)


def test_leading_dims_become_panels_in_order() -> None:
    study = xr.concat([pattern([[1.0, 2.0]]), pattern([[3.0, 4.0]])], xr.IndexVariable("step", [0, 20]))
    made = payload(study)
    assert [panel["title"] for panel in made["panels"]] == ["step 0", "step 20"]
    assert [panel["values"] for panel in made["panels"]] == [[[1.0, 2.0]], [[3.0, 4.0]]]
    assert made["dimension"] == "step"
    assert made["scale"] == {"low": 0, "high": 4}


def test_a_study_of_tasks_along_steps_has_courses_with_compact_values() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(-4, 1, (20, 3, 30, 16))
    values[:, :, 7, 3] = np.nan
    study = xr.DataArray(
        values,
        dims=("step", "task", "layer", "head"),
        coords={"step": np.arange(20) * 10, "task": ["a", "b", "c"]},
        attrs={"kind": "level", "units": "nats"},
    )
    for data in (study, xr.Dataset({"level": study})):
        made = payload(data)
        assert parse_payload(json.loads(json.dumps(made))) == made
        panel = made["panels"][3 * 7 + 1]
        assert (panel["step"], panel["course"], panel["title"]) == (70, "b", "step 70 · b")
        np.testing.assert_allclose(panel_matrix(panel), values[7, 1], rtol=5e-4)
        assert panel["statistics"]["gini"]["value"] == pytest.approx(float(study[7, 1].heads.gini()), rel=1e-3)
        assert len(json.dumps(made)) < 4 * values.size
    panels, _ = shown_panels(made)
    assert [(panel["step"], panel["course"]) for panel in panels[:3]] == [(0, "a"), (0, "b"), (0, "c")]
    assert [panel["step"] for panel in panels[-3:]] == [190, 190, 190]


def test_two_leading_dims_name_each_panel_by_both() -> None:
    study = xr.concat([random_pattern(1, 2), random_pattern(1, 2)], xr.IndexVariable("stage", ["before", "after"]))
    study = study.expand_dims(task=["gsm8k"])
    assert [panel["title"] for panel in payload(study)["panels"]] == ["gsm8k · before", "gsm8k · after"]


def test_attributes_that_differ_between_panels_are_read_from_coordinates() -> None:
    study = xr.concat([pattern([[1.0, 2.0]]), pattern([[3.0, 4.0]])], xr.IndexVariable("task", ["gsm8k", "mbpp"]))
    study = study.assign_coords(samples=("task", [32, 64]), reliability=("task", [0.8, 0.9]))
    panels = payload(study)["panels"]
    assert [(panel["samples"], panel["reliability"]) for panel in panels] == [(32, 0.8), (64, 0.9)]


def test_a_title_has_the_model_and_task_that_all_panels_share() -> None:
    assert payload(random_pattern(1, 2))["title"] == "smollm2-135m · gsm8k"
    two = {"a": random_pattern(1, 2), "b": random_pattern(1, 2, task="mbpp")}
    assert payload(two)["title"] == "smollm2-135m"
    assert payload(comparison([[0.1]], [[True]], model_before="base"))["title"] == "base → smollm2-135m · gsm8k"


def test_texts_that_differ_between_panels_are_empty() -> None:
    one = random_pattern(1, 2)
    other = random_pattern(1, 2, method="taylor-token", loss_reduction="sum").rename("taylor-token")
    made = payload({"a": one, "b": other})
    assert (made["method"], made["loss_reduction"], made["quantity"]) == ("", "", "score")
    assert "activation" not in html.card(made)
    assert payload({"a": random_pattern(1, 4, kv_heads=2), "b": random_pattern(1, 4)})["kv_heads"] == 4
    made = payload({"a": comparison([[0.1]], [[True]]), "b": comparison([[0.1]], [[True]], alpha=0.2)})
    assert made["alpha"] is None
    assert payload({"a": comparison([[0.1]], [[True]]), "b": comparison([[0.1]], [[True]])})["alpha"] == 0.05


@pytest.mark.parametrize(
    ("values", "kind", "low", "high"),
    [
        ([[0.1, 0.4]], "level", 0, 0.4),
        ([[0.1, -0.4]], "signed", -0.4, 0.4),
        ([[0, 0]], "level", 0, 1),
        ([[np.nan, np.nan]], "difference", -1, 1),
        ([[0.12341, 0.1]], "level", 0, 0.124),
        ([[1e-40, 1e-42]], "level", 0, 1e-40),
    ],
)
def test_scale_includes_zero_and_the_largest_value(values: object, kind: str, low: float, high: float) -> None:
    assert payload(pattern(values, kind=kind))["scale"] == {"low": low, "high": high}


def test_a_single_outlier_does_not_determine_the_scale() -> None:
    values = np.linspace(0.5, 1, 270)
    values[17] = 25.0  # numpy's 99.5th percentile of 270 values is between the second and the third largest
    high = payload(pattern(values.reshape(30, 9)))["scale"]["high"]
    assert 0.99 < high < 1.01


def test_a_large_grid_stays_under_300_kb() -> None:
    written = json.dumps(payload(random_pattern(126, 128)), separators=(",", ":"))
    assert len(written) < 300_000


def test_partial_excluded_and_truncated_samples_are_noted() -> None:
    notes = payload(scores(8, complete=0, samples_requested=32, left_out=2, truncated=1))["panels"][0]["notes"]
    assert notes == [
        "Stopped early: 8 of 32 samples are scored.",
        "Excluded: 2 sample(s) without an answer token after truncation.",
        "Truncated: 1 sample(s).",
    ]


def test_key_value_heads_that_do_not_divide_the_heads_are_not_drawn_as_groups() -> None:
    assert payload(random_pattern(2, 6, kv_heads=4))["kv_heads"] == 6


def test_a_selection_keeps_the_models_numbers_of_layers_and_heads() -> None:
    made = payload(random_pattern(8, 6, kv_heads=3).isel(layer=slice(3, 5), head=[5, 1, 2]))
    assert (made["layer_numbers"], made["head_numbers"]) == ([3, 4], [5, 1, 2])
    assert made["kv_heads"] == made["heads"] == 3, "which of them share a key/value head is not known"
    made = payload(random_pattern(8, 6, kv_heads=3).isel(layer=slice(3, 5)))
    assert "head_numbers" not in made
    assert made["kv_heads"] == 3
    assert not {"layer_numbers", "head_numbers"} & set(payload(random_pattern(8, 6)))


def test_heads_of_a_selection_have_the_models_names() -> None:
    data = pattern(np.arange(24.0).reshape(6, 4)).isel(layer=slice(3, 6))
    data[1] = np.nan
    made = payload(data)
    (panel,) = made["panels"]
    assert grid_text.top_line(made, panel, 2) == "Top heads: L5H3 23.0 · L5H2 22.0"
    assert grid_text.missing_line(made).startswith("Layer 4 is hatched")
    assert "layer   5 " in grid_text.as_text(made, heat_map=True)
    drawn = html.page(made)
    for words in ("<title>L5H3 ", "<title>layer 4: no softmax heads", ">5</text>"):
        assert words in drawn
    assert "L2H3" not in drawn
    assert "<td>L5H3" in re.sub("<td[^>]*>", "<td>", html.card(payload({"a": data, "b": data})))


def test_heads_of_a_comparison_of_selections_have_the_models_names() -> None:
    before = scores(8, layers=6)
    after = before.copy(deep=True)
    after["score"][:, 4, 2] *= 9
    change = compare(before.sel(layer=slice(3, 5)), after.sel(layer=slice(3, 5)))
    assert "Largest changes: L4H2 " in repr(change.heads.grid())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": random_pattern(4, 2)[:2], "b": random_pattern(4, 2)[2:]}, "same layers"),
        (random_pattern(2, 2).isel(layer=[1, 1]), "unique layer numbers"),
        (3, "got int"),
        ({}, "nothing to show"),
        (xr.Dataset({"other": 1}), "got Dataset"),
        (xr.DataArray([1.0], dims="layer"), "layer and head"),
        (pattern([[1.0]], kind="levels"), "kind must be one of level, signed, difference"),
        ({"a": pattern([[1.0]]), "b": pattern([[1.0, 2.0]])}, "same layers x heads"),
        ({"a": pattern([[1.0]]), "b": pattern([[1.0]], kind="signed")}, "same kind"),
        ({"a": pattern([[1.0]]), "b": pattern([[1.0]], units="share")}, "same units"),
        (
            {"a": comparison([[1.0]], [[1]]), "b": comparison([[1.0]], [[1]], interval_level=0.8)},
            "same interval level, got",
        ),
    ],
)
def test_data_that_is_not_a_head_grid_is_a_clear_error(data: object, message: str) -> None:
    with pytest.raises(HeadnbError, match=message):
        payload(data)
