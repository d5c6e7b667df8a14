"""Buffered rows of scores, merged before they are written to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ScoreRows(NamedTuple):
    """Scores (b, L, H) and losses (b,) of b consecutive rows of a score table, from row `start`."""

    start: int
    scores: np.ndarray
    losses: np.ndarray

    @property
    def stop(self) -> int:
        """Index after the last row."""
        return self.start + len(self.losses)


def merge_adjacent(parts: Iterable[ScoreRows]) -> Iterator[ScoreRows]:
    """Merge parts whose rows are adjacent."""
    groups: list[list[ScoreRows]] = []
    for part in sorted(parts, key=lambda part: part.start):
        if groups and part.start == groups[-1][-1].stop:
            groups[-1].append(part)
        else:
            groups.append([part])
    for group in groups:
        _, scores, losses = zip(*group, strict=True)
        yield ScoreRows(group[0].start, np.concatenate(scores), np.concatenate(losses))
