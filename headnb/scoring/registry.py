"""Registry of the head score methods: name, meaning, unit, options, and how sample scores make a pattern."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name
from headnb.scoring import ablation_scores, activity, attribution, gates, gradient
from headnb.stats.results import METHOD_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr
    from torch import Tensor
    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.scoring.gates import FitRequest

Option: TypeAlias = int | float


class Scorer(Protocol):
    """Scores batches of one model."""

    @property
    def layout(self) -> HeadLayout:
        """Where the model's heads are."""

    @property
    def supports_packing(self) -> bool:
        """Whether packed batches (`batching.pack`) are supported."""

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Scores (B, L, H) and losses (B,), on the CPU.

        `budget` is the number of tokens allowed in one forward pass. A longer sample is scored with less memory and
        more time. A scorer that runs several variants of a batch may put them into one pass within the budget.
        """


@runtime_checkable
class PreparedScorer(Scorer, Protocol):
    """A scorer that needs a first pass over the whole task before it scores a batch."""

    def prepare(self, batch: Batch) -> None:
        """Process one batch of the first pass. Every batch of the task is passed, in the same order in every run."""


@dataclass(frozen=True)
class Method:
    """A method of scoring heads. Other modules distinguish methods only by `attrs`, which results carry."""

    name: str
    summary: str
    """One line: meaning, cost and source."""
    units: str
    """Unit of a score; "nats" for a contribution to the loss."""
    reduction: Literal["mean-abs", "mean"]
    """How a pattern is computed from sample scores: the mean of absolute values, or of signed values."""
    scorer: Callable[..., Scorer] | None = None
    """Creates a scorer from a model and the options; None if the method has no sample scores."""
    fit: Callable[[PreTrainedModel, FitRequest], xr.Dataset] | None = None
    """Fits one value per head to the whole task, for methods without sample scores."""
    label: str = ""
    """Name of a value of the pattern; empty: the name of the method."""
    online: Callable[[Tensor, Tensor], Tensor] | None = None
    """Computes scores (B, H) from O and dL/dO (B, T, H, D); used to score the batches of a training run. None if the
    method needs more than O and dL/dO."""
    gradient: bool = False
    """Whether the method needs a backward pass through the model."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Options of `score_heads(options=...)` and their defaults."""

    def __post_init__(self) -> None:
        if not (self.name and self.units) or (self.scorer is None) == (self.fit is None):
            raise HeadnbError(f"the method {self.name!r} needs a name, units, and either a scorer or a fit")

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of `score`."""
        return ("sample", "layer", "head") if self.scorer else ("layer", "head")

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes of results that describe the method, `METHOD_ATTRIBUTES`."""
        values = (self.name, self.label or self.name, self.units, self.reduction)
        return dict(zip(METHOD_ATTRIBUTES, values, strict=True))

    @property
    def follows_loss(self) -> bool:
        """Whether a score is a contribution to the loss, and therefore linear in it."""
        return self.units == "nats"

    def settings(self, options: Mapping[str, Option] | None) -> dict[str, Option]:
        """The given options, completed by the defaults.

        Raises:
            HeadnbError: the method does not have such an option, or the value is not a number above 0.
        """
        for name, value in (options or {}).items():
            if name not in self.options:
                raise unknown_name(f"option of {self.name}", name, self.options)
            whole = isinstance(self.options[name], int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value <= 0:
                raise HeadnbError(f"{name} must be {'an integer' if whole else 'a number'} above 0, not {value!r}")
        return {**self.options, **(options or {})}


def _gradient(name: str, summary: str, reduce: Callable[[Tensor, Tensor], Tensor], label: str = "") -> Method:
    scorer = partial(gradient.gradient_scorer, reduce=reduce)
    return Method(name, summary, "nats", "mean-abs", scorer, label=label, online=reduce, gradient=True)


def _activity(name: str, score: activity.Activity) -> Method:
    scorer = partial(activity.activity_scorer, score=score)
    return Method(name, f"{score.summary} (2504.03889)", score.units, "mean-abs", scorer)


_METHODS = {
    method.name: method
    for method in (
        _gradient(
            "activation",
            "activation level: sum of attention weight times loss gradient; 1 forward, 1 backward pass (2409.15820)",
            gradient.activation,
            label="activation level",
        ),
        _gradient(
            "taylor-token",
            "as activation, with absolute values per token; 1 forward, 1 backward pass (Michel et al. 2019)",
            gradient.taylor_token,
        ),
        Method(
            "attattr",
            "largest attention weight times integrated gradient of the answer's probability; about layers x steps / 2 "
            "forward and backward passes (Hao et al. 2021)",
            "probability",
            "mean-abs",
            attribution.attribution_scorer,
            gradient=True,
            options={"steps": 20},
        ),
        Method(
            "ablate-zero",
            "increase of the loss if the head's output is replaced by zero; about heads / 2 forward passes",
            "nats",
            "mean",
            ablation_scores.zero_ablation_scorer,
        ),
        Method(
            "ablate-mean",
            "increase of the loss if the head's output is replaced by its mean over the task; about heads / 2 forward "
            "passes",
            "nats",
            "mean",
            ablation_scores.mean_ablation_scorer,
        ),
        Method(
            "gates",
            "causal head gating: gate of the head after a fit that rewards closed gates; 3 x steps forward and "
            "backward passes of 32 samples (2505.13737)",
            "gate",
            "mean-abs",
            fit=gates.fit_gates,
            gradient=True,
            options=gates.OPTIONS,
        ),
        *(_activity(name, score) for name, score in activity.ACTIVITIES.items()),
    )
}


def find_method(name: str, *, of_samples: bool = False) -> Method:
    """The method with this name; `of_samples` requires one that scores every sample.

    Raises:
        HeadnbError: no such method (the message names the nearest), or it does not score samples.
    """
    if name not in _METHODS:
        raise unknown_name("method", name, _METHODS)
    if of_samples and "sample" not in _METHODS[name].dims:
        raise HeadnbError(
            f"the method {name!r} has one value per head; a method that scores every sample is needed here"
        )
    return _METHODS[name]


@check_arguments
def methods(*, of_samples: bool = False) -> dict[str, str]:
    """Name -> one-line description of each method; with `of_samples` only methods that score every sample."""
    return {name: method.summary for name, method in _METHODS.items() if "sample" in method.dims or not of_samples}


def online_methods() -> list[str]:
    """Names of the methods that `HeadScoreCallback(online=True)` supports."""
    return [name for name, method in _METHODS.items() if method.online]


def stored_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options as attributes of the scores; empty if the method has no options."""
    return {f"option_{name}": value for name, value in settings.items()}
