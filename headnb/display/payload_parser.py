"""Parser and validator of display payloads from untrusted sources: a file, a notebook, the network.

`pattern.schema.json` defines valid payloads, here and in the front end. This module adds the checks that a schema
cannot express, and checks with a more helpful error message than the schema's.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

import fastjsonschema
import numpy as np

from headnb.display.colours import shared_scale
from headnb.display.constants import DRAWING, KINDS, SCHEMA, VERSION
from headnb.display.footer import add_footer
from headnb.display.grid_text import panel_matrix
from headnb.errors import HeadnbError, printable, unknown_name
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headnb.display.colours import Kind
    from headnb.display.payload_types import Cells, Payload, Scale

_MATRICES = ("values", "low", "high", "significant", "q")


def read_payload(source: str | Path) -> Payload:
    """Read and validate a payload from a file, or from JSON text (a string that begins with a brace or a bracket).

    Returns a new payload with defaults filled in and unknown fields dropped. Raises HeadnbError with the name of the
    invalid field if the source is not a version 1 payload.
    """
    if isinstance(source, str) and source.lstrip()[:1] in {"{", "["}:
        return _of_json(lambda: source)
    path = user_path(source)
    text = _file_text(path)
    try:
        return _of_json(lambda: text)
    except HeadnbError as error:
        raise HeadnbError(f"{path}: {error}") from None


def parse_payload(source: object) -> Payload:
    """Validate every field of a payload given as Python objects: see `read_payload`."""
    return _of_json(lambda: json.dumps(source, allow_nan=False))


def _of_json(json_text: Callable[[], str]) -> Payload:
    try:
        found = json.loads(json_text(), parse_constant=_reject_constant, parse_float=_number)
    except (ValueError, TypeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise HeadnbError(f"not a head grid: the text is not JSON ({reason})") from None
    _check_version_and_kind(found)
    try:
        _validator()(found)
    except fastjsonschema.JsonSchemaValueException as error:
        raise HeadnbError(f"not a head grid: {_described(error)}") from None
    known: dict[str, Any] = _known(found, SCHEMA)
    payload = cast("Payload", known)
    _check_sizes(payload)
    shape = (payload["layers"], payload["heads"])
    for index, panel in enumerate(payload["panels"]):
        _check_matrices(panel, f"panels[{index}]", shape)
        if "change" in panel:
            _check_matrices(panel["change"], f"panels[{index}].change", shape)
    if "scale" not in known:
        shared = [panel_matrix(panel) for panel in payload["panels"] if "own" not in panel]
        low, high = shared_scale(np.array(shared), payload["kind"])
        known["scale"] = {"low": low, "high": high}
    for index, panel in enumerate(payload["panels"]):
        if "own" in panel:
            _check_scale(f"panels[{index}].own.scale", panel["own"]["scale"], panel["own"]["kind"])
    changes = [panel["change"] for panel in payload["panels"] if "change" in panel]
    if changes and "change_scale" not in known:
        low, high = shared_scale(np.array([panel_matrix(change) for change in changes]), "difference")
        known["change_scale"] = {"low": low, "high": high}
    _check_scale("scale", payload["scale"], payload["kind"])
    if "change_scale" in payload:
        _check_scale("change_scale", payload["change_scale"], "difference")
    _check_curves(payload)
    add_footer(payload)
    return payload


def _file_text(path: Path) -> str:
    try:
        if path.stat().st_size > DRAWING["largest_file"]:
            raise HeadnbError(f"{path} is larger than {DRAWING['largest_file'] // 2**20} MB, the limit of a head grid")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise HeadnbError(f"cannot read {str(path)!r:.300}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise HeadnbError(f"not a head grid: {path} is not UTF-8 text") from None
    except ValueError as error:
        raise HeadnbError(f"not a head grid: {str(path)!r:.60} is neither JSON nor a path ({error})") from None


def _reject_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a JSON number; a missing value is null")


def _number(digits: str) -> float:
    """Parse a JSON number; JSON has one number type, so that 3.0 is the integer 3."""
    number = float(digits)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


@cache
def _validator() -> Callable[[object], object]:
    return cast("Callable[[object], object]", fastjsonschema.compile(SCHEMA))


def _described(error: fastjsonschema.JsonSchemaValueException) -> str:
    """The invalid field and its fault, in one line."""
    where = printable((error.name or "").removeprefix("data").lstrip(".") or "payload")[:120]
    if error.rule == "propertyNames":
        return f"{where} has a name that is too long or contains an unpaired surrogate"
    if error.rule_definition == SCHEMA["$defs"]["text"]["pattern"]:
        return f"{where} contains an unpaired surrogate"
    return f"{where}{error.message.removeprefix(error.name or '')[:100]}, got {_abbreviate(error.value)}"


def _check_version_and_kind(found: object) -> None:
    if not isinstance(found, dict):
        raise HeadnbError(
            f"not a head grid: it is a JSON {'array' if isinstance(found, list) else 'value'}, not an object"
        )
    version, kind = found.get("version"), found.get("kind")
    if isinstance(version, int) and version > VERSION:
        raise HeadnbError(f"this head grid has version {version}, written by a newer headnb: pip install -U headnb")
    if isinstance(kind, str) and kind not in KINDS:
        raise unknown_name("kind", kind[:80], KINDS)
    if missing := [name for name in SCHEMA["required"] if name not in found]:
        raise HeadnbError(f"not a head grid: it has no {', '.join(missing)}")


def _known(found: Any, schema: dict[str, Any]) -> Any:
    """A validated value without the fields that the schema does not define."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "if" in schema:
        return _known(found, schema["then" if isinstance(found, dict) else "else"])
    if isinstance(found, dict):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties")
        return {
            name: _known(value, fields.get(name, others)) for name, value in found.items() if others or name in fields
        }
    if isinstance(found, list) and isinstance(found[0] if found else None, dict):
        return [_known(entry, schema["items"]) for entry in found]
    return found


def _check_sizes(payload: Payload) -> None:
    """Check the total number of cells and the numbers of key/value heads, layers and heads; set a default kv_heads."""
    layers, heads, panels = payload["layers"], payload["heads"], payload["panels"]
    compact = all(isinstance(panel["values"], dict) for panel in panels)
    most = DRAWING["most_compact_cells" if compact else "most_cells"]
    if layers * heads * len(panels) > most:
        raise HeadnbError(f"this head grid has {layers * heads * len(panels)} cells, but at most {most} are drawn")
    if heads % payload.setdefault("kv_heads", heads):
        raise HeadnbError(f"not a head grid: kv_heads must divide heads ({heads}), got {payload['kv_heads']}")
    for name, size in (("layer_numbers", layers), ("head_numbers", heads)):
        if len(payload.get(name, range(size))) != size:  # type: ignore[arg-type]
            raise HeadnbError(f"not a head grid: {name} must have {size} numbers")
    for index, role in enumerate(payload.get("roles", [])):
        if len(role["cells"]) != len(role["scores"]) or max(role["cells"], default=0) >= layers * heads:
            raise HeadnbError(f"not a head grid: roles[{index}] must have a score for each cell, and cells of the grid")


def _check_matrices(cells: Cells, where: str, shape: tuple[int, int]) -> None:
    for name in (name for name in _MATRICES if name in cells):
        try:
            numbers = panel_matrix(cells, name)
        except ValueError:  # rows of different lengths, or invalid base64
            numbers = np.empty(0)
        if numbers.shape != shape or np.isinf(numbers).any():
            raise HeadnbError(f"not a head grid: {where}.{name} must have {shape[0]} rows of {shape[1]} finite entries")
        if name == "significant" and not np.isin(numbers, (0, 1)).all():
            raise HeadnbError(f"not a head grid: {where}.{name} must be 0 or 1 for every head")


def _check_scale(name: str, scale: Scale, kind: Kind) -> None:
    low, high = scale["low"], scale["high"]
    lowest = low >= 0 if kind == "level" else low == -high
    if not (lowest and high - low >= DRAWING["smallest_scale"]):
        rule = f"at least 0 for levels, and -{name}.high for others"
        raise HeadnbError(f"not a head grid: {name}.low must be {rule}; got {low} to {high}")


def _check_curves(payload: Payload) -> None:
    for index, curve in enumerate(payload.get("curves", ())):
        steps = curve["steps"]
        if len(steps) != len(curve["values"]) or any(b <= a for a, b in itertools.pairwise(steps)):
            raise HeadnbError(f"not a head grid: curves[{index}] must have a value for each of its ascending steps")


def _abbreviate(found: object) -> str:
    """The first characters of a value of any type."""
    return "nothing" if found is None else repr(found)[:60]
