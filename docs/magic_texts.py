"""Help texts of the magics, included by the page `magics.md`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import headnb
from IPython.core.interactiveshell import InteractiveShell

if TYPE_CHECKING:
    from pathlib import Path


def write_magic_texts(path: Path) -> None:
    """Write a section for each magic, with its help text."""
    shell = InteractiveShell.instance()
    headnb.load_ipython_extension(shell)
    sections = [
        f"## `%{name}`\n\n```text\n{_help(magic)}\n```\n"
        for name, magic in shell.magics_manager.magics["line"].items()
        if getattr(magic, "__module__", "").startswith("headnb.")
    ]
    path.write_text("\n".join(sections), encoding="utf-8")


def _help(magic: object) -> str:
    return textwrap.dedent((magic.__doc__ or "").removeprefix("::\n")).strip()
