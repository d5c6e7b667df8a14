"""Rate limit of redrawing the grid during scoring."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_PAUSE = 0.5  # seconds between two drawings
PAUSE_PER_DRAWING = 4.0  # minimum pause as a multiple of the time of the last drawing


class RedrawTimer:
    """Limits drawing to at most a fifth of the time."""

    def __init__(self) -> None:
        self._next = 0.0

    def reset(self) -> None:
        """Make the next drawing due at once."""
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether the pause after the last drawing is over."""
        return time.monotonic() >= self._next

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Measure the time of a drawing, and schedule the next one."""
        started = time.monotonic()
        yield
        ended = time.monotonic()
        self._next = ended + max(MIN_PAUSE, PAUSE_PER_DRAWING * (ended - started))
