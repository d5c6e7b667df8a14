"""Help texts of the magics and of the command line, included by the pages `magics.md` and `command_line.md`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import headnb
import typer
from headnb.cli.main import app
from IPython.core.interactiveshell import InteractiveShell
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIDTH = {"COLUMNS": "88", "TERMINAL_WIDTH": "88"}


def write_usage_texts(folder: Path) -> None:
    """Write `magics.txt` and `commands.txt` to a new folder."""
    folder.mkdir()
    for name, texts in (("magics", magic_texts()), ("commands", command_texts())):
        sections = (f"## `{title}`\n\n```text\n{text.strip()}\n```\n" for title, text in texts)
        (folder / f"{name}.txt").write_text("\n".join(sections), encoding="utf-8")


def magic_texts() -> Iterator[tuple[str, str]]:
    """Name and help text of each magic."""
    shell = InteractiveShell.instance()
    headnb.load_ipython_extension(shell)
    for name, magic in shell.magics_manager.magics["line"].items():
        if getattr(magic, "__module__", "").startswith("headnb."):
            yield f"%{name}", textwrap.dedent((magic.__doc__ or "").removeprefix("::\n"))


def command_texts() -> Iterator[tuple[str, str]]:
    """Name and help text of each command, with the commands of `suite` after it."""
    for words in _commands(typer.main.get_command(app)):
        text = CliRunner().invoke(app, [*words, "--help"], prog_name="headnb", env=WIDTH).output
        yield " ".join(["headnb", *words]), text


def _commands(group: object, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*before, name)
        yield from _commands(command, (*before, name))
