"""Rows of scores that wait to be written to a store together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ScoreRows(NamedTuple):
    """Scores (b, L, H) and losses (b,) of the places from `start` on."""

    start: int
    scores: np.ndarray
    losses: np.ndarray

    @property
    def stop(self) -> int:
        """The place behind the last."""
        return self.start + len(self.losses)


def merge_adjacent(parts: Iterable[ScoreRows]) -> Iterator[ScoreRows]:
    """The same rows, with those that follow each other together."""
    runs: list[list[ScoreRows]] = []
    for part in sorted(parts, key=lambda part: part.start):
        if runs and part.start == runs[-1][-1].stop:
            runs[-1].append(part)
        else:
            runs.append([part])
    for run in runs:
        _, scores, losses = zip(*run, strict=True)
        yield ScoreRows(run[0].start, np.concatenate(scores), np.concatenate(losses))
