"""What a run tells while it goes on, and what an interrupt keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from headnb.engine.tokenization import EncodedSample


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int
    """Samples scored, those of an earlier run included; steps, of a method that fits."""
    total: int
    seconds: float
    """Since this run began."""
    samples_per_second: float
    seconds_left: float | None
    """Estimated from tokens, not samples; None before the first batch."""
    tokens: int
    """Tokens scored in this run, padding not counted."""
    message: str
    """What a user should know, for instance that memory ran out and batches are smaller now; else empty."""
    scores: Callable[[], xr.Dataset]
    """The scores of the blocks that are complete (of all that is done, during the first block)."""
    unit: str = "samples"
    """What is counted."""


class ScoringInterrupted(KeyboardInterrupt):
    """Ctrl-C during `score_heads`; `scores` holds what was scored until then.

    Attributes:
        done: how many samples are scored, or steps of a fit done.
        words: "12 of 64 samples are scored".
    """

    def __init__(self, scores: xr.Dataset) -> None:
        about = scores.attrs
        if "sample" in scores.sizes:
            self.done = scores.sizes["sample"]
            total = about.get("samples_requested", self.done) - about.get("left_out", 0)
            self.words = f"{self.done} of {total} samples are scored"
        else:
            self.done = about["steps_done"]
            self.words = f"{self.done} of {about['steps_total']} steps are done"
        super().__init__(f"interrupted; {self.words}")
        self.scores = scores


class NotFiniteError(Exception):
    """The loss or a score of `sample` is NaN or infinite; the message says which."""

    def __init__(self, words: str, sample: EncodedSample) -> None:
        super().__init__(words)
        self.sample = sample


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an error type of its own; the CPU's allocator and MPS say it in words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error).lower() for said in words)
