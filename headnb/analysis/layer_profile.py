"""Change of each layer's representations, heads and parameters by fine-tuning.

The change of a layer's representations is 1 - CKA between the model before and after fine-tuning, on the same samples
(see `cka`). It accumulates over depth, since each layer takes the output of the layers below. The kinds of layers have
the names of "Layer by Layer" (arXiv 2410.20008), but are defined here as for a rise time, from the running maximum of
the change over depth, relative to its largest value:

    shared       below 0.1: the representations are almost those before fine-tuning
    transition   from 0.1
    refinement   from 0.9: the representations change little further

If the change rises uniformly over depth, 80 % of the layers are transition, and the kinds have no meaning. The change
of a layer's heads is the root mean square over heads of the change of patterns divided by their mean over all heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from headnb.analysis.before_after import read_stages
from headnb.analysis.cka import LeaveOneOut, cka
from headnb.analysis.debiased_products import MeasuredPattern
from headnb.analysis.json_values import as_records, to_json_value
from headnb.analysis.result import AnalysisResult
from headnb.call_checks import checked_level
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.matrices import train_eval
from headnb.display.charts.plots import trajectory
from headnb.errors import HeadnbError
from headnb.stats.descriptive import correlation
from headnb.stats.results import check_levels
from headnb.stats.rounding import interval_text
from headnb.stats.significance import crossed_intervals, t_intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

TRANSITION_START, TRANSITION_END = 0.1, 0.9  # fractions of the largest change
EVEN_RISE_WIDTH = TRANSITION_END - TRANSITION_START
_MAX_CKA = 1 - 1e-12  # Fisher's scale is infinite at 1, the CKA of an unchanged layer
LEAST_CHANGE = 1e-6  # of 1 - CKA, above its rounding
MIN_UNITS = 3  # fewest runs, or tasks, for an interval
_INTERVAL_FIELDS = ("value", "low", "high")


class LayerRun(NamedTuple):
    """One training run on a task.

    `grams` and `scores` are pairs (before, after fine-tuning) on the same samples, from `layer_grams` and
    `score_heads`; `movement` (layer) is the relative parameter distance.
    """

    grams: tuple[xr.Dataset, xr.Dataset]
    scores: tuple[xr.Dataset, xr.Dataset]
    movement: xr.DataArray


@dataclass(frozen=True, repr=False)
class LayerProfile(AnalysisResult):
    """Change of each layer by fine-tuning.

    Attributes:
        similarity: Dataset (task, layer) of `value`, `low`, `high`: CKA of the layer before and after fine-tuning, mean
            over runs.
        heads: Dataset (task, layer) of `value`, `low`, `high`: root mean square change of the layer's heads, relative
            to the mean over all heads.
        movement: (task, layer), relative L2 distance of the layer's parameters, mean over runs.
        across: (before, after), CKA of every layer before with every layer after fine-tuning, mean over tasks and runs.
        depth: (task), the change of the most changed layer as a number of layers: in the model before fine-tuning, the
            layer so many layers below it is the nearest one that differs from it as much as it differs from itself
            after fine-tuning (by CKA). NaN if no layer below differs as much.
        transition: Dataset (run) of the `first` layer of the transition and of the refinement (`last`), for each run.
        go_together: Dataset (beside) of `value`, `low`, `high`: rank correlation over layers of the increase of the
            representation change in a layer with the change of its "heads" and with its "movement"; mean over tasks,
            or over runs if there is one task.
        samples: number of samples behind the representations.
        runs: number of runs of all tasks together.
        level: confidence level of the intervals.
    """

    similarity: xr.Dataset
    heads: xr.Dataset
    movement: xr.DataArray
    across: xr.DataArray
    depth: xr.DataArray
    transition: xr.Dataset
    go_together: xr.Dataset
    samples: int
    runs: int
    level: float

    @property
    def stages(self) -> tuple[int, int]:
        """First layer of the transition and of the refinement, from the mean change over tasks."""
        return transition(1 - self.similarity["value"].mean("task").to_numpy())

    @property
    def width(self) -> tuple[float, float, float]:
        """Fraction of the layers in the transition, mean over runs, with its interval (NaN below three runs).

        The transition is a whole number of layers, so the interval is half a layer wider on either side. NaN if a run
        has no transition, because nothing changed.
        """
        layers = self.similarity.sizes["layer"]
        first, last = (self.transition[end].to_numpy() for end in ("first", "last"))
        shares = np.where(first < layers, last - first, np.nan) / layers
        value, low, high = _t_intervals(shares[:, None], self.level)[:, 0].tolist()
        return value, low - 0.5 / layers, high + 0.5 / layers

    @property
    def table(self) -> pd.DataFrame:
        """One row per task: its most changed layer with CKA and depth, and the number of layers of each kind."""
        import pandas as pd  # noqa: PLC0415

        rows = {}
        for task in map(str, self.similarity["task"].to_numpy()):
            own = self.similarity.sel(task=task)
            most = own.isel(layer=int(own["value"].argmin("layer")))
            first, last = transition(1 - own["value"].to_numpy())
            ends = {name: float(most[end]) for name, end in zip(("CKA", "low", "high"), _INTERVAL_FIELDS, strict=True)}
            head = int(self.heads["value"].sel(task=task).argmax("layer"))
            rows[task] = {"most changed": f"L{int(most['layer'])}", **ends}
            rows[task] |= {"as far as layers": float(self.depth.sel(task=task)), "shared": first}
            rows[task] |= {"transition": last - first, "refinement": own.sizes["layer"] - last}
            rows[task] |= {"heads changed most in": f"L{head}"}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")

    @property
    def supported(self) -> bool | None:
        """Whether the transition is shorter than for a uniform rise over depth; None if undecided or without change."""
        _, low, high = self.width
        return True if high < EVEN_RISE_WIDTH else False if low > EVEN_RISE_WIDTH else None

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        layers, (first, last) = self.similarity.sizes["layer"], self.stages
        width, low, high = self.width
        parts = {"shared": (0, first), "transition": (first, last), "refinement": (last, layers)}
        kinds = ", ".join(f"{_layer_span(*ends)} {name}" for name, ends in parts.items() if ends[1] > ends[0])
        interval = f" [{low:.0%}, {high:.0%}]" if np.isfinite(low) else ""
        runs = f"{self.runs} training run{'s' if self.runs > 1 else ''}"
        spans = f"The transition spans {width:.0%}{interval} of the layers ({runs})"
        spans = spans if np.isfinite(width) else f"Not every run has a transition, since nothing changed ({runs})"
        conclusion = {
            True: "The change is concentrated in the transition",
            False: "The change is spread more widely than a uniform rise",
            None: "No evidence of distinct kinds of layers",
        }[self.supported]
        return (
            f"On average over tasks, {kinds}. {spans}; a uniform rise over depth would span {EVEN_RISE_WIDTH:.0%}. "
            f"{conclusion}. {self._correlation_sentence()}"
        )

    def plot(self) -> Chart:
        """CKA, change of heads and parameter distance of each layer."""
        first, last = self.stages
        marks = {"transition": first - 0.5, "refinement": last - 0.5}
        # CKA is not negative; clip wide intervals, which would compress the axis.
        similarity = self.similarity.assign(low=self.similarity["low"].clip(min=0))
        charts = [
            trajectory(similarity, along="layer", marks=marks, title="CKA before and after fine-tuning"),
            trajectory(self.heads, along="layer", title="Change of heads (mean over heads = 1)"),
            trajectory(self.movement, along="layer", title="Relative parameter distance"),
        ]
        return chart_row(*charts, title="Change by fine-tuning, per layer")

    def plot_across(self) -> Chart:
        """CKA of every layer before (rows) with every layer after fine-tuning (columns)."""
        return train_eval(self.across, title="CKA of layers before and after fine-tuning")

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        return {
            "tasks": as_records(self.table),
            "stages": dict(zip(("transition", "refinement"), self.stages, strict=True)),
            "width": dict(zip(_INTERVAL_FIELDS, map(to_json_value, self.width), strict=True)),
            "go_together": as_records(self.go_together),
            "samples": self.samples,
            "runs": self.runs,
            "level": self.level,
            "supported": self.supported,
            "verdict": self.verdict,
        }

    def _correlation_sentence(self) -> str:
        parts, unknown = [], []
        for name, words in (("heads", "the change of its heads"), ("movement", "its parameter distance")):
            value, low, high = (float(self.go_together[end].sel(beside=name)) for end in _INTERVAL_FIELDS)
            if np.isnan(value):
                unknown.append(words)
                continue
            sign = "significantly positive" if low > 0 else "significantly negative" if high < 0 else "not significant"
            sign = sign if np.isfinite(low) else "no interval"
            parts.append(f"{interval_text(value, low, high)} with {words} ({sign})")
        tasks = self.similarity.sizes["task"]
        n = f"{tasks} tasks" if tasks > 1 else f"{self.runs} run{'s' if self.runs > 1 else ''}"
        lines = []
        if parts:
            lines.append(
                f"The increase of the representation change in a layer has a Spearman correlation over layers of "
                f"{' and of '.join(parts)}; mean over {n}."
            )
        if unknown:
            increase = "this increase" if parts else "the increase of the representation change in a layer"
            lines.append(
                f"The Spearman correlation over layers of {increase} with {' and with '.join(unknown)} is undefined."
            )
        return " ".join(lines)


def layer_profile(runs: Mapping[str, Sequence[LayerRun]], *, level: float = 0.95) -> LayerProfile:
    """Measure the change of each layer by fine-tuning.

    Args:
        runs: task -> its training runs.
        level: confidence level of the intervals, which are over runs and over samples (jackknife on Fisher's scale).

    Raises:
        HeadnbError: no runs, signed scores, different samples before and after, or fewer than five samples.
    """
    level = checked_level(level)
    if not runs or not all(runs.values()):
        raise HeadnbError("a layer profile needs at least one training run of each task")
    tasks = list(runs)
    compared = {task: [_cka_matrix(one, task) for one in of_task] for task, of_task in runs.items()}
    same = {task: [_diagonal(one) for one in of_task] for task, of_task in compared.items()}
    similarity = np.stack([_intervals(of_task, level) for of_task in same.values()], axis=1)
    heads = np.stack([_head_change(of_task, task, level) for task, of_task in runs.items()], axis=1)
    moved = {task: np.stack([one.movement.to_numpy() for one in of_task]) for task, of_task in runs.items()}
    bounds = [transition(1 - one.full) for of_task in same.values() for one in of_task]
    layers = np.arange(similarity.shape[-1])
    names = [f"L{layer}" for layer in layers]
    everything = [one.full for of_task in compared.values() for one in of_task]
    return LayerProfile(
        similarity=_dataset(similarity, tasks, layers, "CKA"),
        heads=_dataset(np.sqrt(np.maximum(heads, 0)), tasks, layers, "change of heads"),
        movement=xr.DataArray(
            [each.mean(axis=0) for each in moved.values()],
            {"task": tasks, "layer": layers},
            ("task", "layer"),
            attrs={"quantity": "relative distance"},
        ),
        across=xr.DataArray(
            np.mean(everything, axis=0),
            {"before": names, "after": names},
            ("before", "after"),
            attrs={"quantity": "CKA"},
        ),
        depth=xr.DataArray(
            [_equivalent_depth(runs[task][0], row) for task, row in zip(tasks, similarity[0], strict=True)],
            {"task": tasks},
            ("task",),
        ),
        transition=xr.Dataset(
            {name: ("run", list(ends)) for name, ends in zip(("first", "last"), zip(*bounds, strict=True), strict=True)}
        ),
        go_together=_layer_correlations(same, runs, level),
        samples=max(one.left_out.shape[-1] for of_task in same.values() for one in of_task),
        runs=len(bounds),
        level=level,
    )


def transition(change: Array) -> tuple[int, int]:
    """First layer of the transition and of the refinement, from changes (layers); without change, all are shared.

    Changes below LEAST_CHANGE count as none.
    """
    highest = np.maximum.accumulate(_above_rounding(change))
    if not highest[-1] > 0:
        return len(change), len(change)
    done = highest / highest[-1]
    return int(np.argmax(done >= TRANSITION_START)), int(np.argmax(done >= TRANSITION_END))


def _above_rounding(change: Array) -> Array:
    return np.where(change < LEAST_CHANGE, 0, change)


def _cka_matrix(run: LayerRun, task: str) -> LeaveOneOut:
    """CKA of every layer before with every layer after fine-tuning, (layers, layers), and without each sample."""
    before, after = run.grams
    shared = [key for key in after["sample"].to_numpy().tolist() if key in before.indexes["sample"]]
    same = {"sample": shared, "other_sample": shared}
    prints = [one["fingerprint"].sel(sample=shared).to_numpy() for one in (before, after)]
    if not np.array_equal(prints[0], prints[1]):
        raise HeadnbError(f"{task}: representations before and after fine-tuning are of different samples")
    K, L = (one["gram"].sel(same).to_numpy() for one in (before, after))
    rows = [cka(K[layer], L) for layer in range(len(K))]  # one row at a time keeps (layers, n, n) in memory
    return LeaveOneOut(np.stack([row.full for row in rows]), np.stack([row.left_out for row in rows]))


def _diagonal(compared: LeaveOneOut) -> LeaveOneOut:
    """CKA of each layer before with the same layer after fine-tuning, (layers)."""
    places = np.arange(len(compared.full))
    return LeaveOneOut(compared.full[places, places], compared.left_out[places, places])


def _intervals(of_runs: Sequence[LeaveOneOut], level: float) -> Array:
    """(3, layers): mean CKA over runs with its interval, from the jackknife pseudo-values of samples."""
    fisher = [LeaveOneOut(*(np.arctanh(np.clip(part, -_MAX_CKA, _MAX_CKA)) for part in one)) for one in of_runs]
    values = np.stack([one.pseudo_values().T for one in fisher])  # (runs, n, layers)
    return np.tanh(np.stack(crossed_intervals(values, level)))


def _head_change(runs: Sequence[LayerRun], task: str, level: float) -> Array:
    """(3, layers): mean square change of a layer's heads, corrected for sample noise, with its interval."""
    stages = read_stages([one.scores for one in runs], task)
    check_levels("a layer profile", signed=stages.signed, of=task)
    present, values = ~stages.missing, []
    for after in stages.after:
        change = MeasuredPattern(after[None, :, present], stages.required_before[:, present], scale_free=True)
        rows = change.values() + change.influence()  # (n, heads), whose mean is the change
        places = [stages.layers[present] == layer for layer in stages.grid.get_index("layer")]
        squares = [_mean_square(rows[:, of_layer]) for of_layer in places]
        values.append(np.stack([one.pseudo_values() for one in squares], axis=-1))
    return np.stack(crossed_intervals(np.stack(values), level))


def _mean_square(rows: Array) -> LeaveOneOut:
    """Mean over heads of the squared mean of rows (n, heads), from products of different samples."""
    n, total, squares = len(rows), rows.sum(axis=0), (rows**2).sum(axis=0)
    if not rows.shape[1]:  # all heads of the layer are missing
        return LeaveOneOut(np.array(np.nan), np.full(n, np.nan))
    full = (total**2 - squares) / (n * (n - 1))
    left = ((total - rows) ** 2 - (squares - rows**2)) / ((n - 1) * (n - 2))
    return LeaveOneOut(full.mean(), left.mean(axis=-1))


def _equivalent_depth(run: LayerRun, similarity: Array) -> float:
    """`LayerProfile.depth` of one task, from its CKA before and after fine-tuning (layers)."""
    layer = int(similarity.argmin())
    grams = run.grams[0]["gram"].to_numpy()
    below = cka(grams[layer], grams[:layer]).full[::-1] if layer else np.array([])
    as_different = np.flatnonzero(below <= similarity[layer])
    return float(as_different[0] + 1) if len(as_different) else float("nan")


def _layer_correlations(
    same: Mapping[str, Sequence[LeaveOneOut]], runs: Mapping[str, Sequence[LayerRun]], level: float
) -> xr.Dataset:
    rows = []
    for task, of_task in runs.items():
        of_run = []
        for one, run in zip(same[task], of_task, strict=True):
            added = np.diff(_above_rounding(1 - one.full), prepend=0.0)
            beside = np.sqrt(np.maximum(_head_change([run], task, level)[0], 0)), run.movement.to_numpy()
            of_run.append([float(correlation(added, each, "spearman")) for each in beside])
        rows.append(np.array(of_run))
    values = np.stack([each.mean(axis=0) for each in rows]) if len(rows) > 1 else rows[0]
    ends = dict(zip(_INTERVAL_FIELDS, np.clip(_t_intervals(values, level), -1, 1), strict=True))
    return xr.Dataset({name: ("beside", end) for name, end in ends.items()}, {"beside": ["heads", "movement"]})


def _t_intervals(values: Array, level: float) -> Array:
    """(3, columns): means of values (units, columns) with Student's t intervals; NaN below MIN_UNITS units."""
    intervals = t_intervals(values, level)
    unknown = np.full_like(intervals.mean, np.nan)
    return np.stack(intervals if len(values) >= MIN_UNITS else (intervals.mean, unknown, unknown))


def _dataset(ends: Array, tasks: list[str], layers: NDArray[np.int64], quantity: str) -> xr.Dataset:
    columns = {name: (("task", "layer"), end) for name, end in zip(_INTERVAL_FIELDS, ends, strict=True)}
    return xr.Dataset(columns, {"task": tasks, "layer": layers}, {"quantity": quantity})


def _layer_span(first: int, end: int) -> str:
    """`L0 to L4 are`, or `L0 is`."""
    return f"L{first} is" if end - first == 1 else f"L{first} to L{end - 1} are"
