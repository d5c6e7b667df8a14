"""Progress reports of a scoring, for tests of displays."""

from __future__ import annotations

from typing import Any

from headnb.scoring.progress import Progress

from synthetic_results import scores


def progress(done: int, total: int = 32, *, layers: int = 3, heads: int = 4, **more: Any) -> Progress:
    """Progress with synthetic scores of the samples done so far."""
    facts = {"seconds": 4.0, "samples_per_second": 3.0, "seconds_left": 6.4, "tokens": 10, "message": ""} | more
    return Progress(done, total, scores=lambda: scores(done, layers, heads, samples_requested=total), **facts)
