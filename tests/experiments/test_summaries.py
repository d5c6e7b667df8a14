"""What notebooks say below their pictures: names and numbers of made-up patterns whose truth is known."""

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
    """Twelve samples of gamma levels about a pattern."""
    rng = np.random.default_rng(seed)
    return scores_of(pattern * rng.gamma(variation**-2, variation**2, size=(12, *SHAPE)))


def test_likeness_ranks_only_the_pairs_that_are_known_and_counts_the_others() -> None:
    rng = np.random.default_rng(3)
    base, other = rng.lognormal(sigma=0.6, size=(2, *SHAPE))
    few = drawn(base, 2).isel(sample=slice(3))
    scores = {"a": drawn(base, 1), "few": few, "b": drawn(base, 4), "c": drawn(other, 5)}
    said = summaries.correlation_summary(scores)
    assert re.match(r"Least alike are [ab] and c: r = \*\*-?0", said)
    assert "Most alike are a and b: r = **" in said
    assert said.endswith("Of 3 of 6 pairs it cannot be told from so few samples.")
    assert "nan" not in said
    assert summaries.correlation_summary({name: scores[name] for name in ("a", "few")}) == (
        "How alike the patterns are cannot be told from so few samples."
    )


def test_heads_that_do_not_exist_are_not_counted() -> None:
    pattern = np.random.default_rng(6).lognormal(size=SHAPE)
    pattern[0] = np.nan
    said = summaries.change_summary(drawn(pattern, 7), drawn(pattern, 8))
    assert "significantly, of 45;" in said
