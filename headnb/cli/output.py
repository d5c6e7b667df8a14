"""Output of the commands, without control characters."""

from __future__ import annotations

import sys

import typer

from headnb.errors import printable

EXIT_INTERRUPTED = 130  # the shells' convention for a process ended by Ctrl-C


def echo(text: object, *, err: bool = False, fg: str | None = None) -> None:
    """Print lines that may contain untrusted text to stdout or stderr, coloured in a terminal."""
    stream = sys.stderr if err else sys.stdout
    lines = "\n".join(printable(line) for line in str(text).split("\n"))
    print(typer.style(lines, fg=fg) if fg and stream.isatty() else lines, file=stream)
