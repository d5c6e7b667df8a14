"""Output of the commands, without control characters."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from headnb.errors import printable

EXIT_INTERRUPTED = 130  # the shells' convention for a process ended by Ctrl-C


def interrupted(note: str = "") -> NoReturn:
    """Exit after Ctrl-C, with a line that has a note: what is saved and how to continue."""
    echo("; ".join(filter(None, ("headnb: interrupted", note))), fg="red", err=True)
    raise typer.Exit(EXIT_INTERRUPTED)


def echo(text: object, *, err: bool = False, fg: str | None = None) -> None:
    """Print lines that may contain untrusted text to stdout or stderr, coloured in a terminal."""
    stream = sys.stderr if err else sys.stdout
    lines = "\n".join(printable(line) for line in str(text).split("\n"))
    shown = typer.style(lines, fg=fg) if fg and stream.isatty() else lines
    stream.write(f"{shown}\n")  # print writes text and newline separately, which mixes lines of two threads
