"""The one family of errors that a user of headnb sees: what was wrong, what was expected, what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


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
