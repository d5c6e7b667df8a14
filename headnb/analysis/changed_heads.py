"""Tests of which heads fine-tuning changed, over samples and training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headnb.stats import paired, patterns, significance
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
    """Compare the levels before and after fine-tuning, (layer, head); see `headnb.compare`.

    With one training run the result is that of `headnb.compare` and does not generalise to other runs. With several
    runs, tests and intervals are those of `run_variance.crossed_means`, over samples and runs. There is then no
    `p_max_t`, since few runs have too few sign patterns. Attributes describe the run noise: its ratio to the sample
    noise (`run_to_sample`, median over heads), the degrees of freedom by which heads share it (`run_noise_df`), the
    fraction of it along one direction over heads (`shared_by_heads`), and whether that fraction is too large for tests
    of single heads (`moves_together`), which then are too liberal.

    Args:
        pairs: (before, after) scores of each run.
        before: (n, heads), levels before fine-tuning.
        after: (runs, n, heads), levels after fine-tuning.
        alpha: q-value below which a head is `significant`.
        seed: seed of the sign flips.
        scale_free: first divide each stage of each run by its pattern's mean over heads, as `compare` does.
    """
    if len(after) == 1:
        return paired.compare(*pairs[0], alpha=alpha, seed=seed, scale_free=scale_free)
    evidence = change_evidence(before, after, scale_free=scale_free)
    if scale_free:
        before, after = (
            patterns.relative_to_mean_head(before),
            np.stack([patterns.relative_to_mean_head(run) for run in after]),
        )
    means = crossed_means(after - before)
    q = significance.q_values(p := means.p_values())
    low, high = means.intervals(1 - alpha)
    columns = {
        "difference": means.mean,
        "low": low,
        "high": high,
        "p_value": p,
        "q_value": q,
        "significant": q < alpha,
    }
    change = paired.labelled_change(columns, *pairs[0], evidence, alpha, scale_free=scale_free)
    labelled = change.assign_attrs(
        run_to_sample=means.run_to_sample,
        run_noise_df=means.d0,
        shared_by_heads=means.shared,
        moves_together=int(means.moves_together),
    )
    return as_result(labelled)
