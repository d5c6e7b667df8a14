"""Columns of a score table as a Zarr group, created atomically and verified on reading.

Columns are chunked along their first dimension only, and each chunk has its own checksum. A checksum in the attributes
also covers the columns that no batch changes: see `checksums`.

All columns are in processing order, including the sample ids, so that `xarray.open_zarr` labels every row. (In formats
1 and 2 the sample columns were in input order and the scores had no labels.)

A data set may read its rows long after it was opened. The metadata file of a store holds a random id and no run
changes it, so it identifies the store: rows are returned only while the same store is at the same path.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.stats.scoring_revision import FIRST_REVISION, REVISION
from headnb.storage.checksums import CHECKSUM, array_metadata, checksum, compressors, report_corruption

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 3
READ_FORMATS = (1, 2, 3)  # 1 has no checksums; 1 and 2 have no labels of scores
SAMPLE_VARIABLES = ("answer_tokens", "batch_answer_tokens", "fingerprint")
CHUNK_BYTES = 2**20  # of one chunk of scores; each write rewrites the last chunk that it touches
MAX_CHUNK_BYTES = 2**26  # of one chunk of an untrusted store
MOST_TEXT_BYTES = 2**28  # of a column of text in memory
MAX_HEADS = 2**20  # layers times heads of a model

Attribute: TypeAlias = str | int | float
_RESCORE_HINT = "; remove this file and run the same call again to score these samples"

METADATA_FILE = "zarr.json"  # the file of a group's attributes
STORE_ID = "store_id"  # the attribute

# Dimensions of the stored arrays, all in processing order.
DIMENSIONS = {
    "score": ("sample", "layer", "head"),
    **dict.fromkeys(("loss", "done", "batch", "order", "sample", *SAMPLE_VARIABLES), ("sample",)),
}
SAMPLE_COLUMNS = ("sample", *SAMPLE_VARIABLES)  # known before scoring
FIXED_COLUMNS = ("order", *SAMPLE_COLUMNS)  # written once


def write_columns(path: Path, columns: Mapping[str, np.ndarray], attrs: Mapping[str, Attribute]) -> None:
    """Write a new store under a temporary name and rename it, so that a store is always complete.

    Args:
        path: of the store.
        columns: those of `SAMPLE_COLUMNS` in input order, the others in processing order.
        attrs: model, task, method and settings of the scores.

    Raises:
        HeadnbError: the disk is full or not writable, or the sample ids would take too much memory.
    """
    import zarr  # noqa: PLC0415  needed only for scores on disk

    if columns["sample"].dtype.kind == "U" and columns["sample"].nbytes > MOST_TEXT_BYTES:
        raise HeadnbError(
            f"the ids of these {len(columns['sample'])} samples take more than {MOST_TEXT_BYTES // 2**20} MB, because "
            "each takes the space of the longest one; give shorter ids or numbers"
        )
    columns = {**columns, **{name: columns[name][columns["order"]] for name in SAMPLE_COLUMNS}}
    draft = path.with_name(f".{path.name}.draft")
    rows = chunk_rows(columns["score"])
    try:
        shutil.rmtree(draft, ignore_errors=True)
        group = zarr.open_group(draft, mode="w", zarr_format=3)
        for name, values in columns.items():
            array = group.create_array(
                name,
                shape=values.shape,
                chunks=(min(rows, len(values)), *values.shape[1:]),
                dtype=str if values.dtype.kind == "U" else values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else None,
                dimension_names=DIMENSIONS[name],
                compressors=compressors(),
            )
            if name != "score":  # a new array is filled with NaN already
                array[:] = values
        group_attrs = {"headnb_format": FORMAT, STORE_ID: uuid.uuid4().hex, **attrs}
        fixed = {name: columns[name] for name in FIXED_COLUMNS}
        group.attrs.update({**group_attrs, CHECKSUM: checksum(group_attrs, fixed, array_metadata(draft, DIMENSIONS))})
        draft.rename(path)
    except OSError as error:
        raise HeadnbError(f"cannot write scores to {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class StoredColumns(NamedTuple):
    """Opened store: its arrays, attributes and constant columns."""

    arrays: dict[str, Any]
    """Zarr arrays by column, read and written on disk."""
    attrs: dict[str, Any]
    """Model, task, method and settings of the scores."""
    fixed: dict[str, np.ndarray]
    """Values of the columns that no batch changes; those of `SAMPLE_COLUMNS` in input order."""
    lost: np.ndarray
    """(n,): whether the chunk file with a row's scores is missing."""
    identity: bytes
    """Content of the metadata file, for `check_same_store`."""


def read_columns(path: Path, mode: Literal["r", "r+"]) -> StoredColumns:
    """Open the columns of the store at `path`.

    Raises:
        HeadnbError: it is not a store of scores, has a format that this version does not read, or is damaged.
    """
    import zarr  # noqa: PLC0415

    from headnb.storage.zarr_files import CheckedStore, check_codecs  # noqa: PLC0415

    try:
        identity = user_path(path / METADATA_FILE).read_bytes()
        group = zarr.open_group(CheckedStore(path), mode=mode, zarr_format=3)  # format 2 allows pickled arrays
        attrs: dict[str, Any] = dict(group.attrs)
        version = attrs.pop("headnb_format")
    except Exception as error:
        raise HeadnbError(f"{path} is not a store of head scores") from error
    if version not in READ_FORMATS:
        read = f"{', '.join(map(str, READ_FORMATS[:-1]))} and {READ_FORMATS[-1]}"
        raise HeadnbError(f"{path} has format {version!r:.20}; this version of headnb reads formats {read}")
    if attrs.get("fitted"):
        raise HeadnbError(f"{path} is not a store of head scores: it is a store of a fit")
    with report_corruption(path):
        columns: dict[str, Any] = {name: group[name] for name in DIMENSIONS}
        for name, column in columns.items():
            check_codecs(path, name, column)
        _check_shapes(path, columns)
        fixed = {name: plain_values(columns[name][:]) for name in FIXED_COLUMNS}
        expected = attrs.pop(CHECKSUM, None)
        if version > 1 and expected != checksum(
            {"headnb_format": version, **attrs}, fixed, array_metadata(path, DIMENSIONS)
        ):
            raise HeadnbError(f"{path} is damaged: its content does not match its checksum")
        if not np.array_equal(np.sort(fixed["order"]), np.arange(len(fixed["order"]))):
            raise HeadnbError(f"{path} is damaged: its processing order is not a permutation of the samples")
    if version > 2:
        by_input = np.argsort(fixed["order"])
        fixed |= {name: fixed[name][by_input] for name in SAMPLE_COLUMNS}
    attrs.pop(STORE_ID, None)
    attrs.setdefault(REVISION, FIRST_REVISION)
    return StoredColumns(columns, attrs, fixed, _lost_rows(path, columns["score"]), identity)


def check_same_store(path: Path, identity: bytes) -> None:
    """Raise HeadnbError unless the store that was opened is still at `path`."""
    try:
        current = (path / METADATA_FILE).read_bytes()
    except OSError:
        raise HeadnbError(
            f"the store {path} was moved or removed after it was opened; open it again at its new path"
        ) from None
    if current != identity:
        raise HeadnbError(f"{path} was replaced by another store after it was opened; open it again")


def _lost_rows(path: Path, score: Any) -> np.ndarray:
    """(n,): whether the chunk file of a row is missing."""
    lost = np.zeros(score.shape[0], bool)
    rows = score.chunks[0]
    for chunk, start in enumerate(range(0, len(lost), rows)):
        lost[start : start + rows] = not (path / chunk_file("score", chunk, score.ndim)).is_file()
    return lost


def read_rows(column: Any, name: str, indices: np.ndarray, *, identity: bytes = b"") -> np.ndarray:
    """Read rows of a column, chunk by chunk.

    Args:
        column: numpy or Zarr array.
        name: of the column.
        indices: (b,), ascending row indices in processing order; all of these rows are marked as done.
        identity: of the store that was opened, unless the column is in memory.

    Raises:
        HeadnbError: a chunk is damaged, its file is missing, or another store has replaced the one that was opened.
    """
    if isinstance(column, np.ndarray):
        return np.asarray(column[indices])
    values = np.empty((len(indices), *column.shape[1:]), column.dtype)
    rows, root = column.chunks[0], Path(column.store.root)
    chunks, starts = np.unique(indices // rows, return_index=True)
    for chunk, start, inside in zip(chunks.tolist(), starts.tolist(), np.split(indices, starts)[1:], strict=True):
        file = root / chunk_file(name, chunk, column.ndim)
        check_same_store(root, identity)
        with report_corruption(file, _RESCORE_HINT):
            stored = np.asarray(column[int(inside[0]) : int(inside[-1]) + 1])[inside - inside[0]]
        check_same_store(root, identity)  # the store may have been removed during the read
        if not file.is_file():  # Zarr reads a missing file as NaN
            raise HeadnbError(
                f"the file {file} is missing; run the same call of score_heads again to score its samples"
            )
        if name == "score" and without_scores(stored).any():
            raise HeadnbError(f"{file} is damaged: it has samples without scores{_RESCORE_HINT}")
        values[start : start + len(inside)] = stored
    return values


def without_scores(scores: np.ndarray) -> np.ndarray:
    """(b,): whether all scores (b, L, H) of a sample are NaN; those of some layers always are, never those of all."""
    return np.asarray(np.isnan(scores).all(axis=(1, 2)))


def _check_shapes(path: Path, columns: Mapping[str, Any]) -> None:
    """Refuse metadata that claim larger arrays than the files can hold."""
    samples, layers, heads = columns["score"].shape
    for name, column in columns.items():
        chunk_bytes = int(np.prod(column.chunks, dtype=float)) * column.dtype.itemsize
        shape = (samples, layers, heads)[: len(DIMENSIONS[name])]
        if column.shape != shape or chunk_bytes > MAX_CHUNK_BYTES or column.chunks[1:] != shape[1:]:
            raise HeadnbError(
                f"{path} is damaged: {name} has the shape {column.shape!s:.60} in chunks of {column.chunks!s:.60}"
            )
    # A random permutation of n samples does not compress to fewer than n bytes.
    stored = sum(file.stat().st_size for file in (path / "order").rglob("*") if file.is_file())
    if samples > stored or layers * heads > MAX_HEADS:
        raise HeadnbError(f"{path} is damaged: {samples} × {layers} × {heads} scores are too many for its files")


def chunk_rows(score: Any) -> int:
    """Number of samples per chunk of scores (n, L, H)."""
    return max(1, CHUNK_BYTES // int(score[:1].nbytes))


def plain_values(values: Any) -> np.ndarray:
    """Convert Zarr's text to numpy's; numbers stay as they are.

    Raises:
        ValueError: the text would take too much memory, because numpy pads each text to the length of the longest.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iufb":
        return array
    texts = array.tolist()
    if 4 * len(texts) * max(map(len, texts), default=0) > MOST_TEXT_BYTES:
        raise ValueError(f"a column of text would take more than {MOST_TEXT_BYTES // 2**20} MB of memory")
    return np.array(texts, str)


def chunk_file(name: str, chunk: int, dims: int) -> Path:
    """Path of a chunk inside the store, for a column chunked along its first dimension only."""
    return Path(name, "c", str(chunk), *["0"] * (dims - 1))
