"""Payload parser: valid payloads are read, and invalid ones are a clear one-line error.

The files in tests/fixtures/payloads are shared with the front end's tests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import fastjsonschema
import jsonschema
import numpy as np
import pytest
from headnb.display.grid_text import panel_matrix
from headnb.display.payload_parser import parse_payload, read_payload
from headnb.errors import HeadnbError
from hypothesis import given
from hypothesis import strategies as st

import payload_changes
from paths import FIXTURES
from synthetic_results import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAYLOADS = FIXTURES / "payloads"
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
GENERATED = fastjsonschema.compile(SCHEMA, use_default=False)
KEYWORDS = {
    *(
        "anyOf",
        "type",
        "const",
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "maxLength",
        "pattern",
    ),
    *("items", "minItems", "maxItems", "uniqueItems"),
    *("required", "properties", "additionalProperties", "propertyNames", "maxProperties"),
    *("$ref", "$defs", "if", "then", "else", "default"),
    *("$schema", "$id", "title", "description"),
}
"""Keywords that both fastjsonschema (draft 7) and @exodus/schemasafe support."""


def fixtures(folder: str) -> list[object]:
    found = sorted((PAYLOADS / folder).glob("*.heads.json"))
    assert found
    return [pytest.param(path, id=path.name.removesuffix(".heads.json")) for path in found]


@pytest.mark.parametrize("path", fixtures("valid"))
def test_valid_file_is_read(path: Path) -> None:
    given_payload = json.loads(path.read_text(encoding="utf-8"))
    VALIDATOR.validate(given_payload)
    found = read_payload(path)
    for panel, given_panel in zip(found["panels"], given_payload["panels"], strict=True):
        values = given_panel["values"]
        numbers = values["numbers"] if isinstance(values, dict) else np.concatenate(values)
        np.testing.assert_array_equal(panel_matrix(panel).ravel(), np.array(numbers, dtype=float))
    VALIDATOR.validate(found)


@pytest.mark.parametrize("path", fixtures("invalid"))
def test_invalid_file_is_refused_by_schema_and_reader(path: Path) -> None:
    assert not VALIDATOR.is_valid(json.loads(path.read_text(encoding="utf-8")))
    with pytest.raises(HeadnbError):
        read_payload(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "not a head grid: it is a JSON array, not an object"),
        ('{"heads": 1, "kind": "level"}', "not a head grid: it has no version, units, layers, panels"),
        ('{"heads": ', "not a head grid: the text is not JSON"),
        ((PAYLOADS / "valid" / "minimal.heads.json").read_text().replace('"layers"', '"layer"'), "it has no layers"),
    ],
)
def test_a_file_that_is_not_a_head_grid_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(HeadnbError) as refused:
        read_payload(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)


@pytest.mark.parametrize("path", fixtures("invalid-beyond-schema"))
def test_invalid_file_that_the_schema_accepts_is_refused_by_the_reader(path: Path) -> None:
    with pytest.raises(HeadnbError) as refused:
        read_payload(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("change", payload_changes.recorded(), ids=payload_changes.name)
def test_schema_generated_validator_and_reader_answer_as_recorded(change: dict[str, object]) -> None:
    """The front end's tests compare its validator and reader with the same record."""
    found = payload_changes.changed(change)
    assert VALIDATOR.is_valid(found) == change["schema"]
    assert accepted(GENERATED, found) == change["schema"]
    assert accepted(parse_payload, found) == change["reader"]


def accepted(check: Callable[[object], object], found: object) -> bool:
    try:
        check(found)
    except (HeadnbError, fastjsonschema.JsonSchemaValueException):
        return False
    return True


def test_schema_has_only_keywords_that_all_validators_support() -> None:
    parts = [SCHEMA]
    for part in parts:
        assert part.keys() <= KEYWORDS
        assert "$ref" not in part or part.keys() <= {"$ref", "description", "default"}
        named = [one for name in ("properties", "$defs") for one in part.get(name, {}).values()]
        nested = [
            part[name]
            for name in ("items", "additionalProperties", "propertyNames", "if", "then", "else")
            if name in part
        ]
        parts += [*named, *nested]
    assert len(parts) > 60


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["values", "low", "step", "reliability"])
def test_numbers_that_json_does_not_have_are_refused(place: str, number: float) -> None:
    found = json.loads((PAYLOADS / "valid" / "minimal.heads.json").read_text(encoding="utf-8"))
    found["panels"][0][place] = [[number]] if place in {"values", "low"} else number
    with pytest.raises(HeadnbError, match="not JSON"):
        parse_payload(found)
    with pytest.raises(HeadnbError, match="not JSON"):
        read_payload(json.dumps(found))


def test_errors_name_the_invalid_field() -> None:
    minimal = json.loads((PAYLOADS / "valid" / "minimal.heads.json").read_text(encoding="utf-8"))
    minimal["panels"].append({"values": [[0.1, "0.2"]]})
    with pytest.raises(HeadnbError, match=r"panels\[1\]\.values\[0\]\[1\] must be number or null, got '0.2'"):
        parse_payload(minimal)
    with pytest.raises(HeadnbError, match="newer headnb"):
        parse_payload(minimal | {"version": 7})
    with pytest.raises(HeadnbError, match="did you mean 'level'"):
        parse_payload(minimal | {"kind": "levels"})


def test_defaults_are_filled_in_and_unknown_fields_dropped() -> None:
    found = read_payload(PAYLOADS / "valid" / "unknown-fields.heads.json")
    assert (found["kv_heads"], found["scale"], found["interval_level"]) == (2, {"low": 0, "high": 0.1}, 0.95)
    assert "colour" not in found
    assert "p_value" not in found["panels"][0]


def test_the_models_numbers_of_a_selection_are_read() -> None:
    found = read_payload(PAYLOADS / "valid" / "selection.heads.json")
    assert (found["layer_numbers"], found["head_numbers"]) == ([3, 4], [5, 1, 2])


def test_the_text_below_a_grid_is_computed_from_its_numbers_and_fits_into_a_payload() -> None:
    found = json.loads((PAYLOADS / "valid" / "minimal.heads.json").read_text(encoding="utf-8"))
    names = [letter * 2000 for letter in "abcdefghijklmnopqrst"]
    found["panels"][0] |= {
        "statistics": {name: {"value": 1} for name in names},
        "withheld": {name.upper(): name for name in names},
        "statistics_line": "Gini 1000",
        "cells": ["1000"],
    }
    read = parse_payload(found)
    assert VALIDATOR.is_valid(read)
    assert len(read["columns"]) == len(read["panels"][0]["cells"])
    assert "1000" not in json.dumps(read)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(HeadnbError, match="cannot read"):
        read_payload(tmp_path / "none.heads.json")
    with pytest.raises(HeadnbError, match="cannot read"):
        read_payload(tmp_path)


def test_bytes_that_are_not_utf8_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.heads.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HeadnbError, match="UTF-8"):
        read_payload(path)


def test_an_unpaired_surrogate_is_an_error_in_texts_and_in_names() -> None:
    for field in ({"title": "\ud800"}, {"panels": [{"values": [[1]], "statistics": {"\udfff": {"value": 1}}}]}):
        payload = {
            "version": 1,
            "kind": "level",
            "units": "nats",
            "layers": 1,
            "heads": 1,
            "panels": [{"values": [[1]]}],
        }
        with pytest.raises(HeadnbError, match="unpaired surrogate"):
            read_payload(json.dumps(payload | field))


def test_progress_is_read_as_it_was_written() -> None:
    found = json.loads((PAYLOADS / "valid" / "full.heads.json").read_text(encoding="utf-8"))
    found["progress"] = {"done": 3, "total": 8, "unit": "steps", "message": "tracked"}
    assert parse_payload(found)["progress"] == found["progress"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "low", "high"]), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(SCHEMA["properties"])) | st.sampled_from(sorted(SCHEMA["$defs"]["panel"]["properties"])),
    JSON_VALUES,
)
def test_reader_accepts_nothing_that_the_schema_refuses(name: str, value: object) -> None:
    found = json.loads((PAYLOADS / "valid" / "full.heads.json").read_text(encoding="utf-8"))
    (found if name in SCHEMA["properties"] and name != "title" else found["panels"][0])[name] = value
    try:
        read = parse_payload(found)
    except HeadnbError:
        return
    assert VALIDATOR.is_valid(read)
    assert VALIDATOR.is_valid(found)


@given(
    st.sampled_from(sorted(SCHEMA["properties"])) | st.sampled_from(sorted(SCHEMA["$defs"]["panel"]["properties"])),
    JSON_VALUES,
)
def test_generated_validator_accepts_what_the_schema_accepts(name: str, value: object) -> None:
    found = json.loads((PAYLOADS / "valid" / "full.heads.json").read_text(encoding="utf-8"))
    (found if name in SCHEMA["properties"] and name != "title" else found["panels"][0])[name] = value
    try:
        written = json.loads(json.dumps(found, allow_nan=False))
    except ValueError:
        return
    assert accepted(GENERATED, written) == VALIDATOR.is_valid(written)
