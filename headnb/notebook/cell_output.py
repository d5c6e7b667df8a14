"""Output of a magic: variables, displays and one-line errors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from IPython.core.error import UsageError

from headnb.display.live import suppress_redisplay
from headnb.errors import HeadnbError
from headnb.notebook import arguments

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from headnb.display.live import LiveGrid
    from headnb.notebook.tables import NameTable

_Result = TypeVar("_Result")


def store_variable(options: Namespace, result: object) -> None:
    """Set the variable that --into names, if any."""
    if options.into:
        options.variables.set(options.into, result)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a HeadnbError into a UsageError, which IPython prints as one line without a traceback."""
    try:
        yield
    except HeadnbError as error:
        raise UsageError(str(error)) from None


@contextlib.contextmanager
def loading(live: LiveGrid, until: str = "the first sample was scored") -> Iterator[None]:
    """Remove the live display if loading fails or is interrupted, so that no "loading" message remains.

    Raises:
        UsageError: after an interrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        live.discard()
        raise UsageError(f"interrupted before {until}") from None
    except BaseException:
        live.discard()
        raise


def show_table(magic: Callable[..., NameTable], line: str, make: Callable[[Namespace], NameTable]) -> NameTable:
    """Parse a magic's line, make its table and display it."""
    with one_line_errors():
        table = make(arguments.parse(magic, line))
    return display_once(table, table)


def display_once(picture: object, result: _Result) -> _Result:
    """Display a picture now, and suppress the display of `result` as the cell's last value."""
    from IPython.display import display  # noqa: PLC0415

    display(picture)  # type: ignore[no-untyped-call]
    suppress_redisplay(result)
    return result
