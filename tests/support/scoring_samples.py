"""A small task to score, and whether two scores are the same."""

from __future__ import annotations

import numpy as np
import xarray as xr

RANDOM = np.random.default_rng(0)


LENGTHS = RANDOM.integers(4, 40, 30)


TASK = [
    {"input_ids": (ids := RANDOM.integers(1, 300, length).tolist()), "labels": [-100, -100, *ids[2:]]}
    for length in LENGTHS
]


BUDGET = 120


def same_scores(found, expected):
    """Bit by bit; when, and by which run, they were made may differ."""
    return xr.Dataset.identical(found.drop_attrs(), expected.drop_attrs())


def stop_after(batches, error):
    """An `on_progress` that raises after so many batches."""
    seen = []

    def on_progress(progress):
        seen.append(progress)
        if len(seen) > batches:
            raise error

    return on_progress
