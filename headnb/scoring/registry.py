"""The registry of head scores: what each is called, what it is, and how samples make a pattern of it."""

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
        """Whether batches may be packed (`batching.pack`)."""

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Scores (B, L, H) and losses (B,) on the CPU.

        `budget` is how many tokens may be in a forward pass: a sample of more is scored in less memory and more time,
        and a scorer that runs a batch in many variants may put several into one pass.
        """


@runtime_checkable
class PreparedScorer(Scorer, Protocol):
    """A scorer that wants to see the whole task before it scores any of it."""

    def prepare(self, batch: Batch) -> None:
        """See one batch; all of the task's batches come, in the same order in every run."""


@dataclass(frozen=True)
class Method:
    """One kind of head score: all that is known of it. Results carry `attrs`, and nothing else tells methods apart."""

    name: str
    summary: str
    """One line: meaning, cost and source."""
    units: str
    """Of a score; "nats" of a share of the loss."""
    reduction: Literal["mean-abs", "mean"]
    """How the scores of samples make a pattern: the mean of their absolute values, or of the signed values."""
    scorer: Callable[..., Scorer] | None = None
    """Of a model and the options; None if the method has no scores of samples."""
    fit: Callable[[PreTrainedModel, FitRequest], xr.Dataset] | None = None
    """Of a method that fits one value a head to the whole task."""
    label: str = ""
    """What a value of the pattern is called, if not by the method's name."""
    online: Callable[[Tensor, Tensor], Tensor] | None = None
    """(B, H) of O and dL/dO (B, T, H, D), if that is all it takes: scores of the batches that a training runs."""
    gradient: bool = False
    """Whether it takes a backward pass through the model."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """What `score_heads(options=...)` may set, with the defaults."""

    def __post_init__(self) -> None:
        if not (self.name and self.units) or (self.scorer is None) == (self.fit is None):
            raise HeadnbError(f"the method {self.name!r} needs a name, units, and either a scorer or a fit")

    @property
    def dims(self) -> tuple[str, ...]:
        """Of `score`."""
        return ("sample", "layer", "head") if self.scorer else ("layer", "head")

    @property
    def attrs(self) -> dict[str, str]:
        """What results say of the method that made them, `METHOD_ATTRIBUTES`."""
        told = (self.name, self.label or self.name, self.units, self.reduction)
        return dict(zip(METHOD_ATTRIBUTES, told, strict=True))

    @property
    def follows_loss(self) -> bool:
        """Whether a score is a share of the loss, and so linear in it."""
        return self.units == "nats"

    def settings(self, options: Mapping[str, Option] | None) -> dict[str, Option]:
        """The options as asked for, with defaults.

        Raises:
            HeadnbError: the method has no such option, or not of this size.
        """
        for name, value in (options or {}).items():
            if name not in self.options:
                raise unknown_name(f"option of {self.name}", name, self.options)
            whole = isinstance(self.options[name], int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value <= 0:
                raise HeadnbError(f"{name} is a {'whole ' if whole else ''}number above 0, not {value!r}")
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
            "activation level: sum of attention weight times loss gradient; one forward, one backward (2409.15820)",
            gradient.activation,
            label="activation level",
        ),
        _gradient(
            "taylor-token",
            "the same product summed as absolute values per token; one forward, one backward (Michel et al. 2019)",
            gradient.taylor_token,
        ),
        Method(
            "attattr",
            "attention weight times integrated gradient of the answer's probability, its largest entry; about "
            "layers x steps / 2 forwards and backwards (Hao et al. 2021)",
            "probability",
            "mean-abs",
            attribution.attribution_scorer,
            gradient=True,
            options={"steps": 20},
        ),
        Method(
            "ablate-zero",
            "rise of the loss without the head; about heads / 2 forwards",
            "nats",
            "mean",
            ablation_scores.zero_ablation_scorer,
        ),
        Method(
            "ablate-mean",
            "rise of the loss with the head's output replaced by its mean over the task; about heads / 2 forwards",
            "nats",
            "mean",
            ablation_scores.mean_ablation_scorer,
        ),
        Method(
            "gates",
            "causal head gating: the gate that a head keeps although closing it is rewarded; 3 x steps forwards and "
            "backwards of 32 samples (2505.13737)",
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
    """The method of a name; with `of_samples` one that scores every sample.

    Raises:
        HeadnbError: there is none; the message names the nearest.
    """
    if name not in _METHODS:
        raise unknown_name("method", name, _METHODS)
    if of_samples and "sample" not in _METHODS[name].dims:
        raise HeadnbError(f"the method {name!r} has one value a head and none of samples, which are needed here")
    return _METHODS[name]


@check_arguments
def methods(*, of_samples: bool = False) -> dict[str, str]:
    """Names of the head scores, and one line about each; with `of_samples` those that score every sample."""
    return {name: method.summary for name, method in _METHODS.items() if "sample" in method.dims or not of_samples}


def online_methods() -> list[str]:
    """Names of the methods that `HeadScoreCallback(online=True)` has."""
    return [name for name, method in _METHODS.items() if method.online]


def stored_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options as attributes of the scores: none where the method has none."""
    return {f"option_{name}": value for name, value in settings.items()}
