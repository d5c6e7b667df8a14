"""Paired comparisons: scores of the same samples by two models, and the checks that scores can be paired."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError
from headnb.stats import significance
from headnb.stats.patterns import (
    HEADS,
    KEPT_ATTRS,
    MEAN_UNITS,
    flat_levels,
    pattern_units,
    relative_to_mean_head,
    sample_levels,
)
from headnb.stats.reliability import Evidence, change_evidence
from headnb.stats.results import as_result, check_levels, is_signed, require_scores
from headnb.stats.scoring_revision import check_same_revision

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from headnb.stats.labelled import Scores

_SAME_ATTRS = ("task", "method", "encoding", "loss_reduction", "reduction")  # of scores whose samples are paired


@check_arguments
def compare(
    before: xr.Dataset, after: xr.Dataset, *, alpha: float = 0.05, seed: int = 0, scale_free: bool = False
) -> Scores:
    """Test which heads changed, from the scores of the same samples before and after fine-tuning.

    Samples are paired by id. The difference per sample is |s_after| - |s_before| (for the reduction "mean": s_after -
    s_before). The uncertainty covers samples only, not differences between training runs.

    Args:
        before: scores of the first model.
        after: scores of the second model, with the same task and method.
        alpha: a head is `significant` if its q-value is below alpha; the level of intervals is 1 - alpha.
        seed: seed of the sign flips.
        scale_free: first divide each model's scores by its pattern's mean over heads (magnitudes fall with the loss).

    Returns:
        Dataset (layer, head): `difference`, `low`, `high`, `p_value` (paired t), `q_value` (Benjamini-Hochberg),
        `p_max_t` (sign-flip max-T), `significant`; attrs with the numbers of paired and unpaired samples, and the
        reliability of the difference.

    Raises:
        HeadnbError: different tasks, methods, loss reductions or heads, repeated ids, fewer than two common samples,
            equal ids of different samples, or an alpha that is not between 0 and 1.
    """
    levels_before, levels_after = paired_levels(before, after)
    a, b = flat_levels(levels_after), flat_levels(levels_before)
    if scale_free:
        check_levels("scale_free", signed=is_signed(before))
    reliability = change_evidence(b, a[None], scale_free=scale_free)
    differences = relative_to_mean_head(a) - relative_to_mean_head(b) if scale_free else a - b
    columns = significance.paired_tests(differences, alpha) | {
        "p_max_t": significance.max_t_p_values(differences, seed=seed)
    }
    return labelled_change(columns, before, after, reliability, alpha, scale_free=scale_free)


def labelled_change(
    columns: Mapping[str, NDArray[np.generic]],
    before: xr.Dataset,
    after: xr.Dataset,
    reliability: Evidence,
    alpha: float,
    *,
    scale_free: bool,
) -> Scores:
    """Label columns (heads) as `compare` returns them; `reliability` is that of the difference."""
    attrs = {name: before.attrs[name] for name in KEPT_ATTRS if name in before.attrs} | {
        "kind": "difference",
        "units": MEAN_UNITS if scale_free else pattern_units(before),
        "model": str(after.attrs.get("model", "")),
        "model_before": str(before.attrs.get("model", "")),
        "alpha": alpha,
        "interval_level": 1 - alpha,
        "scale_free": int(scale_free),
        **reliability._asdict(),
        "samples_unpaired": before.sizes["sample"] + after.sizes["sample"] - 2 * reliability.samples,
    }
    coords = {dim: after["score"][dim] for dim in HEADS}
    shape = [coord.size for coord in coords.values()]
    variables = {name: (HEADS, column.reshape(shape)) for name, column in columns.items()}
    return cast("Scores", as_result(xr.Dataset(variables, coords=coords, attrs=attrs)))


def paired_levels(before: xr.Dataset, after: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Levels (sample, layer, head) of the common samples, in the order of `before`."""
    levels = [sample_levels(scores) for scores in (before, after)]
    ids = common_samples({"before": before, "after": after})
    one, other = (level.sel(sample=ids).transpose("sample", *HEADS) for level in levels)
    return one, other


def common_samples(scores: Mapping[str, xr.Dataset], same: Sequence[str] = _SAME_ATTRS) -> list[Hashable]:
    """Ids of the samples that all scores (sample, layer, head) have, in the order of the first.

    Args:
        scores: the scores by what messages call them, such as "before" or "after run 2".
        same: attributes that must be equal.

    Raises:
        HeadnbError: the scores are not comparable (`check_comparable`), samples without a unique id, fewer than two
            common ids, or equal ids of different samples.
    """
    require_scores(*scores.values())
    check_comparable(scores, same)
    for name, each in scores.items():
        if set(each["score"].dims) != {"sample", *HEADS}:
            dims = ", ".join(map(str, each["score"].dims))
            raise HeadnbError(f"pairing needs scores (sample, layer, head), got ({dims}) {name}")
        if "sample" not in each.indexes or not each.indexes["sample"].is_unique:
            raise HeadnbError(f"pairing needs a unique id for each sample; the scores {name} do not have one")
    (first, one), *others = scores.items()
    ids = one.indexes["sample"]
    for _, other in others:
        ids = ids[ids.isin(other.indexes["sample"])]
    if len(ids) < 2:
        raise HeadnbError(f"these scores have {len(ids)} sample ids in common; a comparison needs at least 2")
    for name, other in others:
        _check_same_samples(one.sel(sample=ids), other.sel(sample=ids), (first, name))
    return list(ids)


def check_comparable(scores: Mapping[str, xr.Dataset], same: Sequence[str] = _SAME_ATTRS) -> None:
    """Raise HeadnbError unless all scores have the same heads, scoring revision and attributes `same`.

    Args:
        scores: the scores by what messages call them, such as "before" or "after run 2".
        same: attributes that must be equal.
    """
    (first, one), *others = scores.items()
    for name, other in others:
        check_same_revision(one.attrs, other.attrs)
        for attribute in same:
            values = [each.attrs.get(attribute) for each in (one, other)]
            if values[0] != values[1]:
                raise HeadnbError(
                    f"these scores cannot be paired: {attribute} is {values[0]!r} {first} and {values[1]!r} {name}"
                )
        check_same_heads(one, other, (first, name))


def check_same_heads(one: xr.Dataset, other: xr.Dataset, names: tuple[str, str] = ("before", "after")) -> None:
    """Raise HeadnbError unless both have the same layers and heads in the same order (heads pair by position)."""
    if any(one.sizes[dim] != other.sizes[dim] for dim in HEADS):
        sizes = (" x ".join(str(scores.sizes[dim]) for dim in HEADS) for scores in (one, other))
        raise HeadnbError("these scores cannot be paired: {2} heads {0} and {3} {1}".format(*names, *sizes))
    for dim in HEADS:
        numbers, others = one.get_index(dim), other.get_index(dim)
        if (differ := np.flatnonzero(numbers != others)).size:
            place = differ[0]
            raise HeadnbError(
                f"these scores cannot be paired: {dim} {numbers[place]} {names[0]} corresponds to {dim} "
                f"{others[place]} {names[1]}; select the same {dim}s of both, in the same order"
            )


def _check_same_samples(one: xr.Dataset, other: xr.Dataset, names: tuple[str, str]) -> None:
    """Compare fingerprints, or else numbers of answer tokens, because equal ids may be mere row numbers."""
    known = [name for name in ("fingerprint", "answer_tokens") if name in one and name in other]
    if not known:
        return
    differ = np.flatnonzero(one[known[0]].values != other[known[0]].values)
    if differ.size:
        ids = one.indexes["sample"]
        what = "tokens" if known[0] == "fingerprint" else "numbers of answer tokens"
        raise HeadnbError(
            f"{differ.size} of {len(ids)} sample ids denote samples with different {what} {names[0]} and {names[1]} "
            f"(the first: {ids[differ[0]]}); score the same samples with the same encoding each time; a task with "
            "different samples needs a different name"
        )
