"""Payloads of head grids made by a stranger: markup in every text, wrong types in every field, extreme sizes."""

from __future__ import annotations

import copy
import itertools
import json
from typing import TYPE_CHECKING, Any

from hostile_names import NAMES
from paths import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = "http://stranger.example/x"  # any request to it fails a test
TEXTS = [
    *NAMES,
    f"<img src={ADDRESS}>",
    f"<link rel=stylesheet href={ADDRESS}><script src={ADDRESS}></script>",
    f"<meta http-equiv=refresh content='0;url={ADDRESS}'>",
    f"<form action={ADDRESS}><input type=submit autofocus></form>",
    f"<base href={ADDRESS}><a ping={ADDRESS} href={ADDRESS}>x</a>",
    f"url({ADDRESS})",
    f"red;background:url({ADDRESS})",
    f"@import '{ADDRESS}';*{{display:none}}",
    f"expression(window.ran=1);behavior:url({ADDRESS})",
    "javascript:window.ran=1",
    "data:text/html,<script>parent.ran=1</script>",
    "__proto__",
    "constructor",
    "\u202e\u2066\u2067\u2068" * 200,
    "e" + "\u0301" * 1999,
    "x" * 2000,
    "\ufdfd" * 2000,
    "\x00\x01\x7f\x80\ufffe\uffff",
    "\n" * 2000,
]
NOT_TEXT = {"kind", "float16"}  # strings with a fixed set of values
_DEEP: list[Any] = []
for _ in range(300):  # deeper lists are refused by Jupyter itself
    _DEEP = [_DEEP]
WRONG = [
    None,
    True,
    -1,
    0.5,
    1e300,
    10**30,
    "<img src=x onerror=window.ran=1>",
    [],
    _DEEP,
    {},
    {"__proto__": {"ran": 1}, "constructor": {"prototype": {"ran": 1}}},
    {"toString": 1, "valueOf": 1, "length": 10**9},
]


def template() -> dict[str, Any]:
    """A valid payload with two panels and every field of the schema that the fixtures have."""
    path = FIXTURES / "payloads" / "valid"
    whole = json.loads((path / "full.heads.json").read_text(encoding="utf-8"))
    whole |= {"dimension": "task", "columns": [{"label": "a", "help": "b"}]}
    whole["progress"] = {"done": 1, "total": 2, "unit": "samples", "message": "m"}
    panel = whole["panels"][0] | {"course": "c", "step": 1, "statistics_line": "s", "reliability_line": "r"}
    panel |= {"cells": ["1"], "withheld": {"cv": "reason"}, "significant": [[0, 1, 0, 1]] * 3, "runs": 2}
    return whole | {"panels": [panel, panel | {"title": "other", "course": "d"}]}


def with_text(value: Any, *texts: str) -> Any:
    """The value with every text, and every free key, replaced by these texts in turn."""
    return _with_texts(value, itertools.cycle(texts))


def _with_texts(value: Any, texts: Iterator[str], key: str = "") -> Any:
    if isinstance(value, dict):
        free = key in {"statistics", "withheld"}
        return {next(texts) if free else name: _with_texts(part, texts, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_texts(part, texts, key) for part in value]
    return next(texts) if isinstance(value, str) and key not in NOT_TEXT else value


def with_texts() -> list[dict[str, Any]]:
    """One payload for each hostile text."""
    return [with_text(template(), text) for text in TEXTS]


def with_mixed_texts() -> list[dict[str, Any]]:
    """Payloads with all hostile texts in different fields, a fifth as many as texts."""
    return [with_text(template(), *TEXTS[first:], *TEXTS[:first]) for first in range(0, len(TEXTS), 5)]


def with_wrong_values() -> Iterator[dict[str, Any]]:
    """The template with one value replaced: each value of `WRONG` at each field; also in place of the whole."""
    for wrong in WRONG:
        for path in _paths(template()):
            changed = template()
            at = changed
            for name in path[:-1]:
                at = at[name]
            at[path[-1]] = copy.deepcopy(wrong)
            yield changed


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all fields; of a list, only of its first entry."""
    named = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, part in named:
        yield (*above, name)
        yield from _paths(part, (*above, name))


def extreme() -> list[Any]:
    """Payloads that declare or have more than a page can draw, and values that are not payloads."""
    small = {"version": 1, "kind": "level", "units": "", "layers": 1, "heads": 1, "panels": [{"values": [[1]]}]}
    wide = {"float16": "ADwAPA==", "factor": 1, "heads": 2}
    return [
        small | {"layers": 4096, "heads": 4096},
        small | {"layers": 4096, "heads": 4096, "panels": [{"values": wide}] * 4096},
        small | {"layers": 10**15, "heads": 10**15},
        small | {"layers": 1e100},
        small | {"heads": 4096, "panels": [{"values": [[1] * 4096]}] * 200},
        small | {"panels": [{"values": [[1]]}] * 5000},
        small | {"panels": [{"values": [[1]], "notes": ["x" * 2000] * 20}] * 200},
        small | {"panels": [{"values": {"float16": "A" * 4_000_000, "factor": 1, "heads": 1}}]},
        small | {"version": 10**9, "title": "x" * 10**6},
        small | {"x" * 10**5: 1, "panels": [{"values": [[1]], "statistics": {"x" * 10**5: {"value": "1"}}}]},
        small | {"scale": {"low": 0, "high": 5e-324}},
        small | {"panels": [{"values": [[1e100]], "step": -1e100}, {"values": [[1e-300]], "step": 1e100}]},
        {str(number): number for number in range(10**5)},
        [0] * 10**5,
        "[" * 10**5,
        '{"a":' * 10**5,
        "x" * 10**6,
        None,
        3,
        True,
        "",
    ]
