"""Stopping rules of `score_heads`: `until=0.02`, `until="top20"` or `until="reliability0.9"`.

The rules are evaluated on a random sample of the task: samples in shuffled order, or whole blocks of them if batches
are sorted by length. Frequent evaluation makes a stop at a lucky moment more likely. The effect is small: the
standard error of a mean over hundreds of samples varies by only a few percent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from headnb.errors import HeadnbError
from headnb.stats.reliability import MIN_SAMPLES as FEWEST_RELIABLE
from headnb.stats.reliability import Components

if TYPE_CHECKING:
    from headnb.engine.layout import HeadLayout
    from headnb.storage.score_store import ScoreTable

MIN_SAMPLES = 64  # no rule stops before this number of samples
AGREEMENT = 0.9  # fraction of top heads that two halves of the samples must share
GROUP_SIZE = 8  # samples whose levels are summed; halves consist of such groups
MAX_GROUPS = 128  # then pairs of groups are merged, so that memory does not grow with the number of samples
RANDOM_SPLITS = 20

Until: TypeAlias = float | str | None


class Rule(Protocol):
    """Decides from the levels of the samples whether a pattern is precise enough."""

    def add(self, levels: np.ndarray) -> None:
        """Add the levels (b, heads) of more samples, which come in random order."""

    def reached(self) -> bool:
        """Whether enough samples were added."""

    @property
    def words(self) -> str:
        """The current value and the limit, as text."""


@dataclass
class _RunningVariance:
    """Running mean and sum of squared deviations of each head's level."""

    limit: float
    _samples: int = 0
    _mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    _squares: np.ndarray = field(default_factory=lambda: np.zeros(1))  # sum of squared deviations from the mean

    def add(self, levels: np.ndarray) -> None:
        """Add samples by Chan's update, which is accurate even if the deviations are small compared with the mean."""
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
        """The relative error of the samples so far; infinite if it is undefined."""
        norm = float(np.linalg.norm(self._mean))
        if self._samples < 2 or norm == 0:
            return float("inf")
        errors = np.sqrt(self._squares / (self._samples - 1) / self._samples)
        return float(np.linalg.norm(errors)) / norm

    def reached(self) -> bool:
        """Whether the error is at most `limit`."""
        return self.value <= self.limit

    @property
    def words(self) -> str:
        """The current error and the limit, as text."""
        if self._samples < 2:
            return f"too few samples for a relative standard error, until {self.limit:g}"
        return f"relative standard error {self.value:.3g}, until {self.limit:g}"


class Reliable(_RunningVariance):
    """The reliability of the pattern, as shown under its grid, is at least `limit`."""

    def add(self, levels: np.ndarray) -> None:
        """Add samples; levels are centred over heads, as for the reliability."""
        super().add(levels - levels.mean(axis=1, keepdims=True))

    @property
    def value(self) -> Components:
        """The variance components of the samples so far."""
        n = max(self._samples, 2)
        a = float(self._squares.mean()) / (n - 1) / n
        return Components(float((self._mean**2).mean()) - a, n * a, 0.0, 0.0, self._samples, 1)

    def reached(self) -> bool:
        """Whether the reliability is at least `limit`."""
        return self.value.reliability >= self.limit  # False for NaN

    @property
    def words(self) -> str:
        """The current reliability and the limit, as text."""
        if self._samples < FEWEST_RELIABLE:
            return f"too few samples for a reliability, until {self.limit:g}"
        needed = self.value.samples_for(self.limit)
        estimate = f" (about {needed} samples)" if needed > 0 else ""
        return f"reliability {self.value.reliability:.2f}, until {self.limit:g}{estimate}"


@dataclass
class StableTop:
    """Random halves of the samples share, on average, 90 % of their top `count` heads."""

    count: int
    _sums: list[np.ndarray] = field(default_factory=list)
    _size: int = GROUP_SIZE
    _open: np.ndarray | None = None
    _missing: int = GROUP_SIZE

    def add(self, levels: np.ndarray) -> None:
        """Add samples; their levels are summed in groups of equal size."""
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
            self._sums = [first + second for first, second in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._size *= 2
            self._missing = self._size

    @property
    def value(self) -> float:
        """The fraction of top heads that halves share; NaN before there are two groups."""
        if len(self._sums) < 2:
            return float("nan")
        groups = np.array(self._sums)
        self.check(groups.shape[1])
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

    def check(self, heads: int) -> None:
        """Raise HeadnbError if a model with this number of heads has no smaller set of top heads."""
        if self.count >= heads:
            raise HeadnbError(
                f"until='top{self.count}' needs a model with more than {self.count} heads; this model has {heads}"
            )

    def reached(self) -> bool:
        """Whether the halves share enough top heads."""
        return self.value >= AGREEMENT

    @property
    def words(self) -> str:
        """The current agreement and the limit, as text."""
        if len(self._sums) < 2:
            return f"too few samples for two halves, until {AGREEMENT:.0%} of their top {self.count} heads agree"
        return f"halves agree on {self.value:.0%} of their top {self.count} heads, until {AGREEMENT:.0%}"


def rule_for(until: Until) -> Rule | None:
    """The stopping rule for a value of `until`.

    Raises:
        HeadnbError: the value is not a number between 0 and 1, "top" with a number, or "reliability" with a number.
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
            f"until={until!r} is not a relative standard error between 0 and 1 (such as 0.02), a number of top heads "
            '(such as "top20") or a reliability (such as "reliability0.9")'
        )
    return Reliable(limit) if reliable else RelativeError(limit)


def check_heads(until: Until, layout: HeadLayout) -> None:
    """Check that a model has enough heads for a value of `until`; call it before scoring.

    Raises:
        HeadnbError: it has no more heads than "top" with a number asks for.
    """
    if isinstance(rule := rule_for(until), StableTop):
        rule.check(sum(layout.heads))


@dataclass
class Stopping:
    """Applies a rule to the scores of a table.

    Attributes:
        rule: the stopping rule.
        block: number of samples that must be complete to be a random sample of the task; 1 if each is in random order.
        absolute: whether levels are |score|, not the signed score.
    """

    rule: Rule
    block: int
    absolute: bool
    counted: int = 0

    def reached(self, table: ScoreTable) -> bool:
        """Whether enough samples are scored."""
        scored = table.scored_prefix()
        usable = scored if scored == len(table.done) else scored - scored % self.block
        for rows in table.score_rows(self.counted, usable):
            flat = rows.reshape(len(rows), -1).astype(np.float64)
            flat = flat[:, ~np.isnan(flat).all(axis=0)] if np.isnan(flat).any() else flat
            self.rule.add(np.abs(flat) if self.absolute else flat)
        self.counted = usable
        return self.counted >= MIN_SAMPLES and self.rule.reached()
