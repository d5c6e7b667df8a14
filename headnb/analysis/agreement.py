"""Do two ways to score heads agree? Rank correlations freed of sampling noise, and what their top heads share.

The noise of samples weakens a correlation, so methods that measured the same would seem to differ; it is corrected for
(`jackknife.rank_correlation`). Sharing some of the top k says little by itself either: two random choices of k
of H heads share k^2 / H (hypergeometric), and the halves of one method's own samples do not share all.
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
from headnb.call_checks import check_arguments, checked_level
from headnb.display.charts.matrices import correlation_matrix
from headnb.errors import HeadnbError, unknown_name
from headnb.scoring.registry import find_method
from headnb.scoring.registry import methods as known_methods
from headnb.scoring.run import score_heads
from headnb.stats.jackknife import rank_correlation
from headnb.stats.patterns import HEADS, check_same_heads, sample_levels
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


@dataclass(frozen=True, repr=False)
class Agreement(AnalysisResult):
    """How far methods rank heads alike; each is a place along the dims `measure` and `other_measure`.

    Attributes:
        correlation: Dataset (measure, other_measure) of `value`, `low`, `high`: Spearman correlation over heads of the
            patterns that unlimited samples would give; `uncorrected`, that of the patterns at hand.
        overlap: Dataset with `shared` (measure, other_measure, k), how many of the top k heads both have; `p`, the
            chance of as many from two random choices; `expected` and `at_most` (k), the mean and the upper end (at
            `level`) of what random choices share.
        own: (measure, k), how many of the top k two halves of the samples share, by the same method.
        reliability: (measure), expected correlation of the pattern with that of as many new samples.
        samples: that all methods scored.
        heads: that all methods have.
        level: of the intervals.
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
        """A row for each pair of methods."""
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
        """What the numbers show, in sentences."""
        lines = []
        for (one, other), row in self.table.iterrows():
            shared = []
            for k in self._ks:
                at_most = int(self.overlap["at_most"].sel(k=k))
                chance = "no more than chance gives" if row[f"top {k}"] <= at_most else f"chance: up to {at_most}"
                shared.append(f"{int(row[f'top {k}'])} of the top {k} ({chance})")
            r = interval_text(row["value"], row["low"], row["high"])
            lines.append(f"{one} and {other}: rank correlation {r}, share {', '.join(shared)}.")
        return " ".join(lines)

    def plot(self) -> Chart:
        """The rank correlations as a coloured table."""
        return correlation_matrix(self.correlation[["value", "low", "high"]], title="rank correlation of methods")

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
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
        kept = self.reliability.to_series()
        by_method = ", ".join(
            f"{name} {kept[name]:.2f}"
            + "".join(f", {float(self.own.sel(measure=name, k=k)):.1f} of {k}" for k in self._ks)
            for name in kept.index
        )
        return f"{self.samples} samples, {self.heads} heads. Reliability, and what halves share: {by_method}"


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
    """How far methods rank a model's heads alike.

    Args:
        scores: name -> scores of one model on one task; or a model, which is then scored.
        tokenizer: the model's.
        task: of a model: a `Task`, or anything that `load_task` accepts.
        methods: of a model: names out of `headnb.methods()`.
        options: of a model: method -> its `options` for `score_heads`, {"attattr": {"steps": 10}}.
        ks: how many top heads are compared; those above half of the heads are left out.
        batch_tokens: as for `score_heads`.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        level: of the intervals.
        seed: of the order of work, and of split halves.

    Raises:
        HeadnbError: fewer than two methods, other heads or samples, or what `score_heads` says.
    """
    level = checked_level(level)
    if any(k < 1 for k in ks):
        raise HeadnbError(f"ks must be numbers of heads of at least 1, not {min(ks)}")
    if not isinstance(scores, Mapping):
        how = {"batch_tokens": batch_tokens, "max_length": max_length, "encoding": encoding, "seed": seed}
        scores = _score_by_methods(scores, tokenizer, task, methods, options or {}, how)
    elif len(scores) < 2:
        raise HeadnbError("two methods at least are to be compared: give name -> scores of each")
    elif options:
        raise HeadnbError("options are for methods that score a model; these scores are made already")
    levels = _common_levels(scores)
    heads = next(iter(levels.values())).shape[1]
    most = [int(k) for k in sorted(set(ks)) if 1 <= k <= heads / 2] or [max(1, heads // 4)]
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
    """Method -> scores; wrong options are told before the first method runs."""
    if len(set(methods)) < 2 or task is None:
        raise HeadnbError(f"a model needs a task and two methods to compare; known: {', '.join(known_methods())}")
    for name in options:
        if name not in methods:
            raise unknown_name("method compared", name, methods)
    asked = {name: find_method(name).settings(options.get(name)) for name in methods}
    task = task if isinstance(task, Task) else load_task(task)
    return {name: score_heads(model, tokenizer, task, method=name, options=asked[name], **settings) for name in methods}


def _common_levels(scores: Mapping[str, xr.Dataset]) -> dict[str, Array]:
    """Name -> levels (n, heads) of the samples and heads that all have; (1, heads) of a method without samples."""
    first = next(iter(scores.values()))
    ids = None
    for name, each in scores.items():
        check_same_heads(first, each)
        for attribute in ("model_fingerprint", "task_fingerprint", "loss_reduction"):
            if len({str(one.attrs[attribute]) for one in (first, each) if attribute in one.attrs}) > 1:
                raise HeadnbError(f"the scores of {name} are of another {attribute.replace('_fingerprint', '')}")
        if "sample" in each["score"].dims:
            if not each.indexes["sample"].is_unique:
                raise HeadnbError(f"the scores of {name} have a sample id twice")
            ids = each.indexes["sample"] if ids is None else ids[ids.isin(each.indexes["sample"])]
    if ids is not None and len(ids) == 0:
        raise HeadnbError("these scores have no samples in common")
    found: dict[str, Array] = {}
    for name, each in scores.items():
        levels = sample_levels(each.sel(sample=ids) if "sample" in each["score"].dims else each)
        levels = levels if "sample" in levels.dims else levels.expand_dims("sample")
        if set(levels.dims) != {"sample", *HEADS}:
            raise HeadnbError(f"the scores of {name} have dims besides sample, layer and head; choose one by .sel")
        found[name] = levels.transpose("sample", *HEADS).to_numpy().reshape(levels.sizes["sample"], -1)
    missing = np.any([np.isnan(levels).any(axis=0) for levels in found.values()], axis=0)
    return {name: levels[:, ~missing] for name, levels in found.items()}


def _correlations(levels: Mapping[str, Array], level: float, seed: int) -> xr.Dataset:
    names = list(levels)
    values = np.ones((4, len(names), len(names)))
    for i, j in itertools.combinations(range(len(names)), 2):
        one, other = levels[names[i]], levels[names[j]]
        n = max(len(one), len(other))  # a method without samples is the same in each
        one, other = (np.broadcast_to(each, (n, each.shape[1])) for each in (one, other))
        found = rank_correlation(one, other, level=level, seed=seed)
        value = found.value if n > 1 else found.uncorrected
        values[:, i, j] = values[:, j, i] = value, found.low, found.high, found.uncorrected
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
    """Mean number of heads that the top k of two random halves of the samples share, for each k; NaN without halves."""
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
