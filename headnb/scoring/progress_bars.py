"""Progress bars of long calls in notebooks and terminals, for callers who give no `on_progress`."""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from headnb.display.notebook_kernel import in_notebook

if TYPE_CHECKING:
    from collections.abc import Callable

    from headnb.scoring.progress import Progress

SETTING = "HEADNB_PROGRESS"  # environment variable; "0": no bars
DELAY = 2.0  # seconds until a bar appears
INTERVAL = 0.2  # seconds between two updates

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Shown(NamedTuple):
    """What a bar shows."""

    done: int
    total: int
    activity: str
    unit: str
    note: str = ""
    """A line that is printed once and stays."""


def with_progress_bar(
    read: Callable[..., Shown],
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Decorate a function that has `on_progress`, to show a progress bar if the caller gives none and a person watches.

    Args:
        read: takes the arguments of `on_progress`.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @functools.wraps(function)
        def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            if kwargs.get("on_progress") is not None or not _is_watched():
                return function(*args, **kwargs)
            bar = _Bar()
            try:
                return function(*args, **{**kwargs, "on_progress": lambda *of: bar.show(read(*of))})  # type: ignore[arg-type]
            finally:
                bar.close()

        return call

    return decorate


def scored(progress: Progress) -> Shown:
    """What a bar shows of a scoring run."""
    return Shown(progress.done, progress.total, progress.message or "scoring", progress.unit)


def counted(activity: str, unit: str = "samples") -> Callable[[int, int], Shown]:
    """What a bar shows of a function that reports two numbers, those done and their total."""
    return lambda done, total: Shown(done, total, activity, unit)


def _is_watched() -> bool:
    """Whether a person sees the bar: in a notebook or on a terminal, in the first process of a distributed training."""
    if os.environ.get(SETTING) == "0" or os.environ.get("RANK", "0") != "0":
        return False
    try:
        return in_notebook() or sys.stderr.isatty()
    except (AttributeError, ValueError):  # another object in its place, or a closed one
        return False


class _Bar:
    """A bar of tqdm that appears after `DELAY` seconds and is removed at the end."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._noted = ""
        self._next = time.monotonic() + DELAY

    def show(self, shown: Shown) -> None:
        if shown.note and shown.note != self._noted:
            self._noted = shown.note
            print(shown.note)  # noqa: T201
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + INTERVAL
        if self._bar is None:
            from tqdm.auto import tqdm  # noqa: PLC0415

            self._bar = tqdm(
                desc=shown.activity,
                initial=shown.done,
                total=shown.total,
                unit=f" {shown.unit}",
                leave=False,
                dynamic_ncols=True,
            )
        if shown.done < self._bar.n or shown.total != self._bar.total:  # a second task or pass
            self._bar.reset(shown.total)
            self._bar.initial = shown.done
        self._bar.n = shown.done
        self._bar.set_description(shown.activity)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
