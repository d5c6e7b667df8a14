"""Power of a composition study: simulated studies with a known composed share, based on the study's own data.

Each simulated study replaces the target's change by

    change = Z w + S (sqrt(1 - share) own + sqrt(share) basics)        (in units of the heads' levels)

- `Z w`: the part of the measured change that the patterns before fine-tuning (Z) explain. It stays as measured.
- `S`: the length of the residual after regression on Z, corrected for noise.
- `own`: the target's residual after regression on Z and the basics, scaled to length 1. Each replicate draws the sign
  of every head at random, so that heads keep their magnitudes.
- `basics`: the sum of the basics' unit-length residuals after regression on Z, scaled to length 1.

Noise is added as follows. Each task's samples are resampled with replacement. Each head's run effects are normal, with
that head's estimated variance between runs. Run effects that several heads share are not simulated, and the basics'
measured changes count as their true changes. The computed power is therefore somewhat too high; docs/validity.md says
by how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from headnb.analysis.composition.comparison import ComparisonInputs, compare
from headnb.analysis.composition.evidence import BEYOND_FORMAT, GAIN, SHARED
from headnb.analysis.composition.inputs import CompositionInputs
from headnb.analysis.composition.layer_products import ByLayer, LayerProducts
from headnb.analysis.composition.verdict import join_names
from headnb.analysis.debiased_products import MeasuredPattern
from headnb.analysis.json_values import as_records
from headnb.analysis.result import AnalysisResult
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.analysis.before_after import Change
    from headnb.analysis.composition.evidence import Comparison
    from headnb.stats.descriptive import Array

EACH_CONTRIBUTES = "shared, each basic contributes"
SHARES = (0.1, 0.25, 0.5)


@dataclass(frozen=True, repr=False)
class CompositionPower(AnalysisResult):
    """How often a study of a given design would find composition.

    Attributes:
        target: name of the complex task.
        basics: names of the basic tasks.
        rates: one row per composed share of the target's change beyond Z. Columns: the fraction of replicates that
            reach each level of evidence, the fraction that reach *shared with these basics* with a unique contribution
            of each basic, and `error`, the largest Monte Carlo standard error of the row. Levels that the design cannot
            test have no column. *Beyond format* counts only its own tests, on AP(own) - AP(shuffled answers).
        samples: smallest number of samples of a task.
        runs: smallest number of training runs of a task.
        replicates: number of simulated studies per share.
    """

    target: str
    basics: tuple[str, ...]
    rates: pd.DataFrame
    samples: int
    runs: int
    replicates: int

    @property
    def table(self) -> pd.DataFrame:
        """The numbers, one row per composed share."""
        return self.rates

    @property
    def verdict(self) -> str:
        """The power of this design for each share, in one sentence."""
        level = SHARED if SHARED in self.rates else GAIN
        powers = [
            f"{rate:.0%} {self._interval(rate)} if a share of {share:g} is composed"
            for share, rate in self.rates[level].items()
        ]
        return (
            f"With {self.runs} training runs and {self.samples} samples per task, the probability of detecting "
            f"composition of {self.target} from {join_names(self.basics)} ({level}) is {join_names(powers)}."
        )

    def _interval(self, rate: float) -> str:
        """Wilson's 95 % interval of a rate, which has a width for 0 and 1 too."""
        low, high = binomtest(round(rate * self.replicates), self.replicates).proportion_ci(method="wilson")
        return f"[{low:.0%}, {high:.0%}]"

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        counted = {"samples": self.samples, "runs": self.runs, "replicates": self.replicates}
        names = {"target": self.target, "basics": list(self.basics)}
        return {**names, **counted, "rates": as_records(self.rates), "verdict": self.verdict}


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
    """Estimate the probability that a study of this size and noise finds composition, from its own data.

    Args:
        target: the complex task's change, as in `fit_combination`.
        basics: the basic tasks' changes by name.
        name: name of the target; by default the task of its scores.
        others: changes of tasks that are neither target nor basic.
        shuffled: changes by fine-tuning on shuffled answers, task -> change.
        shares: composed shares to simulate, as fractions of the target's change beyond the patterns before fine-tuning.
        replicates: simulated studies per share; the Monte Carlo error of a power of 0.5 is 0.5 / sqrt(replicates).
        level: confidence level of the one-sided limits and tests.
        seed: seed of the simulation.

    Raises:
        HeadnbError: composition cannot be tested with these data (too few runs, samples, layers or heads), a share is
            not between 0 and 1, or the target's or a basic's residual after regression on Z is only noise.
    """
    if replicates < 1 or not shares or not all(0 <= share <= 1 for share in shares):
        raise HeadnbError(
            f"shares must lie between 0 and 1 and replicates must be at least 1; got {list(shares)} and {replicates}"
        )
    inputs = CompositionInputs.read(target, basics, others or {}, shuffled, name)
    if reason := inputs.reason_untestable():
        raise HeadnbError(f"the power of a composition cannot be computed: {reason}")
    own = _StudySimulator(inputs.changes(inputs.comparable_others))
    without, controlled = inputs.with_shuffled_controls()
    minus_shuffled = None
    if not without and len(controlled) >= len(basics):
        minus_shuffled = _StudySimulator(inputs.changes(controlled, subtract_shuffled=True))
    tasks = [inputs.own[task] for task in own.changes.names]
    return CompositionPower(
        inputs.target,
        inputs.basics,
        _detection_rates(own, minus_shuffled, shares, replicates, level, np.random.default_rng(seed)),
        samples=min(stages.n for stages in tasks),
        runs=min(stages.runs for stages in tasks),
        replicates=replicates,
    )


def _detection_rates(
    own: _StudySimulator,
    minus_shuffled: _StudySimulator | None,
    shares: Sequence[float],
    replicates: int,
    level: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    rows = []
    for share in shares:
        reached = [_levels_reached(compare(own.draw(share, rng), level)) for _ in range(replicates)]
        row = pd.DataFrame(reached).mean()
        if minus_shuffled is not None:
            comparisons = (compare(minus_shuffled.draw(share, rng), level) for _ in range(replicates))
            row[BEYOND_FORMAT] = np.mean([comparison.has_excess for comparison in comparisons])
        variance = max(rate * (1 - rate) for rate in row)
        rows.append({**row, "error": float(np.sqrt(variance / replicates))})
    return pd.DataFrame(rows, index=pd.Index(shares, name="share"))


def _levels_reached(comparison: Comparison) -> dict[str, bool]:
    if comparison.excess is None:
        return {GAIN: comparison.has_gain}
    all_contribute = len(comparison.contributing) == len(comparison.unique_contributions)
    return {
        GAIN: comparison.has_gain,
        SHARED: comparison.has_excess,
        EACH_CONTRIBUTES: comparison.has_excess and all_contribute,
    }


class _StudySimulator:
    """Simulates studies like the measured one, with a given composed share of the target's change."""

    def __init__(self, changes: ComparisonInputs) -> None:
        self.changes = changes
        self._changes = [_differences(change) for change in changes.change]  # (runs, n, heads) each
        self._run_sd = [_run_sd(change) for change in changes.change]  # (heads) each
        self._decompose()

    def draw(self, share: float, rng: np.random.Generator) -> ComparisonInputs:
        """Simulate one study in which this share is composed."""
        own = self._own * rng.choice([-1, 1], size=self._own.shape)
        mixed = np.sqrt(1 - share) * own + np.sqrt(share) * self._composed
        composed = self._by_layer.on_heads(self._explained + self._size * mixed)
        patterns = [composed, *(change.mean(axis=(0, 1)) for change in self._changes[1:])]
        before, change = [], []
        for task, (measured, pattern) in enumerate(zip(self._changes, patterns, strict=True)):
            runs, n, heads = measured.shape
            resampled = rng.integers(n, size=n)
            run_effects = self._run_sd[task] * rng.standard_normal((runs, 1, heads))
            deviations = measured - measured.mean(axis=1, keepdims=True)
            change.append(MeasuredPattern(pattern + run_effects + deviations[:, resampled], None, task))
            before.append(MeasuredPattern(self.changes.before[task].plus[:, resampled], None, task))
        return ComparisonInputs(
            self.changes.names, self.changes.basics, tuple(before), tuple(change), self.changes.layers
        )

    def _decompose(self) -> None:
        """Compute the terms of the module's formula: (layers * widest), in units of the heads' levels."""
        layers, levels = self.changes.layers, self.changes.levels
        self._by_layer = ByLayer(layers, levels)
        Z = np.stack([self._by_layer(pattern.values()).ravel() for pattern in self.changes.before], axis=1)
        target_and_basics = self._changes[: 1 + self.changes.basics]
        y, *basics = (self._by_layer(change.mean(axis=(0, 1))).ravel() for change in target_and_basics)
        weights = np.linalg.lstsq(Z, y, rcond=None)[0]
        residual, *basic_residuals = (x - Z @ np.linalg.lstsq(Z, x, rcond=None)[0] for x in (y, *basics))
        B = np.stack(basic_residuals, axis=1)
        own = residual - B @ np.linalg.lstsq(B, residual, rcond=None)[0]
        products = LayerProducts([self.changes.change[0]], layers, levels)
        noise = float((products.plain() - products.corrected()).sum())
        size, lengths = float(residual @ residual) - noise, np.linalg.norm(B, axis=0)
        if not size > 0 or not (lengths > 0).all() or not own.any():
            raise HeadnbError(
                "the power of a composition cannot be computed: the changes of target or basics are only noise after "
                "regression on the patterns before fine-tuning; use more samples or training runs"
            )
        composed = (B / lengths).sum(axis=1)
        self._explained, self._size = Z @ weights, np.sqrt(size)
        self._own, self._composed = own / np.linalg.norm(own), composed / np.linalg.norm(composed)


def _differences(change: MeasuredPattern) -> Array:
    return np.asarray(change.plus if change.minus is None else change.plus - change.minus)


def _run_sd(change: MeasuredPattern) -> Array:
    """(heads): standard deviation of one run's effect, without the noise of samples in single runs."""
    runs, n, _ = change.plus.shape
    squares = sum((deviations**2).sum(axis=0) for deviations in change.run_specific_deviations())
    interaction = squares / ((runs - 1) * (n - 1) * n)
    return np.asarray(np.sqrt(np.maximum(change.by_run().var(axis=0, ddof=1) - interaction, 0)))
