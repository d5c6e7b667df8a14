"""Sentences of the notebooks: names and numbers for simulated patterns with a known truth."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from headnb.experiments import summaries

from simulated_finetuning import scores_of

if TYPE_CHECKING:
    import xarray as xr

SHAPE = (6, 9)


def drawn(pattern: np.ndarray, seed: int, variation: float = 0.5) -> xr.Dataset:
    """Twelve samples with gamma-distributed levels around a pattern."""
    rng = np.random.default_rng(seed)
    return scores_of(pattern * rng.gamma(variation**-2, variation**2, size=(12, *SHAPE)))


def test_correlation_summary_ranks_the_available_pairs_and_counts_the_rest() -> None:
    rng = np.random.default_rng(3)
    base, other = rng.lognormal(sigma=0.6, size=(2, *SHAPE))
    few = drawn(base, 2).isel(sample=slice(3))
    scores = {"a": drawn(base, 1), "few": few, "b": drawn(base, 4), "c": drawn(other, 5)}
    text = summaries.correlation_summary(scores)
    assert re.match(r"Lowest noise-corrected correlation: [ab] and c, r = \*\*−?0", text)
    assert "Highest noise-corrected correlation: a and b, r = **" in text
    assert text.endswith("Not available for 3 of 6 pairs: too few samples.")
    assert "nan" not in text
    assert summaries.correlation_summary({name: scores[name] for name in ("a", "few")}) == (
        "Correlations between the patterns are not available: too few samples."
    )


def test_heads_that_do_not_exist_are_not_counted() -> None:
    pattern = np.random.default_rng(6).lognormal(size=SHAPE)
    pattern[0] = np.nan
    assert " of 45 heads rose significantly" in summaries.change_summary(drawn(pattern, 7), drawn(pattern, 8))
