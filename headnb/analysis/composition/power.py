"""What a design could find: shares of composition put into a study's own data.

Of the target's change, what the patterns before fine-tuning (Z) explain stays. The rest has its size, but is made anew:

    change = Z part + S (sqrt(1 - share) own + sqrt(share) basics)

in units of the heads' levels, S^2 the squares that Z leaves, corrected for noise; `own` the target's residual after Z
and the basics, each head's sign drawn anew in each replicate, so that every head keeps its size; `basics` the sum of
what Z leaves of each basic's change; both of length 1. Every task's samples are drawn with replacement, and run effects
of each head's own size are drawn as normal numbers. So run effects that many heads share are not in it, and the basics'
measured changes are taken as true: the power is somewhat too high (docs/validity.md says by how much).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.analysis.composition.comparison import ComparisonInputs, compare
from headnb.analysis.composition.evidence import BEYOND_FORMAT, GAIN, SHARED
from headnb.analysis.composition.inputs import CompositionInputs
from headnb.analysis.composition.layer_products import ByLayer, LayerProducts
from headnb.analysis.composition.verdict import join_names
from headnb.analysis.debiased_products import MeasuredPattern
from headnb.analysis.json_values import as_records
from headnb.analysis.result import AnalysisResult
from headnb.call_checks import check_arguments, checked_level
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.analysis.before_after import Change
    from headnb.analysis.composition.evidence import Comparison
    from headnb.stats.descriptive import Array

EACH_ADDS = "and each basic adds"
SHARES = (0.1, 0.25, 0.5)


@dataclass(frozen=True, repr=False)
class CompositionPower(AnalysisResult):
    """How often a design would find composition.

    Attributes:
        target: name of the complex task; `basics`: of the basic tasks.
        found: a row per share of the target's change beyond Z that is composed: in what share of the replicates each
            level was found, `shared with these basics` with each basic adding, and the Monte Carlo standard error of
            the largest of them as `error`. Levels that the design cannot test are not there. *Beyond format* counts
            its own tests alone, on shares of the change by own answers less that by shuffled answers.
        samples: fewest of a task; `runs`: fewest of a task.
        replicates: per share.
    """

    target: str
    basics: tuple[str, ...]
    found: pd.DataFrame
    samples: int
    runs: int
    replicates: int

    @property
    def table(self) -> pd.DataFrame:
        """The numbers, a row per share."""
        return self.found

    @property
    def verdict(self) -> str:
        """What this design could find, in a sentence per share."""
        lines = [f"With {self.runs} training runs and {self.samples} samples of a task"]
        level = SHARED if SHARED in self.found else GAIN
        for share, row in self.found.iterrows():
            lines.append(f"a composed share of {share:g} is found ({level}) in {row[level]:.0%} ± {row['error']:.0%}")
        likely, basics = join_names(lines[1:]), join_names(self.basics)
        return f"{lines[0]}, {likely} of studies like this one of {self.target} from {basics}."

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        counted = {"samples": self.samples, "runs": self.runs, "replicates": self.replicates}
        named = {"target": self.target, "basics": list(self.basics)}
        return {**named, **counted, "found": as_records(self.found), "verdict": self.verdict}


@check_arguments
def composition_power(
    target: Change,
    basics: Mapping[str, Change],
    *,
    name: str | None = None,
    others: Mapping[str, Change] | None = None,
    shuffled: Mapping[str, Change] | None = None,
    shares: Sequence[float] = SHARES,
    replicates: int = 40,
    level: float = 0.95,
    seed: int = 0,
) -> CompositionPower:
    """How likely a study of this size and noise is to find composition, from its own data.

    Args:
        target: the complex task's change, as `fit_combination` takes it.
        basics: the basic tasks' changes by name.
        name: of the target; by default its scores' task.
        others: changes of tasks that are neither.
        shuffled: changes by fine-tuning on shuffled answers, task -> change.
        shares: of the target's change beyond the patterns before fine-tuning that are composed of the basics.
        replicates: simulated studies per share; the Monte Carlo error of a power of 0.5 is 0.5 / sqrt(replicates).
        level: of the one-sided limits and tests.
        seed: of the draws.

    Raises:
        HeadnbError: no evidence can be weighed from such data (too few runs, samples, layers or heads), a share is not
            between 0 and 1, or nothing but noise is left of the target's or a basic's change.
    """
    checked_level(level)
    if replicates < 1 or not shares or not all(0 <= share <= 1 for share in shares):
        raise HeadnbError("shares must lie between 0 and 1, and replicates be 1 or more")
    inputs = CompositionInputs.read(target, basics, others or {}, shuffled, name)
    if reason := inputs.reason_untestable():
        raise HeadnbError(f"power of a composition: {reason}")
    own = _StudySimulator(inputs.changes(inputs.comparable_others))
    without, controlled = inputs.with_shuffled_controls()
    less = None
    if not without and len(controlled) >= len(basics):
        less = _StudySimulator(inputs.changes(controlled, subtract_shuffled=True))
    tasks = [inputs.own[each] for each in own.changes.names]
    return CompositionPower(
        inputs.target,
        inputs.basics,
        _detection_rates(own, less, shares, replicates, level, np.random.default_rng(seed)),
        samples=min(one.n for one in tasks),
        runs=min(one.runs for one in tasks),
        replicates=replicates,
    )


def _detection_rates(
    own: _StudySimulator,
    less: _StudySimulator | None,
    shares: Sequence[float],
    replicates: int,
    level: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    rows = []
    for share in shares:
        drawn = [_levels_reached(compare(own.draw(share, rng), level)) for _ in range(replicates)]
        row = pd.DataFrame(drawn).mean()
        if less is not None:
            row[BEYOND_FORMAT] = np.mean([compare(less.draw(share, rng), level).has_excess for _ in range(replicates)])
        spread = max(value * (1 - value) for value in row)
        rows.append({**row, "error": float(np.sqrt(spread / replicates))})
    return pd.DataFrame(rows, index=pd.Index(shares, name="share"))


def _levels_reached(found: Comparison) -> dict[str, bool]:
    if found.excess is None:
        return {GAIN: found.has_gain}
    each = found.has_excess and len(found.adding) == len(found.adds)
    return {GAIN: found.has_gain, SHARED: found.has_excess, EACH_ADDS: each}


class _StudySimulator:
    """Studies like a measured one, with another composed share of the target's change."""

    def __init__(self, changes: ComparisonInputs) -> None:
        self.changes = changes
        self._levels = [_differences(one) for one in changes.change]  # (runs, n, heads) each
        self._run_spread = [_run_spread(one) for one in changes.change]  # (heads) each
        self._decompose()

    def draw(self, share: float, rng: np.random.Generator) -> ComparisonInputs:
        """One study in which this share is composed."""
        own = self._own * rng.choice([-1, 1], size=self._own.shape)
        mixed = np.sqrt(1 - share) * own + np.sqrt(share) * self._composed
        composed = self._by_layer.on_heads(self._explained + self._size * mixed)
        patterns = [composed, *(one.mean(axis=(0, 1)) for one in self._levels[1:])]
        before, change = [], []
        for place, (levels, pattern) in enumerate(zip(self._levels, patterns, strict=True)):
            n = levels.shape[1]
            drawn = rng.integers(n, size=n)
            effects = self._run_spread[place] * rng.standard_normal((len(levels), 1, levels.shape[2]))
            deviations = levels - levels.mean(axis=1, keepdims=True)
            change.append(MeasuredPattern(pattern + effects + deviations[:, drawn], None, place))
            before.append(MeasuredPattern(self.changes.before[place].plus[:, drawn], None, place))
        return ComparisonInputs(
            self.changes.names, self.changes.basics, tuple(before), tuple(change), self.changes.layers
        )

    def _decompose(self) -> None:
        """The parts of the target's change, each (layers * widest) in units of the heads' levels: see the module."""
        layers, levels = self.changes.layers, self.changes.levels
        self._by_layer = ByLayer(layers, levels)
        Z = np.stack([self._by_layer(one.values()).ravel() for one in self.changes.before], axis=1)
        first = self._levels[: 1 + self.changes.basics]
        y, *basics = (self._by_layer(each.mean(axis=(0, 1))).ravel() for each in first)
        weights = np.linalg.lstsq(Z, y, rcond=None)[0]
        left = [one - Z @ np.linalg.lstsq(Z, one, rcond=None)[0] for one in (y, *basics)]
        B = np.stack(left[1:], axis=1)
        own = left[0] - B @ np.linalg.lstsq(B, left[0], rcond=None)[0]
        products = LayerProducts([self.changes.change[0]], layers, levels)
        noise = float((products.plain() - products.corrected()).sum())
        size, lengths = float(left[0] @ left[0]) - noise, np.linalg.norm(B, axis=0)
        if not size > 0 or not (lengths > 0).all() or not own.any():
            raise HeadnbError(
                "power of a composition: noise leaves nothing of the target's change beyond the patterns before "
                "fine-tuning; use more samples or training runs"
            )
        composed = (B / lengths).sum(axis=1)
        self._explained, self._size = Z @ weights, np.sqrt(size)
        self._own, self._composed = own / np.linalg.norm(own), composed / np.linalg.norm(composed)


def _differences(change: MeasuredPattern) -> Array:
    return np.asarray(change.plus if change.minus is None else change.plus - change.minus)


def _run_spread(change: MeasuredPattern) -> Array:
    """(heads): standard deviation of one run's effect, without what samples do in it."""
    runs, n, _ = change.plus.shape
    of_both = sum((one**2).sum(axis=0) for one in change.run_specific_deviations()) / ((runs - 1) * (n - 1) * n)
    return np.asarray(np.sqrt(np.maximum(change.by_run().var(axis=0, ddof=1) - of_both, 0)))
