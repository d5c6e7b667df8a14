"""The columns of a table of scores as they lie on disk: a Zarr group, made whole or not at all, checked on reading.

Columns are cut into chunks along their first dimension only, and each chunk has a checksum of its own. What no batch
changes is covered by one among the attributes, too: see `checksums`.

All columns lie in the order of work, with the sample ids among them, so that `xarray.open_zarr` labels every row. (In
formats 1 and 2 what is known of samples lay in the order of the input, and the scores had no labels.)

A data set may read its rows long after it was opened. A store is therefore known by its first file, which no run
changes and which holds a random id: rows are given out only while the same store is still at the same place.
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
READ_FORMATS = (1, 2, 3)  # 1 has no checksums, 1 and 2 no labels of scores
SAMPLE_VARIABLES = ("answer_tokens", "batch_answer_tokens", "fingerprint")
CHUNK_BYTES = 2**20  # of one chunk of scores; what is written rewrites the chunk that it ends in
MAX_CHUNK_BYTES = 2**26  # of a store that comes from elsewhere
MOST_TEXT_BYTES = 2**28  # of a column
MAX_HEADS = 2**20  # of a model, layers times heads

Attribute: TypeAlias = str | int | float
_RESCORE_HINT = "; without this file the same call scores these samples again"

METADATA_FILE = "zarr.json"  # the file of a group's attributes
STORE_ID = "store_id"  # the attribute

# Dimensions of the stored arrays, all of them in the order of work.
DIMENSIONS = {
    "score": ("sample", "layer", "head"),
    **dict.fromkeys(("loss", "done", "batch", "order", "sample", *SAMPLE_VARIABLES), ("sample",)),
}
SAMPLE_COLUMNS = ("sample", *SAMPLE_VARIABLES)  # what is known before any is scored
FIXED_COLUMNS = ("order", *SAMPLE_COLUMNS)  # what no batch changes


def write_columns(path: Path, columns: Mapping[str, np.ndarray], attrs: Mapping[str, Attribute]) -> None:
    """Write a new store beside its place and move it there, so that a store is there whole or not at all.

    Args:
        path: of the store.
        columns: those of `SAMPLE_COLUMNS` in the order of the input, the others in the order of work.
        attrs: what the scores are of and how they were made.

    Raises:
        HeadnbError: the disk is full or cannot be written.
    """
    import zarr  # noqa: PLC0415  needed only for scores on disk

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
            if name != "score":  # NaN is what a new array is full of
                array[:] = values
        told = {"headnb_format": FORMAT, STORE_ID: uuid.uuid4().hex, **attrs}
        fixed = {name: columns[name] for name in FIXED_COLUMNS}
        group.attrs.update({**told, CHECKSUM: checksum(told, fixed, array_metadata(draft, DIMENSIONS))})
        draft.rename(path)
    except OSError as error:
        raise HeadnbError(f"cannot write scores to {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class StoredColumns(NamedTuple):
    """What `read_columns` found."""

    arrays: dict[str, Any]
    """Of Zarr, by column, which are read and written where they lie."""
    attrs: dict[str, Any]
    """What the scores are of and how they were made."""
    fixed: dict[str, np.ndarray]
    """The values of the columns that no batch changes; those of `SAMPLE_COLUMNS` in the order of the input."""
    lost: np.ndarray
    """(n,): whether a place's scores were in a file that is gone."""
    identity: bytes
    """What `check_same_store` takes."""


def read_columns(path: Path, mode: Literal["r", "r+"]) -> StoredColumns:
    """Open the columns of the store at `path`.

    Raises:
        HeadnbError: it is no store of scores, of a format that this version does not read, or damaged.
    """
    import zarr  # noqa: PLC0415

    from headnb.storage.zarr_files import CheckedStore, check_codecs  # noqa: PLC0415

    try:
        identity = user_path(path / METADATA_FILE).read_bytes()
        group = zarr.open_group(CheckedStore(path), mode=mode, zarr_format=3)  # format 2 knows pickled arrays
        attrs: dict[str, Any] = dict(group.attrs)
        version = attrs.pop("headnb_format")
    except Exception as error:
        raise HeadnbError(f"{path} is not a store of head scores") from error
    if version not in READ_FORMATS:
        read = f"{', '.join(map(str, READ_FORMATS[:-1]))} and {READ_FORMATS[-1]}"
        raise HeadnbError(f"{path} has format {version!r:.20}; this version of headnb reads formats {read}")
    if attrs.get("fitted"):
        raise HeadnbError(f"{path} is not a store of head scores: it is one of a fit")
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
            raise HeadnbError(f"{path} is damaged: it is not what was written")
        if not np.array_equal(np.sort(fixed["order"]), np.arange(len(fixed["order"]))):
            raise HeadnbError(f"{path} is damaged: its order of work names samples twice")
    if version > 2:
        by_input = np.argsort(fixed["order"])
        fixed |= {name: fixed[name][by_input] for name in SAMPLE_COLUMNS}
    attrs.pop(STORE_ID, None)
    attrs.setdefault(REVISION, FIRST_REVISION)
    return StoredColumns(columns, attrs, fixed, _lost_rows(path, columns["score"]), identity)


def check_same_store(path: Path, identity: bytes) -> None:
    """Raise HeadnbError unless the store that was opened is still the one at `path`."""
    try:
        found = (path / METADATA_FILE).read_bytes()
    except OSError:
        raise HeadnbError(
            f"there is no store at {path} any more: it was moved or removed after it was opened; open it again where "
            "it is now"
        ) from None
    if found != identity:
        raise HeadnbError(f"{path} holds other scores than when it was opened; open it again")


def _lost_rows(path: Path, score: Any) -> np.ndarray:
    """(n,): whether the chunk of a place has no file."""
    lost = np.zeros(score.shape[0], bool)
    rows = score.chunks[0]
    for chunk, start in enumerate(range(0, len(lost), rows)):
        lost[start : start + rows] = not (path / chunk_file("score", chunk, score.ndim)).is_file()
    return lost


def read_rows(column: Any, name: str, places: np.ndarray, *, identity: bytes = b"") -> np.ndarray:
    """A column at these places, which ascend and are marked as done, chunk by chunk.

    Args:
        column: in memory or of Zarr.
        name: of the column.
        places: (b,) in the order of work.
        identity: of the store that was opened, unless the column is in memory.

    Raises:
        HeadnbError: a chunk is damaged, its file is gone, or another store is in the place of the one that was opened.
    """
    if isinstance(column, np.ndarray):
        return np.asarray(column[places])
    found = np.empty((len(places), *column.shape[1:]), column.dtype)
    rows, root = column.chunks[0], Path(column.store.root)
    chunks, starts = np.unique(places // rows, return_index=True)
    for chunk, start, inside in zip(chunks.tolist(), starts.tolist(), np.split(places, starts)[1:], strict=True):
        file = root / chunk_file(name, chunk, column.ndim)
        check_same_store(root, identity)
        with report_corruption(file, _RESCORE_HINT):
            stored = np.asarray(column[int(inside[0]) : int(inside[-1]) + 1])[inside - inside[0]]
        check_same_store(root, identity)  # again: it may have gone meanwhile
        if not file.is_file():  # Zarr reads what has no file as NaN
            raise HeadnbError(f"the file {file} is gone; the same call of score_heads scores its samples again")
        if name == "score" and without_scores(stored).any():
            raise HeadnbError(f"{file} is damaged: it has samples without scores{_RESCORE_HINT}")
        found[start : start + len(inside)] = stored
    return found


def without_scores(scores: np.ndarray) -> np.ndarray:
    """(b,): whether a sample of scores (b, L, H) has none; some layers may have none, but never all of them."""
    return np.asarray(np.isnan(scores).all(axis=(1, 2)))


def _check_shapes(path: Path, columns: Mapping[str, Any]) -> None:
    """A small file must not say that it holds a large array."""
    samples, layers, heads = columns["score"].shape
    for name, column in columns.items():
        chunk_bytes = int(np.prod(column.chunks, dtype=float)) * column.dtype.itemsize
        shape = (samples, layers, heads)[: len(DIMENSIONS[name])]
        if column.shape != shape or chunk_bytes > MAX_CHUNK_BYTES or column.chunks[1:] != shape[1:]:
            raise HeadnbError(
                f"{path} is damaged: {name} has the shape {column.shape!s:.60} in parts of {column.chunks!s:.60}"
            )
    # A random order of n samples does not compress to fewer bytes than n.
    stored = sum(file.stat().st_size for file in (path / "order").rglob("*") if file.is_file())
    if samples > stored or layers * heads > MAX_HEADS:
        raise HeadnbError(f"{path} is damaged: {samples} × {layers} × {heads} scores are too many for its files")


def chunk_rows(score: Any) -> int:
    """How many samples of scores (n, L, H) make a chunk."""
    return max(1, CHUNK_BYTES // int(score[:1].nbytes))


def plain_values(values: Any) -> np.ndarray:
    """Numbers as they are, Zarr's text as numpy's.

    Raises:
        ValueError: a few long texts among many, each of which numpy would give the length of the longest.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iufb":
        return array
    texts = array.tolist()
    if 4 * len(texts) * max(map(len, texts), default=0) > MOST_TEXT_BYTES:
        raise ValueError(f"a column of text would take more than {MOST_TEXT_BYTES // 2**20} MB of memory")
    return np.array(texts, str)


def chunk_file(name: str, chunk: int, dims: int) -> Path:
    """Of a column that is cut along its first dimension only."""
    return Path(name, "c", str(chunk), *["0"] * (dims - 1))
