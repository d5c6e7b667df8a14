"""Valid payloads with one change each, and whether schema and parser accept them, for the tests in both languages.

`python tests/support/payload_changes.py` generates new changes and writes them with the results of Python.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from paths import FIXTURES

FILE = FIXTURES / "payload_changes.json"
PAYLOADS = FIXTURES / "payloads" / "valid"
CHANGES_PER_FILE = 100
VALUES: list[object] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, 3.0, -0.25, 4096, 4097, 1e100, 1e101, -1e101, 2**53 - 1, 2**53, 1e-200),
    *(
        "",
        "text",
        "level",
        "signed",
        "L0H0",
        "\ud800",
        "😀",
        "a" * 2000,
        "a" * 2001,
        "😀" * 2000,
        "😀" * 2001,
        "AAA=",
        "AAAA",
        "A A=",
    ),
    *([], [0], [1, 1], [[0.1]], [[1, 0], [0, 1]], [["0.1"]], ["a"] * 20, ["a"] * 21, [None], [[]], [{}]),
    *({}, {"value": 1}, {"value": "1"}, {"low": 0, "high": 1}, {"low": -1, "high": 1}, {"done": 1, "total": 2}),
    *({"float16": "AAA=", "factor": 1, "heads": 1}, {"label": "a", "help": "b"}, {"__proto__": {"value": 1}}),
]


def recorded() -> list[dict[str, Any]]:
    return json.loads(FILE.read_text(encoding="utf-8"))["changes"]


def name(change: dict[str, Any]) -> str:
    """The name of a change as a test id."""
    path = ".".join(map(str, change["path"]))
    return f"{change['file']}:{path}:{change.get('value', 'gone')}"


def changed(change: dict[str, Any]) -> object:
    """The changed payload: `VALUES[value]` replaces the value at `path`; without `value`, the path is deleted."""
    payload = json.loads((PAYLOADS / f"{change['file']}.heads.json").read_text(encoding="utf-8"))
    *keys, last = change["path"]
    at = payload
    for key in keys:
        at = at[key]
    if "value" in change:
        at[last] = copy.deepcopy(VALUES[change["value"]])
    else:
        del at[last]
    return payload


def drawn(rng: random.Random, file: str) -> dict[str, Any]:
    """A random change: a value or a deletion at a random path, sometimes a field of other payloads."""
    at = json.loads((PAYLOADS / f"{file}.heads.json").read_text(encoding="utf-8"))
    path: list[str | int] = []
    while isinstance(at, (dict, list)) and at and (not path or rng.random() < 0.7):
        path.append(rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at)))
        at = at[path[-1]]
    if rng.random() < 0.15:
        return {"file": file, "path": path}
    same_type = [index for index, value in enumerate(VALUES) if type(value) is type(at)]
    if rng.random() < 0.2:
        panel = ["step", "course", "low", "significant", "runs", "withheld", "cells", "statistics_line"]
        top = ["layer_numbers", "kv_heads", "scale", "alpha", "interval_level", "columns", "progress"]
        path = ["panels", 0, rng.choice(panel)] if rng.random() < 0.5 else [rng.choice(top)]
    return {"file": file, "path": path, "value": rng.choice(same_type if rng.random() < 0.7 else range(len(VALUES)))}


def main() -> None:
    import jsonschema
    from headnb.display.payload_parser import parse_payload
    from headnb.errors import HeadnbError

    from synthetic_results import SCHEMA

    rng = random.Random(0)
    lines = []
    for path in sorted(PAYLOADS.glob("*.heads.json")):
        for _ in range(CHANGES_PER_FILE):
            change = drawn(rng, path.name.removesuffix(".heads.json"))
            change["schema"] = jsonschema.Draft202012Validator(SCHEMA).is_valid(changed(change))
            try:
                parse_payload(changed(change))
            except HeadnbError:
                change["reader"] = False
            else:
                change["reader"] = True
            lines.append(json.dumps(change))
    values, changes = json.dumps(VALUES), ",\n".join(dict.fromkeys(lines))
    FILE.write_text(f'{{"values": {values}, "changes": [\n{changes}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
