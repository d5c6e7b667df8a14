"""Values of a row: their checks and conversions (text, integers, JSON), and their descriptions in errors."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from headnb.errors import HeadnbError

IGNORED = -100  # label of a token outside the answer
MAX_DEPTH = 50  # maximum number of levels of nested JSON


def describe_type(value: object) -> str:
    """A short description of a value's type, for errors."""
    if value is None:
        return "empty (None)"
    if isinstance(value, float) and math.isnan(value):
        return "empty (NaN)"
    if isinstance(value, Mapping):
        return f"a dict with {column_names(value)}"
    if isinstance(value, (list, tuple)):
        return f"{type_name(value)} of length {len(value)}"
    return type_name(value)


def type_name(value: object) -> str:
    """The name of a value's type with its article, for errors."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def column_names(row: Mapping[str, Any]) -> str:
    """The names of a row's columns, for errors."""
    return ", ".join(map(repr, row)) or "no names"


def check_text(text: str, where: str) -> None:
    """Raise HeadnbError if a text has an unpaired surrogate: a str may contain one, a file may not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HeadnbError(f"{where} contains an unpaired surrogate (position {error.start})") from error


def integers(values: Any, where: str) -> list[int]:
    """Convert a flat list, array or tensor of integers or booleans to a list of integers.

    Raises:
        HeadnbError: `values` is anything else.
    """
    if hasattr(values, "tolist"):  # an array or a tensor
        values = values.tolist()
    try:
        if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
            return [int(operator.index(value)) for value in values]  # `index` refuses floats and lists
    except TypeError:
        pass
    raise HeadnbError(f"{where} must be a flat list of integers")


def json_value(value: Any, where: str, depth: int = 0) -> Any:
    """Convert a value to JSON types: text, numbers, True, False, None, lists and dicts; arrays become lists.

    Raises:
        HeadnbError: a value of another type, keys that are not text, or more than `MAX_DEPTH` levels.
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
    raise HeadnbError(f"{where} contains {describe_type(value)}; only JSON values are supported")


def parse_json(text: str, where: str) -> Any:
    """Parse a JSON text in which no object has a duplicate key.

    Raises:
        HeadnbError: the text is not JSON, or has a duplicate key, of which Python would silently use the last value.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise HeadnbError(f"{where} has the key {key!r:.60} twice in one object")
            result[key] = value
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise HeadnbError(f"{where} is not JSON ({reason})") from error
