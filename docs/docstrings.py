"""Docstrings as reStructuredText: they are plain text with `names` in backticks and indented examples."""

from __future__ import annotations

import re

_MARKUP = re.compile(r"(`[^`]*`)")


def as_restructured_text(lines: list[str]) -> list[str]:
    """The lines with indented examples as code blocks, and with other markup escaped."""
    written: list[str] = []
    example = False
    for number, line in enumerate(lines):
        if line.strip():
            starts = _indent(line) > _indent(_last_text(lines[:number])) and not lines[number - 1].strip()
            if starts and not example:
                written += [" " * (_indent(line) - 4) + ".. code-block:: python", ""]
            example = starts or (example and _indent(line) > 0)
        written.append(line if example else _escaped(line))
    return written


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _last_text(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")


def _escaped(line: str) -> str:
    parts = _MARKUP.split(line)
    return "".join(part if part.startswith("`") else re.sub(r"[|*]", r"\\\g<0>", part) for part in parts)
