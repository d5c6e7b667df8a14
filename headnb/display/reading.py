"""Reading a display payload that came from somewhere else: a file, a notebook, the network.

Nothing in it is believed. The checks are those of `pattern.schema.json`, written out so that the core install needs
no schema library and each error can say what is wrong where, and the ones that a schema cannot express.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from headnb.display.colours import shared_scale
from headnb.display.compact import Compact, expanded
from headnb.display.evidence import COUNTS
from headnb.display.payload import KINDS, LARGEST_SIDE, VERSION, Payload
from headnb.display.text import values_of
from headnb.errors import HeadnbError, unknown_name
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGEST_FILE = 64 * 2**20
MOST_CELLS = 500_000
MOST_COMPACT_CELLS = 4_000_000
MOST_PANELS = 4096
MOST_NOTES = 20
LONGEST_TEXT = 2000
LARGEST_NUMBER = 1e100
LARGEST_FACTOR = 1e95  # a half is at most 65504
SMALLEST_SCALE = 1e-100
_TEXTS = ("title", "model", "task", "method", "loss_reduction", "quantity", "dimension")


def read_payload(source: str | Path) -> Payload:
    """Read a payload from a file, or from JSON text (a string that begins with a brace), and check it.

    Returns a new payload with defaults filled in and unknown fields dropped. Raises HeadnbError, naming the field,
    for anything that is not a version 1 payload.
    """
    text = source if isinstance(source, str) and source.lstrip()[:1] in {"{", "["} else _file_text(user_path(source))
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise HeadnbError(f"not a head grid: the text is not JSON ({reason})") from None
    return checked(found)


def checked(found: object) -> Payload:
    """A payload of which every field has been checked: see `read_payload`."""
    top = _mapping(found, "payload")
    version = top.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise HeadnbError(f"this head grid has version {version}, written by a newer headnb: pip install -U headnb")
    if version != VERSION or isinstance(version, bool):
        raise HeadnbError(f"not a head grid: expected version {VERSION}, got {_shown(version)}")
    kind = top.get("kind")
    if not isinstance(kind, str):
        raise HeadnbError(f"not a head grid: kind must be one of {', '.join(KINDS)}, got {_shown(kind)}")
    if kind not in KINDS:
        raise unknown_name("kind", kind[:80], KINDS)
    layers, heads = (_whole(top.get(name), name, 1, LARGEST_SIDE) for name in ("layers", "heads"))
    panels = _sequence(top.get("panels"), "panels", MOST_PANELS)
    if not panels:
        raise HeadnbError("not a head grid: panels is empty")
    most = MOST_COMPACT_CELLS if all(_is_compact(panel) for panel in panels) else MOST_CELLS
    if layers * heads * len(panels) > most:
        raise HeadnbError(f"this head grid has {layers * heads * len(panels)} cells; at most {most} are drawn")
    kv_heads = _whole(top.get("kv_heads", heads), "kv_heads", 1, heads)
    if heads % kv_heads:
        raise HeadnbError(f"not a head grid: kv_heads must divide heads ({heads}), got {kv_heads}")
    result: dict[str, Any] = {name: _text(top.get(name, ""), name) for name in _TEXTS}
    result |= {"version": VERSION, "kind": kind, "units": _text(top.get("units"), "units")}
    result |= {"layers": layers, "heads": heads, "kv_heads": kv_heads}
    result |= {
        name: _numbers(top[name], name, size)
        for name, size in (("layer_numbers", layers), ("head_numbers", heads))
        if name in top
    }
    result["alpha"] = _share(top.get("alpha"), "alpha")
    level = _number(top.get("interval_level", 0.95), "interval_level")
    result["interval_level"] = _share(level, "interval_level")
    result["panels"] = [_panel(panel, f"panels[{i}]", (layers, heads)) for i, panel in enumerate(panels)]
    result["scale"] = _scale(top["scale"], kind) if "scale" in top else _default_scale(result)
    if "progress" in top:
        result["progress"] = _progress(top["progress"])
    return cast("Payload", result)


def _file_text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise HeadnbError(f"{path} is larger than {LARGEST_FILE // 2**20} MB: no head grid is")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise HeadnbError(f"cannot read {str(path)!r:.300}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise HeadnbError(f"not a head grid: {path} is not UTF-8 text") from None
    except ValueError as error:
        raise HeadnbError(f"not a head grid: {str(path)!r:.60} is neither JSON nor a path ({error})") from None


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a JSON number; a missing value is null")


def _panel(found: object, where: str, shape: tuple[int, int]) -> dict[str, Any]:
    given = _mapping(found, where)
    panel: dict[str, Any] = {
        "title": _text(given.get("title", ""), f"{where}.title"),
        "values": _compact(given["values"], f"{where}.values", shape)
        if _is_compact(given)
        else _matrix(given.get("values"), f"{where}.values", shape, _number_or_none),
        **{name: _count(given.get(name), f"{where}.{name}") for name in COUNTS},
        "reliability": _reliability(given.get("reliability"), f"{where}.reliability"),
    }
    if "step" in given:
        panel["step"] = _number(given["step"], f"{where}.step")
    if "course" in given:
        panel["course"] = _text(given["course"], f"{where}.course")
    for name in ("low", "high"):
        if name in given:
            panel[name] = _matrix(given[name], f"{where}.{name}", shape, _number_or_none)
    if "significant" in given:
        panel["significant"] = _matrix(given["significant"], f"{where}.significant", shape, _mark)
    statistics = _mapping(given.get("statistics", {}), f"{where}.statistics")
    if len(statistics) > MOST_NOTES:
        raise HeadnbError(f"not a head grid: {where}.statistics has more than {MOST_NOTES} entries")
    panel["statistics"] = {
        _text(name, f"a name in {where}.statistics"): _statistic(value, f"{where}.statistics.{name[:40]}")
        for name, value in statistics.items()
    }
    if "withheld" in given:
        panel["withheld"] = _withheld(_mapping(given["withheld"], f"{where}.withheld"), f"{where}.withheld")
    notes = _sequence(given.get("notes", []), f"{where}.notes", MOST_NOTES)
    panel["notes"] = [_text(note, f"{where}.notes") for note in notes]
    return panel


def _numbers(found: object, where: str, size: int) -> list[int]:
    numbers = [_whole(number, where, 0, LARGEST_SIDE - 1) for number in _sequence(found, where, LARGEST_SIDE)]
    if len(numbers) != size or len(set(numbers)) != size:
        raise HeadnbError(f"not a head grid: {where} must have {size} numbers, none of them twice")
    return numbers


def _is_compact(panel: object) -> bool:
    return isinstance(panel, dict) and isinstance(panel.get("values"), dict)


def _compact(found: dict[str, Any], where: str, shape: tuple[int, int]) -> Compact:
    text, factor = found.get("float16"), _number(found.get("factor"), f"{where}.factor")
    if not isinstance(text, str) or factor <= 0 or factor > LARGEST_FACTOR:
        raise HeadnbError(f"not a head grid: {where} has half-precision numbers as base64, and a factor above 0")
    values: Compact = {"float16": text, "factor": factor, "heads": shape[1]}
    try:
        numbers = expanded(values)
    except ValueError as error:
        raise HeadnbError(f"not a head grid: {where} is not base64 of whole layers ({error})") from None
    if found.get("heads") != shape[1] or numbers.shape != shape:
        raise HeadnbError(f"not a head grid: {where} must have {shape[0]} rows of {shape[1]} entries")
    if np.isinf(numbers).any():
        raise HeadnbError(f"not a head grid: {where} has an infinite value")
    return values


def _matrix(
    found: object, where: str, shape: tuple[int, int], entry: Callable[[object, str], float | None]
) -> list[list[float | None]]:
    rows = _sequence(found, where, LARGEST_SIDE)
    widths = {len(row) if isinstance(row, list) else -1 for row in rows}
    if len(rows) != shape[0] or widths != {shape[1]}:
        raise HeadnbError(f"not a head grid: {where} must have {shape[0]} rows of {shape[1]} entries")
    return [[entry(value, where) for value in row] for row in rows]


def _default_scale(payload: dict[str, Any]) -> dict[str, float]:
    values = np.array([values_of(panel) for panel in payload["panels"]])
    low, high = shared_scale(values, payload["kind"])
    return {"low": low, "high": high}


def _scale(found: object, kind: str) -> dict[str, float]:
    given = _mapping(found, "scale")
    low, high = (_number(given.get(name), f"scale.{name}") for name in ("low", "high"))
    lowest = low >= 0 if kind == "level" else low == -high
    if not (lowest and high - low >= SMALLEST_SCALE):
        raise HeadnbError(
            f"not a head grid: scale goes from {low} to {high}; levels start at 0 or above, others at -high"
        )
    return {"low": low, "high": high}


def _statistic(found: object, where: str) -> dict[str, float]:
    given = _mapping(found, where)
    names = ["value", *(name for name in ("low", "high") if name in given)]
    return {name: _number(given.get(name), where) for name in names}


def _withheld(given: dict[str, Any], where: str) -> dict[str, str]:
    if len(given) > MOST_NOTES:
        raise HeadnbError(f"not a head grid: {where} has more than {MOST_NOTES} entries")
    return {_text(name, f"a name in {where}"): _text(reason, f"{where}.{name[:40]}") for name, reason in given.items()}


def _progress(found: object) -> dict[str, Any]:
    given = _mapping(found, "progress")
    done, total = (_whole(given.get(name), f"progress.{name}", 0, 2**53) for name in ("done", "total"))
    unit = {"unit": _text(given["unit"], "progress.unit")} if "unit" in given else {}
    return {"done": done, "total": total, **unit, "message": _text(given.get("message", ""), "progress.message")}


def _mapping(found: object, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise HeadnbError(f"not a head grid: {where} must be an object, got {_shown(found)}")
    return found


def _sequence(found: object, where: str, most: int) -> list[Any]:
    if not isinstance(found, list):
        raise HeadnbError(f"not a head grid: {where} must be a list, got {_shown(found)}")
    if len(found) > most:
        raise HeadnbError(f"not a head grid: {where} has {len(found)} entries, at most {most} are allowed")
    return found


def _text(found: object, where: str) -> str:
    if not isinstance(found, str) or len(found) > LONGEST_TEXT:
        raise HeadnbError(f"not a head grid: {where} must be text of at most {LONGEST_TEXT} characters")
    if any("\ud800" <= letter <= "\udfff" for letter in found):
        raise HeadnbError(f"not a head grid: {where} holds half of a character pair")
    return found


def _number(found: object, where: str) -> float:
    if isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) <= LARGEST_NUMBER:
        return float(found)
    raise HeadnbError(f"not a head grid: {where} must be a number, got {_shown(found)}")


def _number_or_none(found: object, where: str) -> float | None:
    return None if found is None else _number(found, where)


def _mark(found: object, where: str) -> int:
    return _whole(found, where, 0, 1)


def _reliability(found: object, where: str) -> float | None:
    number = _number_or_none(found, where)
    if number is not None and number > 1:
        raise HeadnbError(f"not a head grid: {where} must be at most 1, got {number}")
    return number


def _share(found: object, where: str) -> float | None:
    number = _number_or_none(found, where)
    if number is not None and not 0 < number < 1:
        raise HeadnbError(f"not a head grid: {where} must be between 0 and 1, got {number}")
    return number


def _whole(found: object, where: str, least: int, most: int) -> int:
    number = _number(found, where)
    if not math.isfinite(number) or number != int(number) or not least <= number <= most:
        raise HeadnbError(f"not a head grid: {where} must be a whole number from {least} to {most}")
    return int(number)


def _count(found: object, where: str) -> int | None:
    return None if found is None else _whole(found, where, 0, 2**53)


def _shown(found: object) -> str:
    """A few characters of something that may be anything."""
    return "nothing" if found is None else repr(found)[:60]
