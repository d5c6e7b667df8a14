"""Which heads a fine-tuning changed, over samples and over several training runs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headnb.stats import patterns, significance
from headnb.stats.reliability import change_evidence
from headnb.stats.results import as_result
from headnb.stats.run_variance import crossed_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from headnb.stats.descriptive import Array


RUN_NOISE_ATTRS = ("run_to_sample", "run_noise_df", "shared_by_heads", "moves_together")


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

    Of one training run it is `headnb.compare`, and says nothing about another run. Of several, tests and intervals are
    those of `run_variance.crossed_means`, over samples and runs, and there is no `p_max_t`: a handful of runs has too
    few sign patterns. Attributes say how run noise compares to that of samples (`run_to_sample`, the median over
    heads), by how many degrees of freedom heads share it (`run_noise_df`), and whether heads move together
    (`shared_by_heads`, `moves_together`), in which case tests of single heads find too much.

    Args:
        pairs: (before, after) scores of each run.
        before: (n, heads), their levels.
        after: (runs, n, heads).
        alpha: q-value below which a head is `significant`.
        seed: of sign flips.
        scale_free: divide each stage of each run by its pattern's mean over heads first, as `compare` does.
    """
    if len(after) == 1:
        return patterns.compare(*pairs[0], alpha=alpha, seed=seed, scale_free=scale_free)
    evidence = change_evidence(before, after, scale_free=scale_free)
    if scale_free:
        before, after = (
            patterns.relative_to_mean_head(before),
            np.stack([patterns.relative_to_mean_head(run) for run in after]),
        )
    found = crossed_means(after - before)
    q = significance.q_values(p := found.p_values())
    low, high = found.intervals(1 - alpha)
    columns = {
        "difference": found.mean,
        "low": low,
        "high": high,
        "p_value": p,
        "q_value": q,
        "significant": q < alpha,
    }
    change = patterns.labelled_change(columns, *pairs[0], evidence, alpha, scale_free=scale_free)
    told = change.assign_attrs(
        run_to_sample=found.run_to_sample,
        run_noise_df=found.d0,
        shared_by_heads=found.shared,
        moves_together=int(found.moves_together),
    )
    return as_result(told)
