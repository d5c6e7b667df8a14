"""Limit on how often the grid is redrawn while scores are computed."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_PAUSE = 0.5  # seconds between two pictures
PAUSE_PER_DRAWING = 4.0  # and at least this many times the seconds that the last one took


class RedrawTimer:
    """Says when the next picture is due, so that at most a fifth of the time goes into pictures."""

    def __init__(self) -> None:
        self._next = 0.0

    def reset(self) -> None:
        """The next picture is due at once."""
        self._next = 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Measure how long a picture takes."""
        started = time.monotonic()
        yield
        ended = time.monotonic()
        self._next = ended + max(MIN_PAUSE, PAUSE_PER_DRAWING * (ended - started))
