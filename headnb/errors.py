"""The one family of errors that a user of headnb sees: what was wrong, what was expected, what to do."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


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


class UnknownKeywordError(HeadnbError, TypeError):
    """A keyword argument that a function does not have; a TypeError too, as Python itself raises."""


def known_keywords(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """For public functions: a misspelt keyword is answered with the nearest ones, a value of another type refused."""
    from headnb.argument_types import argument_checks  # noqa: PLC0415  builds on this module

    signature, check = inspect.signature(function), argument_checks(function)
    known = signature.parameters
    takes_others = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for name in kwargs:
            if name not in known and not takes_others:
                raise UnknownKeywordError(str(unknown_name(f"argument of {called}", name, known)))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # which says what is missing
        check(bound.arguments)
        return function(*bound.args, **bound.kwargs)

    return call


def first_line(error: Exception) -> str:
    """What an error says in its first line, or else its type."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
