"""Registry of the head score methods: name, meaning, unit, options, and how sample scores make a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from headnb.call_checks import check_arguments, checked_number
from headnb.errors import HeadnbError, unknown_name
from headnb.scoring import ablation_scores, activity, attribution, gates, gradient
from headnb.stats.results import METHOD_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr
    from torch import Tensor
    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.scoring.gates import FitRequest
    from headnb.scoring.one_pass import Recorder

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
    scorer: Recorder | Callable[..., Scorer] | None = None
    """A recorder, for methods that share one pass; or a function that creates a scorer with passes of its own from a
    model and the options. None if the method has no sample scores."""
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
            HeadnbError: the method does not have such an option, or the value is not a finite number above 0.
        """
        settings = dict(self.options)
        for name, value in (options or {}).items():
            if name not in settings:
                raise unknown_name(f"option of {self.name}", str(name), self.options)
            settings[name] = checked_number(name, value, type(settings[name]).__name__)
            if settings[name] <= 0:
                raise HeadnbError(f"{name} must be above 0, not {value}")
        return settings


def _gradient(name: str, summary: str, reduce: Callable[[Tensor], Tensor], label: str = "") -> Method:
    def online(O: Tensor, dO: Tensor) -> Tensor:
        return reduce(gradient.token_products(O, dO))

    recorder = gradient.gradient_recorder(reduce)
    return Method(name, summary, "nats", "mean-abs", recorder, label=label, online=online, gradient=True)


def _activity(name: str, score: activity.Activity) -> Method:
    recorder = activity.activity_recorder(score)
    return Method(name, f"{score.summary} (2504.03889)", score.units, "mean-abs", recorder)


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
            "like activation, but with absolute values per token; 1 forward, 1 backward pass (Michel et al. 2019)",
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
    if not isinstance(name, str) or name not in _METHODS:
        raise unknown_name("method", str(name), _METHODS)
    if of_samples and "sample" not in _METHODS[name].dims:
        raise HeadnbError(
            f"the method {name!r} has one value per head; a method that scores every sample is needed here"
        )
    return _METHODS[name]


def find_methods(names: str | Sequence[str]) -> list[Method]:
    """The methods with these names, which one call may combine: one for a string, several for a list.

    Raises:
        HeadnbError: there is no name, a name is given twice, or several methods include one that has no sample scores;
            or as for `find_method`.
    """
    if isinstance(names, str):
        return [find_method(names)]
    if not isinstance(names, (list, tuple)):
        raise HeadnbError(f"method must be a name or a list of names, not {names!r:.60}")
    if not names:
        raise HeadnbError("the list of methods is empty; give at least one, such as method=['activation', 'entropy']")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise HeadnbError(f"the method {repeated[0]!r} is given twice")
    chosen = [find_method(name) for name in names]
    for method in chosen:
        if method.fit is not None:
            raise HeadnbError(
                f"{method.name} is fitted to all samples at once and cannot share a pass with other methods; "
                f"use method={method.name!r} in a separate call"
            )
    return chosen


@check_arguments
def methods(*, of_samples: bool = False) -> dict[str, str]:
    """Name -> one-line description of each method; with `of_samples` only methods that score every sample."""
    return {name: method.summary for name, method in _METHODS.items() if "sample" in method.dims or not of_samples}


def method_settings(
    names: str | Sequence[str], options: Mapping[str, Option] | Mapping[str, Mapping[str, Option]] | None
) -> dict[str, dict[str, Option]]:
    """The options of each method, completed by its defaults; for a list of methods, `options` are by method.

    Raises:
        HeadnbError: options of a method that is not in the list, or as for `find_methods` and `Method.settings`.
    """
    chosen = {method.name: method for method in find_methods(names)}
    if not isinstance(options, Mapping | None):
        raise HeadnbError(f"options must be a dict of names and values, such as {{'steps': 50}}, not {options!r:.60}")
    given: Mapping[str, Any] = {names: options} if isinstance(names, str) else options or {}
    for name, value in given.items():
        if not isinstance(value, Mapping | None):
            raise HeadnbError("options of several methods are given by method, such as {'attattr': {'steps': 50}}")
        if name not in chosen:
            raise unknown_name("method in options", str(name), chosen)
    return {name: method.settings(given.get(name)) for name, method in chosen.items()}


def online_methods() -> list[str]:
    """Names of the methods that `HeadScoreCallback(online=True)` supports."""
    return [name for name, method in _METHODS.items() if method.online]


def stored_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options as attributes of the scores; empty if the method has no options."""
    return {f"option_{name}": value for name, value in settings.items()}
