"""Progress of a scoring run, and the exceptions that end one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headnb.errors import HeadnbError
from headnb.storage.method_results import MethodResults

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import xarray as xr

    from headnb.engine.tokenization import EncodedSample


@dataclass(frozen=True)
class Progress:
    """Progress of a scoring run."""

    done: int
    """Number of scored samples, including those of an earlier run; number of steps if the method is a fit."""
    total: int
    seconds: float
    """Time since this run began."""
    samples_per_second: float
    seconds_left: float | None
    """Estimated from tokens, not samples; None before the first batch."""
    tokens: int
    """Tokens scored in this run, without padding."""
    message: str
    """A notice for the user, for instance that memory ran out and batches are smaller now; else empty."""
    scores: Callable[[], Any]
    """Returns the scores of complete blocks (during the first block: of all scored samples): a data set, or
    `MethodResults` of several methods."""
    unit: str = "samples"
    """What `done` and `total` count."""


class ScoringInterrupted(KeyboardInterrupt):
    """Ctrl-C during `score_heads`; `scores` holds the scores so far.

    Attributes:
        done: number of scored samples, or of steps of a fit.
        words: "12 of 64 samples are scored".
    """

    def __init__(self, scores: xr.Dataset | MethodResults) -> None:
        first = next(iter(scores.values())) if isinstance(scores, MethodResults) else scores
        attrs = first.attrs
        if "sample" in first.sizes:
            self.done = first.sizes["sample"]
            total = attrs.get("samples_requested", self.done) - attrs.get("left_out", 0)
            self.words = f"{self.done} of {total} samples are scored"
        else:
            self.done = attrs["steps_done"]
            self.words = f"{self.done} of {attrs['steps_total']} steps are done"
        super().__init__(f"interrupted; {self.words}")
        self.scores = scores


class NotFiniteError(Exception):
    """The loss or a score of `sample` is NaN or infinite; the message says which."""

    def __init__(self, message: str, sample: EncodedSample) -> None:
        super().__init__(message)
        self.sample = sample


def smaller_budget(budget: int, lengths: np.ndarray, tokens: int) -> int:
    """Token budget of the next batches after one ran out of memory; frees CUDA's unused memory.

    Args:
        budget: the budget so far.
        lengths: number of tokens of each sample of the batch.
        tokens: number of tokens of the batch, padding included.

    Raises:
        HeadnbError: the batch was one sample longer than the budget, whose activations were recomputed already.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    longest = int(lengths.max())
    if len(lengths) == 1 and longest > budget:
        raise HeadnbError(f"one sample of {longest} tokens does not fit in memory; truncate samples with max_length")
    return max(1, min(budget, tokens) // 2)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out. CUDA has its own error type; the CPU allocator and MPS only have messages."""
    messages = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error).lower() for message in messages)
