"""The registry of head scores: what each is called, what it is, and how samples make a pattern of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from headnb.errors import unknown_name
from headnb.scoring import gradient

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel

    from headnb.capture import HeadLayout
    from headnb.encoding import Batch


class Scorer(Protocol):
    """Scores batches of one model."""

    @property
    def layout(self) -> HeadLayout:
        """Where the model's heads are."""

    @property
    def packs(self) -> bool:
        """Whether batches may be packed (`encoding.pack`)."""

    def __call__(self, batch: Batch, *, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """Scores (B, L, H) and losses (B,) on the CPU; with `recompute` in less memory and more time."""


@dataclass(frozen=True)
class Method:
    """One kind of head score."""

    name: str
    summary: str
    """One line: meaning, cost and source."""
    reduction: Literal["mean-abs", "mean"]
    """How the scores of samples make a pattern: the mean of their absolute values, or of the signed values."""
    scorer: Callable[[PreTrainedModel], Scorer]


_METHODS = {
    method.name: method
    for method in (
        Method(
            "activation",
            "activation level: sum of attention weight times loss gradient; one forward, one backward (2409.15820)",
            "mean-abs",
            partial(gradient.gradient_scorer, reduce=gradient.activation),
        ),
        Method(
            "taylor-token",
            "the same product summed as absolute values per token; one forward, one backward (Michel et al. 2019)",
            "mean-abs",
            partial(gradient.gradient_scorer, reduce=gradient.taylor_token),
        ),
    )
}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        HeadnbError: there is none; the message names the nearest.
    """
    if name not in _METHODS:
        raise unknown_name("method", name, _METHODS)
    return _METHODS[name]


def methods() -> dict[str, str]:
    """Names of the head scores, and one line about each."""
    return {name: method.summary for name, method in _METHODS.items()}
