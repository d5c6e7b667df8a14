"""Opening of stored scores in every format, from local paths and from URLs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.display.payload_parser import read_payload
from headnb.display.payload_pattern import payload_pattern
from headnb.errors import HeadnbError
from headnb.stats.scoring_revision import warn_of_revision
from headnb.storage.files import read_dataset
from headnb.storage.fit_store import read_fit
from headnb.storage.frames import from_frame, read_parquet
from headnb.storage.locks import local_path
from headnb.storage.method_results import MethodResults, results_by_method, stored_results
from headnb.storage.remote import is_url, local_copy, shown_url
from headnb.storage.score_store import read_table
from headnb.storage.zarr_columns import METADATA_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.stats.labelled import Scores

SHARED_FILE = "scores.nc"  # of a repository on the hub


@check_arguments
def open_scores(path: str | Path | pd.DataFrame) -> Scores:
    """Open scores from a file, a store or a URL.

    Args:
        path: one of:

            - a Zarr store that `score_heads(..., out=path)` wrote, or a netCDF file (`.nc`), which may contain head
              roles, a comparison, or a pattern (DataArray) that `to_netcdf` of xarray wrote;
            - a folder of such stores or files, one per method; gives the `MethodResults` of their common samples;
            - a Parquet file (`.parquet`), or a frame of `scores.heads.to_frame()`;
            - a `.heads.json` file, which has no samples: its pattern (DataArray) is returned, with 4 significant
              digits;
            - `hf://user/name` or `hf://user/name@revision` for scores that `push_to_hub` uploaded (branch, tag or
              commit). They stay in the hub's cache and then open without a network. `hf://user/name/path` opens
              another file of the repository;
            - another URL of a store or a file, such as `s3://bucket/a.zarr`, which fsspec opens; it is read whole.

    `.attrs["complete"]` is 1 if all samples are scored. Scores of another scoring revision open with a warning (see
    `headnb.stats.scoring_revision`).

    Raises:
        HeadnbError: `path` does not exist, or is not a file or a store that this version reads.
    """
    if not isinstance(path, (str, Path)):
        if hasattr(path, "to_parquet"):
            return cast("Scores", from_frame(path))
        raise HeadnbError(f"expected a path, a URL or a pandas frame of scores, not {path!r:.60}")
    with local_copy(path, SHARED_FILE) as local:
        if not local.exists():
            raise HeadnbError(f"there are no scores at {path}")
        scores = _read_folder(local) if local.is_dir() else _read_file(local)
        results = list(scores.values()) if isinstance(scores, MethodResults) else [scores]
        if is_url(path):  # the copy is temporary
            for result in results:
                result.load()
    for result in results:
        warn_of_revision(shown_url(path), result.attrs)
    return cast("Scores", scores)


def open_scores_of_one_method(path: str | Path) -> xr.Dataset:
    """Open scores of samples by one method.

    Raises:
        HeadnbError: as for `open_scores`; or `path` has results of several methods, or a pattern or a comparison.
    """
    scores: object = open_scores(path)
    if isinstance(scores, MethodResults):
        first = next(iter(scores))
        example = f"{first}.zarr" if is_url(path) else stored_results(local_path(path))[0].name
        raise HeadnbError(f"{path} has results of several methods; give those of one, such as {path}/{example}")
    _check_scores(scores, path)
    return cast("xr.Dataset", scores)


def read_parts(source: xr.Dataset | str | Path, rows: int) -> Iterator[xr.Dataset]:
    """Iterate over scores or a store of scores, at most `rows` samples at a time, without loading a store whole.

    The coordinate `position` (sample) is each sample's position in the input.

    Raises:
        HeadnbError: as for `open_scores`.
    """
    if isinstance(source, (str, Path)) and not is_url(source) and local_path(source).is_dir():
        yield from read_table(local_path(source), mode="r").iterate_parts(rows)
        return
    scores = source if isinstance(source, xr.Dataset) else open_scores_of_one_method(source)
    for start in range(0, scores.sizes["sample"], rows):
        part = scores.isel(sample=slice(start, start + rows)).load()
        yield part.assign_coords(position=("sample", start + np.arange(part.sizes["sample"])))


def _read_folder(path: Path) -> xr.Dataset | MethodResults:
    if not (path / METADATA_FILE).exists() and (files := stored_results(path)):
        stored = {file: _read_folder(file) if file.is_dir() else _read_file(file) for file in files}
        for file, result in stored.items():
            _check_scores(result, file)
        return results_by_method(cast("dict[Path, xr.Dataset]", stored))
    fitted = read_fit(path)
    return read_table(path, mode="r").scores() if fitted is None else fitted


def _read_file(path: Path) -> xr.Dataset | xr.DataArray:
    if path.suffix == ".json":
        return payload_pattern(read_payload(path))
    if path.suffix == ".parquet":
        return read_parquet(path)
    scores = read_dataset(path)
    if "score" in scores and ("loss" in scores or "role" in scores.dims):
        return scores
    if "difference" in scores and _is_of_heads(scores["difference"]):
        return scores
    if len(scores.data_vars) == 1 and _is_of_heads(only := next(iter(scores.data_vars.values()))):
        return only
    raise HeadnbError(f"{path} has no head scores (variables score and loss)")


def _is_of_heads(values: xr.DataArray) -> bool:
    """Whether an array may be a pattern or a comparison: numbers of heads, not of samples."""
    return {"layer", "head"} <= set(values.dims) and "sample" not in values.dims and values.dtype.kind in "fiu"


def _check_scores(result: object, path: str | Path) -> None:
    if not isinstance(result, xr.Dataset) or "score" not in result:
        raise HeadnbError(f"{shown_url(path)} has no head scores (variables score and loss)")
