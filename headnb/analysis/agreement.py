"""Agreement of score methods: noise-corrected rank correlations over heads, and overlap of their top heads.

Sampling noise weakens a correlation, so two methods that measure the same quantity would seem to differ. The
correlation is corrected for this noise (`jackknife.rank_correlation`). An overlap of the top k heads needs references:
two random choices of k of H heads share k^2 / H on average (hypergeometric), and two halves of one method's samples
share fewer than k.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy import stats

from headnb.analysis.json_values import as_records, to_json_value
from headnb.analysis.result import AnalysisResult
from headnb.call_checks import check_arguments
from headnb.display.charts.matrices import correlation_matrix
from headnb.errors import HeadnbError, unknown_name
from headnb.scoring.registry import find_method
from headnb.scoring.registry import methods as known_methods
from headnb.scoring.run import score_heads
from headnb.stats.jackknife import rank_correlation
from headnb.stats.paired import check_comparable, common_samples
from headnb.stats.patterns import HEADS, sample_levels
from headnb.stats.reliability import components
from headnb.stats.rounding import interval_text
from headnb.tasks.loading import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.display.charts.chart import Chart
    from headnb.engine.tokenization import EncodingName
    from headnb.scoring.registry import Option
    from headnb.stats.descriptive import Array

KS = (10, 30)
RANDOM_SPLITS = 50
_SAME_ATTRS = ("task", "task_fingerprint", "encoding", "loss_reduction", "model_fingerprint")  # of compared scores


@dataclass(frozen=True, repr=False)
class Agreement(AnalysisResult):
    """Agreement of the head rankings of several methods; `measure` and `other_measure` are labelled by method.

    Attributes:
        correlation: Dataset (measure, other_measure) of `value`, `low`, `high`: Spearman correlation over heads of the
            patterns expected with unlimited samples; `uncorrected` is the correlation of the observed patterns.
        overlap: Dataset with `shared` (measure, other_measure, k), the number of top-k heads that two methods share;
            `p`, the probability that two random choices share at least as many; `expected` and `at_most` (k), the mean
            and the upper quantile (at `level`) of the number shared by two random choices.
        own: (measure, k), the mean number of top-k heads that two random halves of one method's samples share.
        reliability: (measure), expected correlation of the pattern with the pattern of the same number of new samples.
        samples: number of samples that all methods scored.
        heads: number of heads that all methods scored.
        level: confidence level of the intervals.
    """

    correlation: xr.Dataset
    overlap: xr.Dataset
    own: xr.DataArray
    reliability: xr.DataArray
    samples: int
    heads: int
    level: float

    @property
    def table(self) -> pd.DataFrame:
        """One row per pair of methods."""
        import pandas as pd  # noqa: PLC0415

        names = self.correlation["measure"].to_numpy().tolist()
        rows = []
        for pair in itertools.combinations(names, 2):
            at = dict(zip(("measure", "other_measure"), pair, strict=True))
            row = {name: float(self.correlation[name].sel(at)) for name in ("value", "low", "high", "uncorrected")}
            shared = self.overlap["shared"].sel(at)
            rows.append(at | row | {f"top {k}": int(shared.sel(k=k)) for k in self._ks})
        return pd.DataFrame(rows).set_index(["measure", "other_measure"])

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        lines = []
        for (one, other), row in self.table.iterrows():
            shared = []
            for k in self._ks:
                at_most = int(self.overlap["at_most"].sel(k=k))
                chance = "not above chance" if row[f"top {k}"] <= at_most else f"chance: at most {at_most}"
                shared.append(f"{int(row[f'top {k}'])} of the top {k} ({chance})")
            r = interval_text(row["value"], row["low"], row["high"])
            lines.append(f"{one} and {other}: Spearman correlation {r}; shared heads: {', '.join(shared)}.")
        return " ".join([*lines, f"{self.samples} samples, {self.heads} heads."])

    def plot(self) -> Chart:
        """Matrix of the rank correlations."""
        return correlation_matrix(self.correlation[["value", "low", "high"]], title="rank correlation of methods")

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        return {
            "pairs": as_records(self.table),
            "own": {
                str(name): [to_json_value(value) for value in row]
                for name, row in zip(self.own["measure"].to_numpy(), self.own, strict=True)
            },
            "reliability": {str(name): to_json_value(value) for name, value in self.reliability.to_series().items()},
            "ks": self._ks,
            "samples": self.samples,
            "level": self.level,
            "verdict": self.verdict,
        }

    @property
    def _ks(self) -> list[int]:
        return [int(k) for k in self.overlap["k"].to_numpy()]

    def _title(self) -> str:
        halves = {
            name: ", ".join(f"{float(self.own.sel(measure=name, k=k)):.1f} of {k}" for k in self._ks)
            for name in self.reliability["measure"].to_numpy()
        }
        by_method = ", ".join(f"{name} {r:.2f} ({halves[name]})" for name, r in self.reliability.to_series().items())
        return f"Reliability (top heads shared by two halves of the samples): {by_method}"


@check_arguments
def compare_methods(
    scores: Mapping[str, xr.Dataset] | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: Task | Any = None,
    *,
    methods: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Option]] | None = None,
    ks: Sequence[int] = KS,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Measure how similarly several methods rank a model's heads.

    Args:
        scores: name -> scores of one model on one task, such as the `MethodResults` of `score_heads`; or a model to
            score. Scores are compared as they are, without the arguments that score a model.
        tokenizer: the model's tokenizer.
        task: task to score a model on: a `Task`, or anything that `load_task` accepts.
        methods: methods to score a model with, names from `headnb.methods()`; they share the passes of `score_heads`.
        options: method -> its `options` for `score_heads`, such as {"attattr": {"steps": 10}}.
        ks: numbers of top heads to compare; values above half of the heads are dropped.
        batch_tokens: as for `score_heads`.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        level: confidence level of the intervals.
        seed: seed of the batch order and of the split halves.

    Raises:
        HeadnbError: fewer than two methods, scores of different heads, samples, tasks or encodings, or an error of
            `score_heads`.
    """
    if any(k < 1 for k in ks):
        raise HeadnbError(f"ks must be numbers of heads, each at least 1; got {min(ks)}")
    for_model = {
        "tokenizer": tokenizer,
        "task": task,
        "methods": methods or None,
        "options": options or None,
        "max_length": max_length,
    }
    if not isinstance(scores, Mapping):
        how = {"batch_tokens": batch_tokens, "max_length": max_length, "encoding": encoding, "seed": seed}
        scores = _score_by_methods(scores, tokenizer, task, methods, options or {}, how)
    elif len(scores) < 2:
        raise HeadnbError("a comparison needs at least two methods; pass a mapping of name -> scores")
    elif unused := [name for name, value in for_model.items() if value is not None]:
        raise HeadnbError(f"{', '.join(unused)}: only with a model to score; scores are compared as they are")
    levels = _common_levels(scores)
    heads = next(iter(levels.values())).shape[1]
    most = [int(k) for k in sorted(set(ks)) if k <= heads / 2] or [max(1, heads // 4)]
    names = list(levels)
    reliability = [components(each).reliability for each in levels.values()]
    return Agreement(
        correlation=_correlations(levels, level, seed),
        overlap=_overlaps(levels, most, level),
        own=xr.DataArray(
            [_split_half_overlap(each, most, seed) for each in levels.values()],
            {"measure": names, "k": most},
            ("measure", "k"),
        ),
        reliability=xr.DataArray(reliability, {"measure": names}, ("measure",)),
        samples=max(map(len, levels.values())),
        heads=heads,
        level=level,
    )


def _score_by_methods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    methods: Sequence[str],
    options: Mapping[str, Mapping[str, Option]],
    settings: Mapping[str, Any],
) -> dict[str, xr.Dataset]:
    """Method -> scores; options are checked before the first method runs. Only a fit has a run of its own."""
    if len(set(methods)) < 2 or task is None:
        raise HeadnbError(f"scoring a model needs a task and at least two methods; known: {', '.join(known_methods())}")
    for name in options:
        if name not in methods:
            raise unknown_name("compared method", name, methods)
    chosen = {name: find_method(name) for name in methods}
    for name, method in chosen.items():
        method.settings(options.get(name))
    task = task if isinstance(task, Task) else load_task(task)
    shared = [name for name, method in chosen.items() if method.fit is None]
    scored: dict[str, xr.Dataset] = {}
    if shared:
        of_shared = {name: options[name] for name in shared if name in options}
        scored |= score_heads(model, tokenizer, task, method=shared, options=of_shared, **settings)
    for name in [name for name in chosen if name not in scored]:
        scored[name] = score_heads(model, tokenizer, task, method=name, options=options.get(name), **settings)
    return {name: scored[name] for name in methods}


def _common_levels(scores: Mapping[str, xr.Dataset]) -> dict[str, Array]:
    """Name -> levels (n, heads) of the common samples and heads; (1, heads) for a method without samples."""
    named = {f"of {name}": each for name, each in scores.items()}
    check_comparable(named, _SAME_ATTRS)
    sampled = {name: each for name, each in named.items() if "sample" in each["score"].dims}
    ids = common_samples(sampled, _SAME_ATTRS) if sampled else []
    result: dict[str, Array] = {}
    for name, each in scores.items():
        levels = sample_levels(each)
        levels = levels.sel(sample=ids) if "sample" in levels.dims else levels.expand_dims("sample")
        if set(levels.dims) != {"sample", *HEADS}:
            raise HeadnbError(f"the scores of {name} have dims besides layer and head; select one with .sel")
        result[name] = levels.transpose("sample", *HEADS).to_numpy().reshape(levels.sizes["sample"], -1)
    missing = np.any([np.isnan(levels).any(axis=0) for levels in result.values()], axis=0)
    return {name: levels[:, ~missing] for name, levels in result.items()}


def _correlations(levels: Mapping[str, Array], level: float, seed: int) -> xr.Dataset:
    names = list(levels)
    values = np.ones((4, len(names), len(names)))
    for i, j in itertools.combinations(range(len(names)), 2):
        one, other = levels[names[i]], levels[names[j]]
        n = max(len(one), len(other))  # a method without samples has one row for all samples
        one, other = (np.broadcast_to(each, (n, each.shape[1])) for each in (one, other))
        estimate = rank_correlation(one, other, level=level, seed=seed)
        value = estimate.value if n > 1 else estimate.uncorrected
        values[:, i, j] = values[:, j, i] = value, estimate.low, estimate.high, estimate.uncorrected
    dims = ("measure", "other_measure")
    columns = dict(zip(("value", "low", "high", "uncorrected"), values, strict=True))
    attrs = {"quantity": "rank correlation", "level": level}
    return xr.Dataset({name: (dims, each) for name, each in columns.items()}, dict.fromkeys(dims, names), attrs)


def _overlaps(levels: Mapping[str, Array], ks: list[int], level: float) -> xr.Dataset:
    names, heads = list(levels), next(iter(levels.values())).shape[1]
    top = {(name, k): _top(each.mean(axis=0), k) for name, each in levels.items() for k in ks}
    shared = np.array([[[len(top[one, k] & top[other, k]) for k in ks] for other in names] for one in names])
    chance = stats.hypergeom(heads, np.array(ks), np.array(ks))
    dims = ("measure", "other_measure", "k")
    return xr.Dataset(
        {
            "shared": (dims, shared),
            "p": (dims, chance.sf(shared - 1)),
            "expected": ("k", chance.mean()),
            "at_most": ("k", chance.ppf(level).astype(int)),
        },
        {"measure": names, "other_measure": names, "k": ks},
    )


def _split_half_overlap(levels: Array, ks: list[int], seed: int) -> list[float]:
    """Mean number of top-k heads that two random halves of the samples share, for each k; NaN below two samples."""
    n = len(levels)
    if n < 2:
        return [float("nan")] * len(ks)
    rng = np.random.default_rng(seed)
    counts = np.zeros(len(ks))
    for _ in range(RANDOM_SPLITS):
        order = rng.permutation(n)
        one, other = (levels[part].mean(axis=0) for part in (order[: n // 2], order[n // 2 :]))
        counts += [len(_top(one, k) & _top(other, k)) for k in ks]
    return list(counts / RANDOM_SPLITS)


def _top(pattern: Array, k: int) -> set[int]:
    return set(np.argsort(-pattern, kind="stable")[:k].tolist())
