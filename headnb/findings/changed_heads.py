"""Which heads a fine-tuning changed, over samples and over several training runs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from headnb import patterns, significance, statistics
from headnb.patterns import HEADS, Evidence
from headnb.results import as_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from headnb.statistics import Array


def changed_heads(
    pairs: Sequence[tuple[xr.Dataset, xr.Dataset]],
    before: Array,
    after: Array,
    alpha: float,
    seed: int,
    *,
    scale_free: bool = False,
) -> xr.Dataset:
    """The comparison of before and after (layer, head); see `headnb.compare`.

    Of one training run it is `headnb.compare`. Of several, a head's mean difference has the variance of
    `significance.crossed_means`, and there is no `p_max_t`: a handful of runs has too few sign patterns.

    Args:
        pairs: (before, after) scores of each run.
        before: (n, heads), their levels.
        after: (runs, n, heads).
        alpha: q-value below which a head is `significant`.
        seed: of sign flips and split halves.
        scale_free: divide each stage of each run by its pattern's mean over heads first, as `compare` does.
    """
    change = patterns.compare(*pairs[0], alpha=alpha, seed=seed, scale_free=scale_free)
    runs, n = after.shape[:2]
    if runs == 1:
        return change
    if scale_free:
        before, after = patterns.of_mean_head(before), np.stack([patterns.of_mean_head(run) for run in after])
    differences = after - before
    mean, variance, df = significance.crossed_means(differences)
    varied = variance > 0
    t = np.divide(mean, np.sqrt(variance), out=np.where(mean == 0, 0.0, np.inf), where=varied)
    p = np.where(np.isnan(mean), np.nan, 2 * stats.t.sf(np.abs(t), df))
    q = significance.q_values(p)
    half = stats.t.ppf(1 - alpha / 2, df) * np.sqrt(variance)
    columns = {
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "p_value": p,
        "q_value": q,
        "significant": q < alpha,
    }
    shape = [change.sizes[dim] for dim in HEADS]
    found = change.drop_vars("p_max_t").assign({name: (HEADS, x.reshape(shape)) for name, x in columns.items()})
    reliability = statistics.split_half_reliability(differences.mean(axis=0), seed=seed)
    evidence = Evidence(n, reliability, statistics.samples_needed(reliability, n))
    return as_result(found.assign_attrs(runs=runs, **evidence._asdict()))
