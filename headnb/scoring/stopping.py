"""When enough samples are scored: `score_heads(..., until=0.02)`, `until="top20"` or `until="reliability0.9"`.

The rules are judged on a fair sample of the task: samples in the shuffled order of work, and where batches are sorted
by length, whole blocks of them. Looking often makes it likelier to stop at a lucky moment, which matters little here:
the standard error of a mean over hundreds of samples varies by a few percent itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from headnb.errors import HeadnbError
from headnb.stats.reliability import Components

if TYPE_CHECKING:
    from headnb.storage.score_store import ScoreTable

MIN_SAMPLES = 64  # samples, before which no rule is asked
AGREEMENT = 0.9  # of the top heads of one half of the samples with those of the other
GROUP_SIZE = 8  # samples whose levels are summed, for halves to be made of
MAX_GROUPS = 128  # then pairs of them are added up: memory stays the same for any number of samples
RANDOM_SPLITS = 20

Until: TypeAlias = float | str | None


class Rule(Protocol):
    """Judges a pattern from what each sample adds to it."""

    def add(self, levels: np.ndarray) -> None:
        """Levels (b, heads) of more samples, in random order."""

    def reached(self) -> bool:
        """Whether these are enough."""

    @property
    def words(self) -> str:
        """How far it is."""


@dataclass
class _RunningVariance:
    """Mean and spread of each head's level, whatever parts the samples come in."""

    limit: float
    _samples: int = 0
    _mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    _squares: np.ndarray = field(default_factory=lambda: np.zeros(1))  # of deviations from the mean

    def add(self, levels: np.ndarray) -> None:
        """By Chan's update, which loses no digits where the spread is small beside the mean."""
        added = len(levels)
        mean = levels.mean(axis=0)
        step = mean - self._mean
        whole = self._samples + added
        self._squares = self._squares + ((levels - mean) ** 2).sum(axis=0) + step**2 * (self._samples * added / whole)
        self._mean = self._mean + step * (added / whole)
        self._samples = whole


class RelativeError(_RunningVariance):
    """norm(standard errors of the heads' levels) / norm(levels) is at most `limit`."""

    @property
    def value(self) -> float:
        """Of the samples so far; infinite where they tell nothing."""
        norm = float(np.linalg.norm(self._mean))
        if self._samples < 2 or norm == 0:
            return float("inf")
        errors = np.sqrt(self._squares / (self._samples - 1) / self._samples)
        return float(np.linalg.norm(errors)) / norm

    def reached(self) -> bool:
        """Whether the error is small enough."""
        return self.value <= self.limit

    @property
    def words(self) -> str:
        """How far it is."""
        return f"relative standard error {self.value:.3g}, until {self.limit:g}"


class Reliable(_RunningVariance):
    """The pattern's reliability, that of the line under its grid, is at least `limit`."""

    def add(self, levels: np.ndarray) -> None:
        """Centred over heads, as reliability is."""
        super().add(levels - levels.mean(axis=1, keepdims=True))

    @property
    def value(self) -> Components:
        """Of the samples so far."""
        n = max(self._samples, 2)
        a = float(self._squares.mean()) / (n - 1) / n
        return Components(float((self._mean**2).mean()) - a, n * a, 0.0, 0.0, self._samples, 1)

    def reached(self) -> bool:
        """Whether it is reliable enough."""
        return self.value.reliability >= self.limit  # NaN is not

    @property
    def words(self) -> str:
        """How far it is."""
        needed = self.value.samples_for(self.limit)
        about = f" (about {needed} samples)" if needed > 0 else ""
        return f"reliability {self.value.reliability:.2f}, until {self.limit:g}{about}"


@dataclass
class StableTop:
    """Halves of the samples agree on their top heads: on average over random halves, 90 % of them are the same."""

    count: int
    _sums: list[np.ndarray] = field(default_factory=list)
    _size: int = GROUP_SIZE
    _open: np.ndarray | None = None
    _missing: int = GROUP_SIZE

    def add(self, levels: np.ndarray) -> None:
        """Sum them up in groups of equal size."""
        while len(levels):
            part, levels = levels[: self._missing], levels[self._missing :]
            summed = part.sum(axis=0)
            self._open = summed if self._open is None else self._open + summed
            self._missing -= len(part)
            if not self._missing:
                self._sums.append(self._open)
                self._open, self._missing = None, self._size
                self._merge()

    def _merge(self) -> None:
        if len(self._sums) == MAX_GROUPS:
            self._sums = [one + other for one, other in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._size *= 2
            self._missing = self._size

    @property
    def value(self) -> float:
        """The share of top heads that halves have in common; NaN before there are halves."""
        if len(self._sums) < 2:
            return float("nan")
        groups = np.array(self._sums)
        heads = np.abs(groups.sum(axis=0))
        if self.count >= len(heads):
            raise HeadnbError(f"until='top{self.count}' needs a model with more heads than that; this has {len(heads)}")
        random = np.random.default_rng(0)
        shared = [self._shared(groups[random.permutation(len(groups))]) for _ in range(RANDOM_SPLITS)]
        return float(np.mean(shared))

    def _shared(self, groups: np.ndarray) -> float:
        half = len(groups) // 2
        tops = [
            set(np.argpartition(-np.abs(part.sum(axis=0)), self.count)[: self.count].tolist())
            for part in (groups[:half], groups[half : 2 * half])
        ]
        return len(tops[0] & tops[1]) / self.count

    def reached(self) -> bool:
        """Whether halves agree enough."""
        return self.value >= AGREEMENT

    @property
    def words(self) -> str:
        """How far it is."""
        return f"halves agree on {self.value:.0%} of their top {self.count} heads, until {AGREEMENT:.0%}"


def rule_for(until: Until) -> Rule | None:
    """The rule that `until` names.

    Raises:
        HeadnbError: it is not a number between 0 and 1, alone or behind "reliability", nor "top" and a number.
    """
    if until is None:
        return None
    text = until.strip() if isinstance(until, str) else ""
    if (top := re.fullmatch(r"top(\d{1,6})", text)) and int(top[1]) > 0:
        return StableTop(int(top[1]))
    reliable = re.fullmatch(r"reliability ?(0?\.\d+)", text)
    try:
        limit = float(reliable[1] if reliable else until)
    except (TypeError, ValueError):
        limit = float("nan")
    if isinstance(until, bool) or not 0 < limit < 1:
        raise HeadnbError(
            f"until={until!r} is not a relative standard error between 0 and 1, as 0.02, a number of top heads, as "
            '"top20", or a reliability, as "reliability0.9"'
        )
    return Reliable(limit) if reliable else RelativeError(limit)


@dataclass
class Stopping:
    """Asks a rule about what a table holds so far.

    Attributes:
        rule: when it is enough.
        block: samples that are a fair sample of the task only together; 1 if they come in random order.
        absolute: whether levels are |score| and not the score.
    """

    rule: Rule
    block: int
    absolute: bool
    counted: int = 0

    def reached(self, table: ScoreTable) -> bool:
        """Whether enough samples are scored."""
        whole = table.scored_prefix()
        fair = whole if whole == len(table.done) else whole - whole % self.block
        for rows in table.score_rows(self.counted, fair):
            flat = rows.reshape(len(rows), -1).astype(np.float64)
            flat = flat[:, ~np.isnan(flat).all(axis=0)] if np.isnan(flat).any() else flat
            self.rule.add(np.abs(flat) if self.absolute else flat)
        self.counted = fair
        return self.counted >= MIN_SAMPLES and self.rule.reached()
