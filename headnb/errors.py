"""The one family of errors that a user of headnb sees: what was wrong, what was expected, what to do."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Optional packages that pip knows by another name than Python.
_DISTRIBUTIONS = {"reasoning_gym": "reasoning-gym", "yaml": "pyyaml"}


class HeadnbError(Exception):
    """Something a user can mend. The message is one plain line (magics and the CLI print it as it is)."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> HeadnbError:
    """The error for a name that is not known: the nearest known names, else a dozen of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return HeadnbError(f"unknown {kind} {name!r}; did you mean {' or '.join(map(repr, near))}?")
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return HeadnbError(f"unknown {kind} {name!r}; known: {', '.join(names[:12])}{more}")


def missing_extra(package: str, extra: str) -> HeadnbError:
    """The error for an optional dependency that is not installed."""
    return HeadnbError(f"this needs {package}: pip install 'headnb[{extra}]'")


@contextlib.contextmanager
def from_extra(extra: str) -> Iterator[None]:
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
    return str(error).strip().partition("\n")[0] or type(error).__name__


def one_line(said: object, most: int = 300) -> str:
    """An error or a text of strangers as one line that can be printed, cut at so many characters."""
    try:
        text = str(said)
    except Exception:  # noqa: BLE001  a stranger's class may fail in any way
        text = type(said).__name__
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
