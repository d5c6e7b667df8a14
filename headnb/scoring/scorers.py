"""Scorers of one model by several methods: those with a recorder share one pass, each other one has its own passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headnb.engine.losses import find_heads_and_loss_computer
from headnb.scoring import one_pass
from headnb.scoring.one_pass import PassScorer, Recorder, pass_scorer
from headnb.scoring.registry import PreparedScorer, find_method

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor
    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.scoring.registry import Option, Scorer


@dataclass(frozen=True)
class Scorers:
    """Scores batches by several methods. Create it with `make_scorers`."""

    by_method: Mapping[str, Scorer]

    @property
    def layout(self) -> HeadLayout:
        """Where the model's heads are."""
        return next(iter(self.by_method.values())).layout

    @property
    def supports_packing(self) -> bool:
        """Whether packed batches (`batching.pack`) are supported."""
        return all(scorer.supports_packing for scorer in self.by_method.values())

    @property
    def prepared(self) -> dict[str, PreparedScorer]:
        """Those that need a first pass over the whole task."""
        return {name: scorer for name, scorer in self.by_method.items() if isinstance(scorer, PreparedScorer)}

    def only(self, methods: Collection[str]) -> Scorers:
        """The scorers of some of the methods."""
        return Scorers({name: scorer for name, scorer in self.by_method.items() if name in methods})

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Scores (B, L, H) by method, and losses (B,), on the CPU; `budget` as for `Scorer`."""
        shared = {name: scorer for name, scorer in self.by_method.items() if isinstance(scorer, PassScorer)}
        scores: dict[str, Tensor] = {}
        if shared:
            found, losses = one_pass.run_pass(list(shared.values()), batch, budget=budget)
            scores = dict(zip(shared, found, strict=True))
        for name, scorer in self.by_method.items():
            if name not in shared:
                scores[name], losses = scorer(batch, budget=budget)
        return scores, losses


def make_scorers(model: PreTrainedModel, settings: Mapping[str, Mapping[str, Option]]) -> Scorers:
    """Create the scorers of a model from the options of each method.

    Raises:
        HeadnbError: a method is unknown or has no sample scores, or as for `pass_scorer`.
    """
    methods = {name: find_method(name, of_samples=True) for name in settings}
    found = None
    scorers: dict[str, Scorer] = {}
    for name, method in methods.items():
        if isinstance(method.scorer, Recorder):
            found = found or find_heads_and_loss_computer(model)
            scorers[name] = pass_scorer(model, method.scorer, found)
        elif method.scorer is not None:
            scorers[name] = method.scorer(model, **settings[name])
    return Scorers(scorers)
