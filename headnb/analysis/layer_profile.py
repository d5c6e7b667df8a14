"""What fine-tuning changes in each layer: its representations, its heads and its parameters, beside each other.

The change of a layer's representations is 1 - CKA of the model before and after on the same samples (see `cka`): it
adds up over depth, since a layer works on what the layers below hand on. From it layers are told apart by the names of
"Layer by Layer" (arXiv 2410.20008), but by a rule of our own, that of a rise time. With the largest change so far up
the layers, over the largest of all:

    shared       below a tenth: what the fine-tuned model computes there is what it computed before
    transition   from a tenth on
    refinement   from nine tenths on: nothing is changed much further

A rise at one pace over all layers has a transition of 80 % of them, and there the three kinds are no more than words.
The change of a layer's heads is the root mean square over them; patterns are divided by their mean over all heads.
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
from headnb.stats.rounding import interval_text
from headnb.stats.significance import crossed_intervals, t_intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

TRANSITION_START, TRANSITION_END = 0.1, 0.9  # shares of the largest change
EVEN_RISE_WIDTH = TRANSITION_END - TRANSITION_START
_MAX_CKA = 1 - 1e-12  # CKA of a model that did not change, on a scale that has no 1
MIN_UNITS = 3  # runs, or tasks
_INTERVAL_FIELDS = ("value", "low", "high")


class LayerRun(NamedTuple):
    """One training run on a task.

    `grams` and `scores` are each of the model before and after, on the same samples, as `layer_grams` and `score_heads`
    give them; `movement` (layer) is how far parameters moved.
    """

    grams: tuple[xr.Dataset, xr.Dataset]
    scores: tuple[xr.Dataset, xr.Dataset]
    movement: xr.DataArray


@dataclass(frozen=True, repr=False)
class LayerProfile(AnalysisResult):
    """What fine-tuning changed in each layer.

    Attributes:
        similarity: Dataset (task, layer) of `value`, `low`, `high`: CKA of the layer before and after, over runs.
        heads: Dataset (task, layer) of the same: root mean square change of its heads, the mean head being 1.
        movement: (task, layer), relative L2 distance of its parameters, mean over runs.
        across: (before, after): CKA of every layer before with every layer after, mean over tasks and runs.
        depth: (task), how many layers below it before fine-tuning a layer must be compared with to find a CKA as low
            as that of the most changed layer with itself; NaN where there is none.
        transition: Dataset (run) of `first` layer of the transition and of the refinement (`last`), of each run.
        go_together: Dataset (beside) of `value`, `low`, `high`: rank correlation over layers of what a layer adds to
            the change of representations with the change of its "heads" and its "movement"; over tasks, or over runs
            where there is one task.
        samples: that representations are compared on. `runs`: of all tasks together. `level`: of the intervals.
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
        """The first layer of the transition and of the refinement, of the mean change over tasks."""
        return transition(1 - self.similarity["value"].mean("task").to_numpy())

    @property
    def width(self) -> tuple[float, float, float]:
        """The transition's share of all layers, mean over runs, with its interval (NaN below three runs).

        A transition is counted in whole layers, so the interval has half a layer more on either side.
        """
        layers = self.similarity.sizes["layer"]
        shares = (self.transition["last"] - self.transition["first"]).to_numpy() / layers
        value, low, high = _t_intervals(shares[:, None], self.level)[:, 0].tolist()
        return value, low - 0.5 / layers, high + 0.5 / layers

    @property
    def table(self) -> pd.DataFrame:
        """A row for each task: its most changed layer, that layer's CKA, and its depth."""
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
        """Whether the transition is shorter than that of an even rise; None where that cannot be told."""
        _, low, high = self.width
        return True if high < EVEN_RISE_WIDTH else False if low > EVEN_RISE_WIDTH else None

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        layers, (first, last) = self.similarity.sizes["layer"], self.stages
        width, low, high = self.width
        parts = {"shared": (0, first), "transition": (first, last), "refinement": (last, layers)}
        said = ", ".join(f"{_layer_span(*ends)} {name}" for name, ends in parts.items() if ends[1] > ends[0])
        known = f" [{low:.0%}, {high:.0%}]" if np.isfinite(low) else ""
        then = {True: "So the change is gathered there", False: "So the change is spread more evenly than that"}
        sharp = then.get(self.supported, "So kinds of layers are not shown")  # type: ignore[arg-type]
        return (
            f"In the mean over tasks {said}. The transition takes {width:.0%}{known} of the layers; an even rise would "
            f"take {EVEN_RISE_WIDTH:.0%}. {sharp}. {self._correlation_sentence()}"
        )

    def plot(self) -> Chart:
        """Layer by layer: CKA, the change of heads, the movement of parameters."""
        first, last = self.stages
        marks = {"transition": first - 0.5, "refinement": last - 0.5}
        # CKA itself is not below 0; where few samples tell little an interval may be, and would leave no room.
        similarity = self.similarity.assign(low=self.similarity["low"].clip(min=0))
        charts = [
            trajectory(similarity, along="layer", marks=marks, title="CKA before and after"),
            trajectory(self.heads, along="layer", title="change of heads (mean head = 1)"),
            trajectory(self.movement, along="layer", title="movement of parameters"),
        ]
        return chart_row(*charts, title="what fine-tuning changes, layer by layer")

    def plot_across(self) -> Chart:
        """CKA of every layer before (rows) with every layer after (columns)."""
        return train_eval(self.across, title="CKA of layers before and after")

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
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
        said = []
        for name, words in (("heads", "its heads change"), ("movement", "its parameters move")):
            value, low, high = (float(self.go_together[end].sel(beside=name)) for end in _INTERVAL_FIELDS)
            shown = "more" if low > 0 else "less" if high < 0 else "not shown to be more"
            said.append(f"{shown} where {words} more (rank correlation {interval_text(value, low, high)})")
        return f"A layer adds to the change {' and '.join(said)}."


def layer_profile(runs: Mapping[str, Sequence[LayerRun]], *, level: float = 0.95) -> LayerProfile:
    """What fine-tuning changed in each layer.

    Args:
        runs: task -> its training runs.
        level: of the intervals, which are over samples, by a jackknife on Fisher's scale, and over runs.

    Raises:
        HeadnbError: no runs, other samples before than after, or fewer than five.
    """
    level = checked_level(level)
    if not runs or not all(runs.values()):
        raise HeadnbError("a profile of layers needs at least one training run of each task")
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
    """The first layer of the transition and of the refinement, from changes (layers); all are shared if nothing is."""
    highest = np.maximum.accumulate(np.maximum(change, 0))
    if not highest[-1] > 0:
        return len(change), len(change)
    done = highest / highest[-1]
    return int(np.argmax(done >= TRANSITION_START)), int(np.argmax(done >= TRANSITION_END))


def _cka_matrix(run: LayerRun, task: str) -> LeaveOneOut:
    """CKA of every layer before with every layer after, (layers, layers), and without each sample."""
    before, after = run.grams
    shared = [key for key in after["sample"].to_numpy().tolist() if key in before.indexes["sample"]]
    same = {"sample": shared, "other_sample": shared}
    prints = [one["fingerprint"].sel(sample=shared).to_numpy() for one in (before, after)]
    if not np.array_equal(prints[0], prints[1]):
        raise HeadnbError(f"{task}: representations before and after are of other samples")
    K, L = (one["gram"].sel(same).to_numpy() for one in (before, after))
    rows = [cka(K[layer], L) for layer in range(len(K))]  # one row at a time: (layers, n, n) in memory
    return LeaveOneOut(np.stack([row.full for row in rows]), np.stack([row.left_out for row in rows]))


def _diagonal(compared: LeaveOneOut) -> LeaveOneOut:
    """Of each layer with itself, (layers)."""
    places = np.arange(len(compared.full))
    return LeaveOneOut(compared.full[places, places], compared.left_out[places, places])


def _intervals(of_runs: Sequence[LeaveOneOut], level: float) -> Array:
    """(3, layers): mean CKA over runs with its interval, the jackknife's values being those of samples."""
    fisher = [LeaveOneOut(*(np.arctanh(np.clip(part, -_MAX_CKA, _MAX_CKA)) for part in one)) for one in of_runs]
    values = np.stack([one.pseudo_values().T for one in fisher])  # (runs, n, layers)
    return np.tanh(np.stack(crossed_intervals(values, level)))


def _head_change(runs: Sequence[LayerRun], task: str, level: float) -> Array:
    """(3, layers): mean square change of a layer's heads without the noise of samples, over runs, with its interval."""
    stages = read_stages([one.scores for one in runs], task)
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
    full = (total**2 - squares) / (n * (n - 1))
    left = ((total - rows) ** 2 - (squares - rows**2)) / ((n - 1) * (n - 2))
    return LeaveOneOut(full.mean(), left.mean(axis=-1))


def _equivalent_depth(run: LayerRun, similarity: Array) -> float:
    """How many layers below the most changed one the first is that differed as much from it before."""
    layer = int(similarity.argmin())
    grams = run.grams[0]["gram"].to_numpy()
    below = cka(grams[layer], grams[:layer]).full[::-1] if layer else np.array([])
    found = np.flatnonzero(below <= similarity[layer])
    return float(found[0] + 1) if len(found) else float("nan")


def _layer_correlations(
    same: Mapping[str, Sequence[LeaveOneOut]], runs: Mapping[str, Sequence[LayerRun]], level: float
) -> xr.Dataset:
    rows = []
    for task, of_task in runs.items():
        of_run = []
        for one, run in zip(same[task], of_task, strict=True):
            added = np.diff(1 - one.full, prepend=0.0)
            beside = np.sqrt(np.maximum(_head_change([run], task, level)[0], 0)), run.movement.to_numpy()
            of_run.append([float(correlation(added, each, "spearman")) for each in beside])
        rows.append(np.array(of_run))
    values = np.stack([each.mean(axis=0) for each in rows]) if len(rows) > 1 else rows[0]
    ends = dict(zip(_INTERVAL_FIELDS, np.clip(_t_intervals(values, level), -1, 1), strict=True))
    return xr.Dataset({name: ("beside", end) for name, end in ends.items()}, {"beside": ["heads", "movement"]})


def _t_intervals(values: Array, level: float) -> Array:
    """(3, columns): means of values (units, columns) with Student's t intervals; two do not tell how they vary."""
    found = t_intervals(values, level)
    unknown = np.full_like(found.mean, np.nan)
    return np.stack(found if len(values) >= MIN_UNITS else (found.mean, unknown, unknown))


def _dataset(ends: Array, tasks: list[str], layers: NDArray[np.int64], quantity: str) -> xr.Dataset:
    columns = {name: (("task", "layer"), end) for name, end in zip(_INTERVAL_FIELDS, ends, strict=True)}
    return xr.Dataset(columns, {"task": tasks, "layer": layers}, {"quantity": quantity})


def _layer_span(first: int, end: int) -> str:
    """`L0 to L4`."""
    return f"L{first} is" if end - first == 1 else f"L{first} to L{end - 1} are"
