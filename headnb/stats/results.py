"""Identity of results: decides whether the attributes of numbers (kind, units, reliability) still apply to them.

Since 2025.11 xarray keeps attributes through arithmetic. Without further checks `after - before` would claim to be an
activation level with the reliability of `after`. Therefore the values of a result have an identity, and attributes are
trusted only if the values match it:

- The attribute `result_id` is a hash of the values. It identifies a result that xarray read from a file. Arithmetic
  between two results drops it, or keeps it although it no longer matches the values.
- The `encoding` of the values contains the same id. "All operations that manipulate variables other than indexing will
  remove encoding information" (xarray's user guide), so the id survives `.sel`, `.isel`, `.sortby`, `.copy` and
  `.load`, but no computation. `xr.concat` keeps the id of its first argument.
- The attribute `made_by` is the same for all results and survives arithmetic that drops `result_id`. It distinguishes
  numbers computed from results from numbers that a user labelled (`x.drop_attrs().assign_attrs(kind=..., units=...)`).
  A user's labels are trusted, and so are the attributes of files that earlier versions of headnb wrote.

If xarray itself writes and reads a selection, the selection loses its identity and becomes a plain value.
"""

from __future__ import annotations

import hashlib
import numbers
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.errors import HeadnbError, one_line
from headnb.stats.reliability import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULT_ID = "result_id"
MADE_BY = "made_by"
_LOSS_TOLERANCE = 1e-4  # nats: rounding may make a loss slightly negative
_MAX_HASHED_SAMPLES = 64  # with more samples, only these many are hashed
_ENCODING_KEY = "headnb_result"
_VARIABLES = ("score", "difference", "level", "value")  # possible names of the values in a data set
METHOD_ATTRIBUTES = ("method", "method_label", "units", "reduction")
# Label and unit of methods for which earlier versions wrote neither.
_WRITTEN_BEFORE = {
    "activation": ("activation level", "nats"),
    **{name: (name, "nats") for name in ("taylor-token", "ablate-zero", "ablate-mean")},
}
_SCORE_ATTRS = ("model", "task", *METHOD_ATTRIBUTES, "loss_reduction", "kv_heads", "dtype", "scoring_revision")
SAMPLE_ATTRS = (*Evidence._fields, "samples_unpaired")
_NAME_ATTRS = ("model", "task", "kv_heads")  # attributes that do not depend on the values

_Data = TypeVar("_Data", xr.DataArray, xr.Dataset)


def whole_number(stored: Mapping[Any, Any], name: str, default: int) -> int:
    """The whole number stored as `name`; HeadnbError if it is something else."""
    value = stored.get(name, default)
    if isinstance(value, numbers.Integral):
        return int(value)
    raise HeadnbError(f"the stored {name} is not a whole number: {one_line(repr(value), 40)}")


def method_label(attrs: Mapping[Any, Any]) -> str:
    """Label of the values: "activation level" (also for scores without a method), or the method's label."""
    method = str(attrs.get("method", "activation"))
    return str(attrs.get("method_label") or _WRITTEN_BEFORE.get(method, (method, ""))[0])


def method_units(attrs: Mapping[Any, Any]) -> str:
    """Unit of the values: "nats" for parts of a loss; empty if unknown."""
    method = str(attrs.get("method", "activation"))
    return str(attrs.get("units") or _WRITTEN_BEFORE.get(method, (method, ""))[1])


def as_result(data: _Data, identity: str = "") -> _Data:
    """Return a shallow copy with an identity; variables are shared, attributes are not.

    Args:
        data: a pattern, or a data set with `score`, `difference`, `level` or `value`.
        identity: the id, if it is known without reading the values (for values on disk).
    """
    result = data.copy(deep=False)
    array = result if isinstance(result, xr.DataArray) else result[_values_name(result)]
    known = identity or _hash_of(array)
    result.attrs |= {RESULT_ID: known, MADE_BY: "headnb"}
    if isinstance(result, xr.Dataset):
        # A grid of the variable alone must look like a grid of the data set.
        names = {"score": _SCORE_ATTRS, "difference": result.attrs.keys() - array.attrs.keys()}.get(str(array.name), ())
        copied = {name: result.attrs[name] for name in names if name in result.attrs}
        array.attrs = {**array.attrs, **copied, RESULT_ID: known, MADE_BY: "headnb"}
    checked = "sample" not in array.dims  # scores of samples may be large, and on disk
    array.encoding = {**array.encoding, _ENCODING_KEY: (known, array.size if checked else 0)}
    return result


def without_stale_identity(data: xr.Dataset) -> xr.Dataset:
    """Drop the id of numbers that were computed from a result, so that a file of them is not opened as a result."""
    if not is_computed(data):
        return data
    plain = data.copy(deep=False)
    for attrs in (plain.attrs, plain[_values_name(plain)].attrs):
        attrs.pop(RESULT_ID, None)
    return plain


def restore_identity(data: xr.Dataset) -> xr.Dataset:
    """Restore the identity of scores, a comparison or a study that was read from a file, if it is a result.

    A selection of a result that xarray wrote counts as a result, because the user opens it as scores. A difference of
    two results has no id and is not a result.
    """
    if not any(name in data and {"layer", "head"} <= set(data[name].dims) for name in _VARIABLES[:3]):
        return data
    return as_result(data) if RESULT_ID in data.attrs or is_result(data) else data


def is_result(data: xr.DataArray | xr.Dataset) -> bool:
    """Whether the attributes apply to the values (see the module docstring)."""
    array = data if isinstance(data, xr.DataArray) else data[_values_name(data)]
    stated = data.attrs.get(RESULT_ID)
    if mark := array.encoding.get(_ENCODING_KEY):
        known, size = mark
        return stated in {None, known} and (array.size != size or _hash_of(array) == known)  # not changed in place
    if stated is not None:
        return bool(_hash_of(array) == stated)
    if MADE_BY in data.attrs:
        return False
    # Old xarray drops all attributes, so scores without attributes may be a difference of scores.
    return isinstance(data, xr.DataArray) or "score" not in data or bool({"reduction", "method"} & data.attrs.keys())


def is_computed(data: xr.DataArray | xr.Dataset) -> bool:
    """Whether numbers were computed from results and are therefore not results themselves."""
    return MADE_BY in data.attrs and not is_result(data)


def trusted_attrs(data: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """The attributes that apply: all attributes of a result; only names for numbers computed from results.

    `xr.concat` gives several results the attributes of the first. The first result's reliability does not apply to the
    others, and its label and unit do not apply to other methods.
    """
    if not is_result(data):
        return {name: data.attrs[name] for name in _NAME_ATTRS if name in data.attrs}
    array = data if isinstance(data, xr.DataArray) else data[_values_name(data)]
    _, size = array.encoding.get(_ENCODING_KEY, ("", 0))
    unknown = {"method_label", "units"} if "method" in array.dims else set()
    unknown |= set(SAMPLE_ATTRS) if size and array.size > size else set()
    return {name: value for name, value in data.attrs.items() if name not in unknown}


def rescaled(levels: xr.DataArray, scaled: xr.DataArray, attrs: dict[str, str]) -> xr.DataArray:
    """Label `scaled`, which was computed from `levels`: a new result if `levels` is one, else a plain value.

    Args:
        levels: the values before rescaling.
        scaled: the rescaled values.
        attrs: attributes that replace those of `levels`.
    """
    scaled.attrs = {**trusted_attrs(levels), **attrs}
    return as_result(scaled) if is_result(levels) else scaled.assign_attrs(made_by(levels))


def made_by(data: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """The attribute that marks numbers computed from results."""
    return {name: data.attrs[name] for name in (MADE_BY,) if name in data.attrs}


def require_scores(*scores: xr.Dataset) -> None:
    """Raise HeadnbError if any argument is not scores but numbers computed from scores."""
    if not all(map(is_result, scores)):
        raise HeadnbError(
            "expected scores, got numbers computed from scores or a data set without the attributes of scores "
            "(reduction, method); headnb.compare(before, after) computes differences, headnb.open_scores opens stores"
        )


def is_signed(data: xr.DataArray | xr.Dataset) -> bool:
    """Whether values may be negative: signed scores, differences, and numbers computed from scores."""
    if isinstance(data, xr.Dataset):
        return data.attrs.get("reduction", "mean-abs") != "mean-abs" or not is_result(data)
    return data.attrs.get("kind", "level") not in {"level", "value"} or bool((data < 0).any())


def check_levels(what: str, *, signed: bool, of: str = "") -> None:
    """Raise HeadnbError if signed values were given for what is defined on activation levels only.

    Most of these analyses divide by a mean over heads, which may be near zero or negative if the values are signed.

    Args:
        what: name of the analysis or statistic.
        signed: whether the values are signed scores or differences.
        of: name of the task whose scores they are; "" for a single pattern or data set.
    """
    if signed:
        given = f"the scores of {of}" if of else "these values"
        raise HeadnbError(f"{what} needs activation levels (>= 0); {given} are signed")


def check_unique_samples(scores: xr.Dataset) -> None:
    """Raise HeadnbError for repeated samples, which would understate uncertainty, and for negative losses."""
    ids = scores.indexes.get("sample")
    if ids is not None and (repeated := ids.duplicated()).any():
        if "fingerprint" in scores and scores["fingerprint"].dims == ("sample",):  # ids may be row numbers
            keys = pd.DataFrame({"id": ids, "fingerprint": scores["fingerprint"].to_numpy()})
            repeated = keys.duplicated().to_numpy()
        if repeated.any():
            first = ids[repeated].tolist()[0]
            raise HeadnbError(
                f"{int(repeated.sum())} of {len(ids)} samples are repeated (the first: {first!r}); combine only "
                "scores of different samples"
            )
    if "loss" in scores and is_result(scores) and (scores["loss"] < -_LOSS_TOLERANCE).any():
        raise HeadnbError("these scores have negative losses; headnb.compare(before, after) computes differences")


def _values_name(data: xr.Dataset) -> str:
    name = next((name for name in _VARIABLES if name in data), None)
    if name is None:
        raise HeadnbError(f"these are not head scores: expected one of the variables {', '.join(_VARIABLES)}")
    return name


def _hash_of(array: xr.DataArray) -> str:
    """Order-independent hash of the values as float64; with many samples, of evenly spaced samples."""
    if array.sizes.get("sample", 0) > _MAX_HASHED_SAMPLES:
        array = array.isel(sample=np.linspace(0, array.sizes["sample"] - 1, _MAX_HASHED_SAMPLES).astype(int))
    bits = np.ascontiguousarray(array.values, np.float64).view(np.uint64)
    mixed = bits * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    total = int(np.sum(mixed ^ (mixed >> np.uint64(29)), dtype=np.uint64))
    return hashlib.blake2b(f"{array.size} {total}".encode(), digest_size=16).hexdigest()
