"""The one family of errors that a user of headnb sees: what was wrong, what was expected, what to do.

Messages hold text of strangers: names of files and tasks, what a library or a chat template says. `HeadnbError` makes
the whole message one printable line of bounded length when it is shown; what is shown without an error passes through
`one_line` or, where lines are our own, `printable`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Optional packages that pip knows by another name than Python.
_DISTRIBUTIONS = {"reasoning_gym": "reasoning-gym", "yaml": "pyyaml"}

LONGEST_MESSAGE = 1500  # characters
_LONGEST_COMPARED = 200  # characters of a name: comparing two takes time that grows with their product
_MOST_COMPARED = 2000  # names
_LINE_BREAKS = re.compile(r"\s*[^\S ]\s*")


class HeadnbError(Exception):
    """Something a user can mend. The message is one printable line (magics and the CLI print it as it is)."""

    def __str__(self) -> str:
        return one_line(super().__str__(), LONGEST_MESSAGE)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> HeadnbError:
    """The error for a name that is not known: the nearest known names, else a dozen of them."""
    names = sorted(known)
    short = [each for each in names[:_MOST_COMPARED] if len(each) <= _LONGEST_COMPARED]
    near = difflib.get_close_matches(name[:_LONGEST_COMPARED], short, n=3, cutoff=0.6)
    if near:
        return HeadnbError(f"unknown {kind} {name!r}; did you mean {' or '.join(map(repr, near))}?")
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return HeadnbError(f"unknown {kind} {name!r}; known: {', '.join(names[:12])}{more}")


def missing_extra(package: str, extra: str) -> HeadnbError:
    """The error for an optional dependency that is not installed."""
    return HeadnbError(f"this needs {package}: pip install 'headnb[{extra}]'")


@contextlib.contextmanager
def optional_import(extra: str) -> Iterator[None]:
    """For imports of optional packages: what is missing is one line with the command that installs it.

    Raises:
        HeadnbError: a package is not installed, or is installed and cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package:
            raise missing_extra(_DISTRIBUTIONS.get(package, package), extra) from error
        raise HeadnbError(
            f"a package of headnb[{extra}] cannot be imported: {first_line(error)}; `headnb doctor` says which"
        ) from error


def first_line(error: Exception) -> str:
    """What an error says in its first line, or else its type."""
    said = _text(error).strip()
    return one_line(said.splitlines()[0]) if said else type(error).__name__


def one_line(said: object, most: int = 300) -> str:
    """An error or a text of strangers as one line that can be printed, of at most so many characters.

    Line breaks become spaces, other control characters are written out in hexadecimal. Of a longer text the middle is
    left out: the end of a message says what to do.
    """
    text = _LINE_BREAKS.sub(" ", _shortened(_text(said).strip(), most))
    return _shortened(printable(text), most)


def printable(line: str) -> str:
    """A line with its control characters written out, so that it cannot steer the reader's terminal."""
    return line if line.isprintable() else "".join(_written_out(letter) for letter in line)


def _written_out(letter: str) -> str:
    return letter if letter.isprintable() else ascii(letter)[1:-1]


def _shortened(text: str, most: int) -> str:
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"


def _text(said: object) -> str:
    try:
        return str(said)
    except Exception:  # noqa: BLE001  a stranger's class may fail in any way
        return type(said).__name__
