"""Errors for users of headnb, and conversion of untrusted text to printable lines.

Messages can contain untrusted text: names of files and tasks, messages of libraries and chat templates. `HeadnbError`
converts the whole message to one printable line of limited length. Text shown without an error must pass through
`one_line`, or through `printable` if its line breaks are headnb's own.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Optional packages that pip knows by another name than Python.
_DISTRIBUTIONS = {"reasoning_gym": "reasoning-gym", "yaml": "pyyaml"}

_PACKAGE = str(Path(__file__).parent)
LONGEST_MESSAGE = 1500  # characters
_LONGEST_COMPARED = 200  # characters of a name: the time of a comparison grows with the product of the lengths
_MOST_COMPARED = 2000  # names
_LINE_BREAKS = re.compile(r"\s*[^\S ]\s*")


class HeadnbError(Exception):
    """Error that a user can correct; the message is one printable line, which magics and the CLI print unchanged."""

    def __str__(self) -> str:
        return one_line(super().__str__(), LONGEST_MESSAGE)


def warn_user(message: str) -> None:
    """Warn with the location of the user's code: the first caller outside this package."""
    frame, level = sys._getframe(1), 2  # noqa: SLF001
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> HeadnbError:
    """Error for an unknown name, with the nearest known names, else a dozen known names."""
    names = sorted(known)
    short = [known_name for known_name in names[:_MOST_COMPARED] if len(known_name) <= _LONGEST_COMPARED]
    near = difflib.get_close_matches(name[:_LONGEST_COMPARED], short, n=3, cutoff=0.6)
    if near:
        return HeadnbError(f"unknown {kind} {name!r}; did you mean {' or '.join(map(repr, near))}?")
    if not names:
        return HeadnbError(f"unknown {kind} {name!r}; there are none")
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return HeadnbError(f"unknown {kind} {name!r}; known: {', '.join(names[:12])}{more}")


def missing_extra(package: str, extra: str) -> HeadnbError:
    """Error for an optional dependency that is not installed."""
    return HeadnbError(f"this needs {package}: pip install 'headnb[{extra}]'")


@contextlib.contextmanager
def optional_import(extra: str) -> Iterator[None]:
    """Wrap imports of optional packages, so that a missing package gives the command that installs it.

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
            f"a package of headnb[{extra}] cannot be imported: {first_line(error)}; `headnb doctor` reports which"
        ) from error


def cause_names(error: BaseException | None) -> set[str]:
    """Names of the types of an error and of its causes."""
    names = set()
    while error is not None:
        names.add(type(error).__name__)
        error = error.__cause__ or error.__context__
    return names


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type if the message is empty."""
    message = _text(error).strip()
    return one_line(message.splitlines()[0]) if message else type(error).__name__


def one_line(value: object, most: int = 300) -> str:
    """Convert an error or an untrusted text to one printable line of at most `most` characters.

    Line breaks become spaces, and other control characters are escaped. A longer text loses its middle, because the
    end of a message says what to do.
    """
    text = _LINE_BREAKS.sub(" ", _shortened(_text(value).strip(), most))
    return _shortened(printable(text), most)


def printable(line: str) -> str:
    """Escape the control characters of a line, so that it cannot control the reader's terminal."""
    return line if line.isprintable() else "".join(_escaped(letter) for letter in line)


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else ascii(letter)[1:-1]


def _shortened(text: str, most: int) -> str:
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  `__str__` of a foreign class may raise anything
        return type(value).__name__
