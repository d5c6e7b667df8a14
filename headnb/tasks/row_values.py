"""Single values of a row: what they are called in errors, and which of them are text, whole numbers or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headnb.errors import HeadnbError

IGNORED = -100  # the label of a token that is not part of the answer
MAX_DEPTH = 50  # levels of nested JSON


def describe_type(value: object) -> str:
    """What a value is, for errors."""
    if value is None:
        return "empty (None)"
    if isinstance(value, Mapping):
        return f"a dict with {column_names(value)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def column_names(row: Mapping[str, Any]) -> str:
    """The names of a row's columns, for errors."""
    return ", ".join(map(repr, row)) or "no names"


def check_text(text: str, where: str) -> None:
    """Half a character pair can be in a str, but not in a file: raise HeadnbError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HeadnbError(f"{where} holds half of a character pair (position {error.start})") from error


def integers(values: Any, where: str) -> list[int]:
    """A flat list, array or tensor of whole numbers (or of True and False) as a list.

    Raises:
        HeadnbError: anything else.
    """
    if hasattr(values, "tolist"):  # an array or a tensor
        values = values.tolist()
    if not isinstance(values, Sequence) or not set(map(type, values)) <= {int, bool}:
        raise HeadnbError(f"{where} must be a flat list of integers")
    return [int(value) for value in values]


def json_value(value: Any, where: str, depth: int = 0) -> Any:
    """A value as JSON has it: text, numbers, True, False, None, lists and dicts; arrays become lists.

    Raises:
        HeadnbError: something else, keys that are not text, or more than `MAX_DEPTH` levels.
    """
    if depth > MAX_DEPTH:
        raise HeadnbError(f"{where} is nested more than {MAX_DEPTH} levels deep")
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str):
        check_text(value, where)
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [json_value(part, where, depth + 1) for part in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key in value:
            check_text(key, where)
        return {str(key): json_value(part, where, depth + 1) for key, part in value.items()}
    raise HeadnbError(f"{where} holds {describe_type(value)}; it may hold what JSON has")


def parse_json(text: str, where: str) -> Any:
    """A JSON text in which no object has a key twice.

    Raises:
        HeadnbError: it is not JSON, or an object has a key twice, of which Python would silently take the last.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise HeadnbError(f"{where} has the key {key!r:.60} twice in one object")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise HeadnbError(f"{where} is not JSON ({reason})") from error
