"""Scores before and after fine-tuning as arrays over training runs, samples and heads.

The input is labelled scores: a (before, after) pair of one training run, or a list of such pairs, one per training
seed. Samples are paired by id; several runs are reduced to the samples that all of them have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError
from headnb.stats import paired, patterns
from headnb.stats.patterns import HEADS

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

    Pair = tuple[xr.Dataset, xr.Dataset] | tuple[xr.DataArray, xr.DataArray]
    Change = xr.DataArray | Pair | Sequence[Pair]


Key = TypeVar("Key")


@dataclass(frozen=True)
class Stages:
    """The levels of one task before and after fine-tuning, per sample.

    A pattern without samples is a single row, whose noise is unknown. For a difference of patterns, `before` is None
    and `after` is the difference.
    """

    before: Array | None  # (n, heads)
    after: Array  # (runs, n, heads)
    layers: Array  # (heads): the layer of each head
    grid: xr.DataArray  # (layer, head), used for its labels only
    samples: tuple[Hashable, ...] = ()
    task: str = ""
    signed: bool = False
    fingerprints: tuple[int, ...] = ()  # of the samples; empty if unknown

    @property
    def sample_set(self) -> Hashable:
        """Equal for stages of the same samples.

        Ids and the task's name are not enough: two lists of samples both have the name "samples" and the ids 0, 1, ...
        """
        return self.task, self.samples, self.fingerprints

    @property
    def runs(self) -> int:
        return len(self.after)

    @property
    def n(self) -> int:
        """Number of samples; 0 if patterns were passed instead of scores."""
        return len(self.samples)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(heads): whether a head is NaN in any sample or run."""
        missing = np.asarray(np.isnan(self.after).any(axis=(0, 1)))
        return missing if self.before is None else np.asarray(missing | np.isnan(self.before).any(axis=0))

    @property
    def required_before(self) -> Array:
        """`before` (n, heads); an error if it is None."""
        if self.before is None:
            raise HeadnbError("the pattern before fine-tuning is needed, got only a difference; pass (before, after)")
        return self.before

    def take(self, indices: Array) -> Stages:
        """The stages of the samples at these positions."""
        before = None if self.before is None else self.before[indices]
        return replace(
            self,
            before=before,
            after=self.after[:, indices],
            samples=tuple(self.samples[i] for i in indices),
            fingerprints=tuple(self.fingerprints[i] for i in indices) if self.fingerprints else (),
        )

    def agrees_with(self, other: Stages) -> bool:
        """Whether both are of one task: the same name, and equal fingerprints of equal ids (if they are known)."""
        if self.task != other.task or not (self.fingerprints and other.fingerprints):
            return self.task == other.task
        known = dict(zip(self.samples, self.fingerprints, strict=True))
        pairs = zip(other.samples, other.fingerprints, strict=True)
        return all(known.get(sample, print_) == print_ for sample, print_ in pairs)


def read_stages(change: Change, name: str) -> Stages:
    """Read the stages from scores or patterns (see the module); `name` is for error messages.

    Raises:
        HeadnbError: unsupported input, no pairs, different heads, or fewer than two common samples.
    """
    if isinstance(change, xr.DataArray):
        return _stages_from_patterns([], [change], name)
    several = isinstance(change, (list, tuple)) and all(isinstance(pair, tuple) for pair in change)
    runs: Any = list(change) if several else [change]
    if not runs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in runs):
        raise HeadnbError(
            f"{name}: expected a (before, after) pair of scores, a list of such pairs (one per training run), or a "
            f"difference of patterns (layer, head); got {type(change).__name__}"
        )
    if all(isinstance(stage, xr.DataArray) for pair in runs for stage in pair):
        return _stages_from_patterns([before for before, _ in runs], [after for _, after in runs], name)
    if not all(isinstance(stage, xr.Dataset) for pair in runs for stage in pair):
        raise HeadnbError(f"{name}: before and after must both be scores, or both be patterns")
    return _stages_from_scores(runs)


def check_same_grid(all_stages: Mapping[str, Stages]) -> None:
    """Raise HeadnbError unless all stages have the same layers and heads."""
    (first, one), *others = all_stages.items()
    for name, other in others:
        if any(not one.grid.get_index(dim).equals(other.grid.get_index(dim)) for dim in HEADS):
            sizes = (" x ".join(str(s.grid.sizes[dim]) for dim in HEADS) for s in (one, other))
            raise HeadnbError(
                "{} has {} heads and {} has {}, or their labels differ; compare patterns of one model".format(
                    *(part for pair in zip((first, name), sizes, strict=True) for part in pair)
                )
            )


def on_common_samples(all_stages: Mapping[Key, Stages]) -> dict[Key, Stages]:
    """Reduce stages of the same task to their common samples, in one order."""
    result = dict(all_stages)
    groups: list[list[Key]] = []
    for name, stages in all_stages.items():
        if not stages.n:
            continue
        group = next((of_task for of_task in groups if all_stages[of_task[0]].agrees_with(stages)), None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    for names in groups:
        common = set.intersection(*(set(result[name].samples) for name in names))
        if len(names) < 2 or len(common) < 2:
            continue
        order = [sample for sample in result[names[0]].samples if sample in common]
        for name in names:
            place = {sample: i for i, sample in enumerate(result[name].samples)}
            result[name] = result[name].take(np.array([place[sample] for sample in order]))
    return result


def _stages_from_patterns(before: Iterable[xr.DataArray], after: Iterable[xr.DataArray], name: str) -> Stages:
    before, after = ([_with_head_numbers(pattern, name) for pattern in stage] for stage in (before, after))
    first = after[0]
    for other in [*after[1:], *before]:
        paired.check_same_heads(first.to_dataset(name="x"), other.to_dataset(name="x"))
    rows = [np.array([pattern.values.reshape(1, -1) for pattern in stage], np.float64) for stage in (before, after)]
    kinds = {str(pattern.attrs.get("kind", "level")) for pattern in before or after}
    return Stages(
        rows[0].mean(axis=0) if before else None,
        rows[1],
        _layer_of_each_head(first),
        first,
        signed=bool(kinds - {"level"}),
    )


def _stages_from_scores(runs: Sequence[tuple[xr.Dataset, xr.Dataset]]) -> Stages:
    named = {
        f"{stage} run {run}" if len(runs) > 1 else stage: scores
        for run, pair in enumerate(runs, 1)
        for stage, scores in zip(("before", "after"), pair, strict=True)
    }
    levels = [patterns.sample_levels(scores) for scores in named.values()]
    ids = paired.common_samples(named)
    levels = [one.sel(sample=ids).transpose("sample", *HEADS) for one in levels]
    before, after = (np.stack([one.values.reshape(len(ids), -1) for one in levels[stage::2]]) for stage in (0, 1))
    first = runs[0][0]
    grid = levels[0].isel(sample=0, drop=True)
    return Stages(
        before.mean(axis=0),
        after,
        _layer_of_each_head(grid),
        grid,
        tuple(ids),
        str(first.attrs.get("task", "")),
        first.attrs.get("reduction", "mean-abs") != "mean-abs",
        tuple(first["fingerprint"].sel(sample=ids).to_numpy().tolist()) if "fingerprint" in first else (),
    )


def _with_head_numbers(pattern: xr.DataArray, name: str) -> xr.DataArray:
    if set(pattern.dims) != set(HEADS):
        raise HeadnbError(f"{name}: expected a pattern (layer, head), got ({', '.join(map(str, pattern.dims))})")
    numbers = {dim: np.arange(pattern.sizes[dim]) for dim in HEADS if dim not in pattern.coords}
    return pattern.assign_coords(numbers).transpose(*HEADS)


def _layer_of_each_head(grid: xr.DataArray) -> Array:
    return np.repeat(grid.get_index("layer").to_numpy(), grid.sizes["head"])
