"""Design of a combination fit: measured patterns, and their linear combinations that form target and predictors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headnb.analysis.debiased_products import MeasuredPattern
from headnb.errors import HeadnbError
from headnb.stats.reliability import MIN_SAMPLES
from headnb.stats.results import check_levels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from headnb.analysis.before_after import Stages
    from headnb.analysis.composition.least_squares import Form
    from headnb.stats.descriptive import Array
    from headnb.stats.reliability import Evidence

SHRINKAGE, OTHERS, SHUFFLED_ANSWERS = "shrinkage alone", "the mean change of other tasks", "shuffled answers"


@dataclass(frozen=True)
class Design:
    """The measured patterns of a fit, and their combinations that form target, predictors and null models."""

    patterns: list[MeasuredPattern]
    rows: Array  # (patterns, heads)
    basics: list[str]
    nulls: dict[str, Array]  # null model -> (patterns, k) combinations
    layers: Array  # (heads)
    present: NDArray[np.bool_]  # (layers x heads), bool
    grid: xr.DataArray
    n: int  # number of samples of the target

    @classmethod
    def of(
        cls, stages: Mapping[str, Stages], basics: Sequence[str], others: Sequence[str], *, on: str, scale_free: bool
    ) -> Design:
        """Build the design from stages named "target", "basic ...", "other ..." and, optionally, "shuffled".

        Raises:
            HeadnbError: too few heads that all patterns have, or a pattern that the given changes do not determine.
        """
        present = ~np.any([stage.missing for stage in stages.values()], axis=0)
        if present.sum() <= len(basics) + 1:
            raise HeadnbError(f"{present.sum()} common heads are too few to fit {len(basics)} weights")
        names = list(stages)
        patterns = [_measure(name, stage, present, on, scale_free=scale_free) for name, stage in stages.items()]
        target = stages["target"]
        if target.before is not None:
            names.append("before")
            key = patterns[0].sample_set
            patterns.append(MeasuredPattern(target.before[None][..., present], None, key, scale_free))
        unit = np.eye(len(names))
        vector = {name: unit[i] for i, name in enumerate(names)}
        nulls = {SHRINKAGE: vector["before"][:, None]} if "before" in vector else {}
        if others:
            nulls[OTHERS] = np.mean([vector[f"other {name}"] for name in others], axis=0)[:, None]
        if "shuffled" in vector:
            nulls[SHUFFLED_ANSWERS] = vector["shuffled"][:, None]
        rows = np.stack([pattern.values() for pattern in patterns])
        return cls(patterns, rows, list(basics), nulls, target.layers[present], present, target.grid, target.n)

    @property
    def observed(self) -> Array:
        """(heads): the target pattern."""
        return np.asarray(self.rows[0])

    @property
    def predictors(self) -> Array:
        """(heads, basics): the basic tasks' patterns."""
        return np.asarray(self.rows[1 : 1 + len(self.basics)].T)

    @property
    def target(self) -> Array:
        """(patterns): the unit vector that selects the target."""
        return np.asarray(np.eye(len(self.patterns))[0])

    @property
    def columns(self) -> Array:
        """(patterns, basics): the unit vectors that select the basics."""
        return np.eye(len(self.patterns))[:, 1 : 1 + len(self.basics)]

    def evidence(self) -> list[Evidence]:
        """Reliability of the target and of each basic."""
        return [pattern.components().evidence for pattern in self.patterns[: 1 + len(self.basics)]]

    def on_grid(self, heads: Array) -> xr.DataArray:
        """Values of the heads as a pattern (layer, head), NaN where a head is missing."""
        flat = np.full(len(self.present), np.nan)
        flat[self.present] = heads
        return self.grid.copy(data=flat.reshape(self.grid.shape)).drop_attrs()


def selection_frequency(design: Design, form: Form, resamples: int = 500, seed: int = 0) -> Array:
    """(basics): fraction of bootstrap resamples in which the weight is above zero.

    Samples (before/after pairs stay together) and training runs are resampled. NaN if a pattern has too few samples:
    a pattern without samples would be the same in every resample.
    """
    if any(pattern.samples < MIN_SAMPLES for pattern in design.patterns[: 1 + len(design.basics)]):
        return np.full(len(design.basics), np.nan)
    rng = np.random.default_rng(seed)
    counts: dict[object, Array] = {}
    resampled = []
    for pattern in design.patterns[: 1 + len(design.basics)]:
        n, runs = pattern.samples, len(pattern.plus)
        if pattern.sample_set not in counts:
            counts[pattern.sample_set] = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
        run_counts = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs
        resampled.append(pattern.resampled(counts[pattern.sample_set], run_counts))
    y, X = resampled[0], np.stack(resampled[1:], axis=-1)
    weights = np.array([form.fit(X[i], y[i])[0] for i in range(resamples)])
    return np.asarray((weights > 0).mean(axis=0))


def _measure(name: str, stages: Stages, present: NDArray[np.bool_], on: str, *, scale_free: bool) -> MeasuredPattern:
    if stages.before is None and (scale_free or on == "after"):
        wanted = "a scale-free form" if scale_free else "a pattern after fine-tuning"
        raise HeadnbError(f"{name}: a difference alone does not determine {wanted}; give a (before, after) pair")
    if scale_free:
        check_levels("scale_free", signed=stages.signed, of=name)
    # Tasks evaluated on the same samples share sample noise; other patterns have independent noise.
    key = stages.sample_set if stages.n else (name,)
    minus = stages.before[:, present] if on == "change" and stages.before is not None else None
    return MeasuredPattern(stages.after[..., present], minus, key, scale_free)
