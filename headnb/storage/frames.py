"""Scores as a pandas frame, and back: one row for each sample, layer and head.

The frame's `attrs` are those of the scores. pandas keeps them in a Parquet file.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError, one_line
from headnb.stats.results import restore_identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

DIMS = ("sample", "layer", "head")
MAX_BYTES = 2**28  # a file may take this much memory, or `MAX_GROWTH` times its size
MAX_GROWTH = 50


def to_frame(scores: xr.Dataset) -> pd.DataFrame:
    """Columns: the dims of the scores, `score`, then the other variables, repeated for each head of a sample.

    Raises:
        HeadnbError: not scores, or scores with further dims, such as head roles.
    """
    if "score" not in scores or not {"layer", "head"} <= set(scores["score"].dims) <= set(DIMS):
        raise HeadnbError("a frame holds scores of one set of samples; select one with .sel first")
    if others := [str(dim) for dim in scores.dims if dim not in DIMS]:
        raise HeadnbError(f"a frame cannot hold the dimension {others[0]}; save to .nc, which holds everything")
    dims = [dim for dim in DIMS if dim in scores["score"].dims]
    frame = scores.drop_vars([name for name in scores.coords if name not in dims]).to_dataframe(dim_order=dims)
    frame = frame.reset_index()
    frame.attrs = {name: getattr(value, "item", lambda value=value: value)() for name, value in scores.attrs.items()}
    return frame


def from_frame(frame: pd.DataFrame, where: str = "the frame") -> xr.Dataset:
    """Scores of a frame with the columns of `to_frame`; the rows may have any order.

    Samples come in the order in which they occur first, layers and heads in ascending order.

    Raises:
        HeadnbError: there is no column `score`, `layer` or `head`, a combination of sample, layer and head is missing
            or repeated, or a variable of samples differs between the rows of a sample.
    """
    if missing := [name for name in ("layer", "head", "score") if name not in frame.columns]:
        raise HeadnbError(f"{where} has no head scores: the column {missing[0]} is missing")
    dims = [dim for dim in DIMS if dim in frame.columns]
    codes, coords = zip(*(frame[dim].factorize(sort=dim in {"layer", "head"}) for dim in dims), strict=True)
    if empty := [dim for dim, code in zip(dims, codes, strict=True) if (code < 0).any()]:
        raise HeadnbError(f"{where} has rows without a {empty[0]}")
    shape = tuple(map(len, coords))
    cells = np.ravel_multi_index(codes, shape) if len(frame) else np.array([], int)
    order = np.argsort(cells, kind="stable")
    if not len(frame) or math.prod(shape) != len(frame) or not np.array_equal(cells[order], np.arange(len(frame))):
        raise HeadnbError(f"{where} does not have exactly one row for each combination of {', '.join(dims)}")
    variables: dict[str, Any] = {"score": (dims, frame["score"].to_numpy()[order].reshape(shape))}
    for name in frame.columns.difference([*dims, "score"], sort=False):
        values = frame[name].to_numpy()[order].reshape(shape)
        variables[str(name)] = _of_samples(values, dims, f"{where}: {name}")
    labels = {dim: np.asarray(values) for dim, values in zip(dims, coords, strict=True)}
    return restore_identity(xr.Dataset(variables, labels, dict(frame.attrs)))


def _of_samples(values: np.ndarray, dims: list[str], where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """A variable with one value per sample, which each row of the sample repeats; a scalar for scores of one sample."""
    of_one = "sample" not in dims
    rows = values[None] if of_one else np.moveaxis(values, dims.index("sample"), 0)
    rows = rows.reshape(len(rows), -1)
    same = (rows == rows[:, :1]) | ((rows != rows) & (rows[:, :1] != rows[:, :1]))  # noqa: PLR0124  NaN equals NaN
    if not same.all():
        raise HeadnbError(f"{where} differs between the rows of a sample")
    return ((), rows[0, 0]) if of_one else (("sample",), rows[:, 0])


def write_parquet(path: Path, scores: xr.Dataset) -> None:
    """Write scores as a Parquet file of `to_frame`."""
    to_frame(scores).to_parquet(path, index=False)


def read_parquet(path: Path) -> xr.Dataset:
    """Read a Parquet file that `write_parquet` wrote.

    Raises:
        HeadnbError: the file is damaged, needs too much memory, or has no head scores.
    """
    import pandas as pd  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    with _explained(path):
        known = pq.read_metadata(path)
        columns = known.schema.to_arrow_schema()
    needed = 8 * known.num_rows * known.num_columns
    if needed > max(MAX_BYTES, MAX_GROWTH * path.stat().st_size):
        raise HeadnbError(f"{path} is not read: its {known.num_rows} rows would take {needed / 2**20:.0f} MB")
    texts = [column.name for column in columns if not _is_number(column.type)]
    if others := [name for name in texts if name != "sample"]:
        raise HeadnbError(f"{path} is not a Parquet file of head scores: {one_line(others[0], 60)} is not a number")
    with _explained(path):
        frame = pd.read_parquet(path, read_dictionary=texts)  # a text that many rows repeat is read once
    return from_frame(frame, str(path))


def _is_number(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # pyarrow raises many types
        raise HeadnbError(f"{path} is not a Parquet file of head scores: {one_line(error, 200)}") from error
