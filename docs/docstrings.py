"""Docstrings as reStructuredText: they are plain text with `names` in backticks and indented examples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

_CODE = re.compile(r"(`[^`]*`)")


def as_restructured_text(lines: list[str], public: Container[str] = ()) -> list[str]:
    """The lines with indented examples as code blocks, links for `public` names of headnb, and other markup escaped."""
    written: list[str] = []
    example = False
    for number, line in enumerate(lines):
        if line.strip():
            deeper = _indent(line) > _indent(_last_text(lines[:number])) and not lines[number - 1].strip()
            starts = deeper and not line.lstrip().startswith("- ")  # a list is text
            if starts and not example:
                written += [" " * (_indent(line) - 4) + ".. code-block:: python", ""]
            example = starts or (example and _indent(line) > 0)
        written.append(line if example else _text(line, public))
    return written


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _last_text(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")


def _text(line: str, public: Container[str]) -> str:
    return "".join(_part(part, public) for part in _CODE.split(line))


def _part(part: str, public: Container[str]) -> str:
    if not part.startswith("`"):
        return re.sub(r"[|*]", r"\\\g<0>", part)
    name = part.strip("`")
    return f":py:obj:`{name} <headnb.{name}>`" if name in public else part
