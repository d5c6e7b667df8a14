"""Identity of results: which numbers may be called a level, a number of nats, or reliable.

Since 2025.11 xarray keeps attributes through arithmetic. Attributes alone would let `after - before` say that it is an
activation level with the reliability of `after`. So the values of a result carry an identity, and attributes count only
while the values still have it:

- `result_id` among the attributes is a hash of the values. It proves a result that xarray read from a file. Arithmetic
  between two results drops it, or keeps it beside values that it does not fit.
- The same id lies in the `encoding` of the values. "All operations that manipulate variables other than indexing will
  remove encoding information" (xarray's user guide), so it follows `.sel`, `.isel`, `.sortby`, `.copy` and `.load`
  and nothing that computes. `xr.concat` keeps the first one's.
- `made_by` is the same for all results and so survives where `result_id` does not: it tells numbers that were computed
  from results from numbers that somebody labelled by hand (`x.drop_attrs().assign_attrs(kind=..., units=...)`), whose
  attributes are taken at their word, as are those of files that an earlier version of headnb wrote.

A selection that is written and read again by xarray itself has lost its identity, and is then a plain value.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.errors import HeadnbError
from headnb.stats.reliability import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULT_ID = "result_id"
MADE_BY = "made_by"
_LOSS_TOLERANCE = 1e-4  # nats by which a loss may be below 0
_MAX_HASHED_SAMPLES = 64  # that are hashed
_ENCODING_KEY = "headnb_result"  # the entry of an encoding
_VARIABLES = ("score", "difference", "level", "value")  # the values of a data set of results
METHOD_ATTRIBUTES = ("method", "method_label", "units", "reduction")
# Label and unit of the methods of which earlier versions wrote neither; they wrote the units of all others.
_WRITTEN_BEFORE = {
    "activation": ("activation level", "nats"),
    **{name: (name, "nats") for name in ("taylor-token", "ablate-zero", "ablate-mean")},
}
_SCORE_ATTRS = ("model", "task", *METHOD_ATTRIBUTES, "loss_reduction", "kv_heads", "dtype", "scoring_revision")
_SAMPLE_ATTRS = (*Evidence._fields, "samples_unpaired")
_NAME_ATTRS = ("model", "task", "kv_heads")  # attributes that say nothing of the values

_Found = TypeVar("_Found", xr.DataArray, xr.Dataset)


def method_label(attrs: Mapping[Any, Any]) -> str:
    """What a value is called: "activation level", which scores without a method are taken for, or the method's name."""
    method = str(attrs.get("method", "activation"))
    return str(attrs.get("method_label") or _WRITTEN_BEFORE.get(method, (method, ""))[0])


def method_units(attrs: Mapping[Any, Any]) -> str:
    """The unit of a value: "nats" of a share of a loss; empty if it is not known."""
    method = str(attrs.get("method", "activation"))
    return str(attrs.get("units") or _WRITTEN_BEFORE.get(method, (method, ""))[1])


def as_result(found: _Found, identity: str = "") -> _Found:
    """The same array or data set with an identity; its variables are shared, its attributes are not.

    Args:
        found: a pattern, or a data set with `score`, `difference`, `level` or `value`.
        identity: known without reading the values, for those that stay on disk.
    """
    result = found.copy(deep=False)
    array = result if isinstance(result, xr.DataArray) else result[_values_name(result)]
    known = identity or _hash_of(array)
    result.attrs |= {RESULT_ID: known, MADE_BY: "headnb"}
    if isinstance(result, xr.Dataset):
        # the variable is drawn like the data set that it comes from
        facts = {"score": _SCORE_ATTRS, "difference": result.attrs.keys() - array.attrs.keys()}.get(str(array.name), ())
        told = {name: result.attrs[name] for name in facts if name in result.attrs}
        array.attrs = {**array.attrs, **told, RESULT_ID: known, MADE_BY: "headnb"}
    held = "sample" not in array.dims  # scores may be many, and on disk
    array.encoding = {**array.encoding, _ENCODING_KEY: (known, array.size if held else 0)}
    return result


def restore_identity(found: xr.Dataset) -> xr.Dataset:
    """Scores, a comparison or a study that was read from a file, with their identity if they are a result.

    A selection of a result, which xarray wrote, is one: what it says of itself is believed here, since somebody opens
    it as scores. A difference of two results has lost its id.
    """
    if not any(name in found and {"layer", "head"} <= set(found[name].dims) for name in _VARIABLES[:3]):
        return found
    return as_result(found) if RESULT_ID in found.attrs or is_result(found) else found


def is_result(found: xr.DataArray | xr.Dataset) -> bool:
    """Whether what the attributes say of the values may be believed: see the module."""
    array = found if isinstance(found, xr.DataArray) else found[_values_name(found)]
    named = found.attrs.get(RESULT_ID)
    if mark := array.encoding.get(_ENCODING_KEY):
        known, size = mark
        return named in {None, known} and (array.size != size or _hash_of(array) == known)  # changed in place?
    if named is not None:
        return bool(_hash_of(array) == named)
    if MADE_BY in found.attrs:
        return False
    # Old xarray drops all attributes: scores without any may be a difference of scores.
    return isinstance(found, xr.DataArray) or "score" not in found or bool({"reduction", "method"} & found.attrs.keys())


def is_computed(found: xr.DataArray | xr.Dataset) -> bool:
    """Whether numbers were computed from results, and so are none themselves."""
    return MADE_BY in found.attrs and not is_result(found)


def trusted_attrs(found: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """The attributes that hold: all of a result's, only names of numbers that were computed from results.

    Several results that `xr.concat` put together have the first one's attributes: how reliable it is, is not known of
    the others, nor are label and unit of those of other methods.
    """
    if not is_result(found):
        return {name: found.attrs[name] for name in _NAME_ATTRS if name in found.attrs}
    array = found if isinstance(found, xr.DataArray) else found[_values_name(found)]
    _, size = array.encoding.get(_ENCODING_KEY, ("", 0))
    unknown = {"method_label", "units"} if "method" in array.dims else set()
    unknown |= set(_SAMPLE_ATTRS) if size and array.size > size else set()
    return {name: value for name, value in found.attrs.items() if name not in unknown}


def rescaled(levels: xr.DataArray, scaled: xr.DataArray, said: dict[str, str]) -> xr.DataArray:
    """A result on another scale, which is one of its own; of other numbers only what is believed of them is kept."""
    scaled.attrs = {**trusted_attrs(levels), **said}
    return as_result(scaled) if is_result(levels) else scaled.assign_attrs(made_by(levels))


def made_by(found: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """The attribute that numbers keep which are computed from results."""
    return {name: found.attrs[name] for name in (MADE_BY,) if name in found.attrs}


def require_scores(*scores: xr.Dataset) -> None:
    """Raise HeadnbError unless all of them are scores, not numbers that were computed from scores."""
    if not all(map(is_result, scores)):
        raise HeadnbError(
            "these are not scores any more but numbers computed from scores, or a data set without the attributes of "
            "scores (reduction, method); headnb.compare(before, after) gives differences, headnb.open_scores opens "
            "stores"
        )


def check_unique_samples(scores: xr.Dataset) -> None:
    """Samples that count twice make everything look more certain than it is; a negative loss is a difference."""
    ids = scores.indexes.get("sample")
    if ids is not None and (repeated := ids.duplicated()).any():
        if "fingerprint" in scores and scores["fingerprint"].dims == ("sample",):  # equal ids may be mere row numbers
            keys = pd.DataFrame({"id": ids, "fingerprint": scores["fingerprint"].to_numpy()})
            repeated = keys.duplicated().to_numpy()
        if repeated.any():
            first = ids[repeated].tolist()[0]
            raise HeadnbError(
                f"{int(repeated.sum())} of {len(ids)} samples are there twice (the first: {first!r}); put together "
                "scores of different samples only"
            )
    if "loss" in scores and is_result(scores) and (scores["loss"] < -_LOSS_TOLERANCE).any():
        raise HeadnbError("these scores have negative losses, which a loss never is; headnb.compare gives differences")


def _values_name(found: xr.Dataset) -> str:
    name = next((name for name in _VARIABLES if name in found), None)
    if name is None:
        raise HeadnbError(f"these are no head scores: there is none of the variables {', '.join(_VARIABLES)}")
    return name


def _hash_of(array: xr.DataArray) -> str:
    """A hash of the values as float64, whatever their order; of many samples, of some."""
    if array.sizes.get("sample", 0) > _MAX_HASHED_SAMPLES:
        array = array.isel(sample=np.linspace(0, array.sizes["sample"] - 1, _MAX_HASHED_SAMPLES).astype(int))
    bits = np.ascontiguousarray(array.values, np.float64).view(np.uint64)
    mixed = bits * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    total = int(np.sum(mixed ^ (mixed >> np.uint64(29)), dtype=np.uint64))
    return hashlib.blake2b(f"{array.size} {total}".encode(), digest_size=16).hexdigest()
