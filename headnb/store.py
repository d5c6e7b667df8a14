"""Scores as they are made: a table in the order of work, in memory or on disk, and the labelled data set made of it.

On disk the table is a Zarr group. It holds the batch plan, so that a run that was stopped goes on with the very same
batches, and a mark for each sample that is set after its scores are written. What is on disk is either complete and
marked or it does not count. (NaN is no mark: layers without softmax heads are NaN.) One run writes at a time: it holds
a lock of the operating system, which goes with its process. Reading needs no lock. What is read is checked: see
`checksums`.
"""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import xarray as xr

from headnb.checksums import CHECKSUM, checksum, compressors, damage_named, layout
from headnb.encoding import BatchPlan
from headnb.errors import HeadnbError, known_keywords
from headnb.model_checks import check_memory
from headnb.read_later import StoredRows, read_later
from headnb.store_paths import local_path, only_writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 2
READ_FORMATS = (1, 2)  # 1 has no checksums
SAMPLE_VARIABLES = ("answer_tokens", "batch_answer_tokens", "fingerprint")
CHUNK_BYTES = 2**20  # of one chunk of scores; what is written rewrites the chunk that it ends in
WRITTEN_EVERY = 1.0  # seconds: faster batches are written together, so that an accelerator does not wait for the disk
READ_LATER_FROM = 2**26  # bytes of scores on disk that a data set does not read before they are used
MOST_CHUNK_BYTES = 2**26  # of a store that comes from elsewhere
MOST_HEADS = 2**20  # of a model, layers times heads

Attribute: TypeAlias = str | int | float


class ScoreTable:
    """Scores (n, L, H), losses (n,) and marks (n,), row by row in the order of work.

    Attributes:
        attrs: what the scores are of and how they were made: flat scalars.
        ids: sample ids, in the order of the input.
        samples: what is known of each sample before it is scored, (n,) each, in the order of the input:
            `answer_tokens`, `batch_answer_tokens` (of its batch in the paper's script) and `fingerprint`.
        plan: order of work and batches.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        attrs: dict[str, Attribute],
        ids: np.ndarray,
        samples: Mapping[str, np.ndarray],
        plan: BatchPlan,
    ) -> None:
        self._columns = columns  # arrays of numpy or zarr, which are written and read in the same way
        self.attrs = attrs
        self.ids = ids
        self.samples = samples
        self.plan = plan
        self._waiting: list[_Rows] = []
        self._written = -np.inf  # when, of the clock that only goes on
        self._writing = threading.Lock()
        # A mark without a loss is a chunk that got lost: it is scored again.
        self.done = np.asarray(columns["done"][:]).astype(bool) & np.isfinite(np.asarray(columns["loss"][:]))

    @property
    def on_disk(self) -> bool:
        """Whether what is written outlives this process."""
        return not isinstance(self._columns["score"], np.ndarray)

    def write(self, places: np.ndarray, scores: np.ndarray, losses: np.ndarray) -> None:
        """Keep the scores (b, L, H) and losses (b,) of one batch: consecutive places in the order of work.

        They go to disk at once, but for a batch that ends within a second of the last writing: it waits for the next
        batch, for somebody who reads, or for the end.

        Raises:
            HeadnbError: as `flush` does.
        """
        self._waiting.append(_Rows(int(places[0]), scores, losses))
        self.done[places] = True
        if time.monotonic() - self._written >= WRITTEN_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet.

        Raises:
            HeadnbError: the disk is full or cannot be written, or the chunk that is written to is damaged; batches
                that were complete before stay.
        """
        with self._writing, self._kept():  # who draws scores that come may do so in a thread of its own
            waiting = self._waiting.copy()
            for part in _joined(waiting):
                rows = slice(part.start, part.stop)
                self._columns["score"][rows] = part.scores
                self._columns["loss"][rows] = part.losses
                self._columns["done"][rows] = np.ones(len(part.losses), np.uint8)  # last: from here on it counts
            del self._waiting[: len(waiting)]
            self._written = time.monotonic()

    def replan(self, plan: BatchPlan) -> None:
        """Other batches for what is left, in the same order of work; raises HeadnbError as `write` does."""
        with self._kept():
            self._columns["batch"][:] = plan.batch
        self.plan = plan

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # a full disk; a chunk that cannot be read to be completed
            reason = getattr(error, "strerror", None) or error
            raise HeadnbError(f"scores cannot be written any more ({reason}); what was complete is kept") from error

    def pending(self) -> list[np.ndarray]:
        """The batches that are not scored yet, as places in the order of work."""
        return [places for places in self.plan.batches() if not self.done[places].all()]

    def without_gap(self) -> int:
        """How many samples are scored in the order of work before the first that is not."""
        return len(self.done) if self.done.all() else int(np.argmin(self.done))

    def score_rows(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Scores (b, L, H) of the places from `start` to `stop`, a few at a time."""
        if start < stop:
            self.flush()
        rows = max(1, CHUNK_BYTES // self._columns["score"][:1].nbytes)
        for first in range(start, stop, rows):
            yield np.asarray(self._columns["score"][first : min(first + rows, stop)])

    def scores(self, *, whole_blocks_of: int | None = None) -> xr.Dataset:
        """What is scored so far, in the order of the input.

        Args:
            whole_blocks_of: leave out a block of so many samples that is not complete yet, unless it is the first:
                a part of a block is sorted by length, and so not a fair sample of the task.
        """
        self.flush()
        done = self.done.copy()
        if whole_blocks_of:
            starts = np.arange(0, len(done), whole_blocks_of)
            blocks = np.repeat(np.logical_and.reduceat(done, starts), np.diff([*starts, len(done)]))
            done = blocks if blocks.any() else done
        places = np.flatnonzero(done)
        by_input = np.argsort(self.plan.order[places])
        return self._dataset(places[by_input])

    def parts(self, rows: int) -> Iterator[xr.Dataset]:
        """What is scored so far, at most `rows` samples at a time, in the order of work, as it lies on disk.

        The coordinate `position` (sample) is the place of each sample in the input.
        """
        self.flush()
        for start in range(0, len(self.done), rows):
            places = start + np.flatnonzero(self.done[start : start + rows])
            if len(places):
                yield self._dataset(places).assign_coords(position=("sample", self.plan.order[places]))

    def _at(self, name: str, places: np.ndarray) -> xr.Variable:
        """A column at these places in any order, read when it is used."""
        column = self._columns[name]
        rows = StoredRows(partial(_read, column, name), places, column.shape[1:], column.dtype)
        return read_later(rows, ("sample", *_DIMENSIONS[name][1:]))

    def _dataset(self, places: np.ndarray) -> xr.Dataset:
        """What is known of these places in the order of work, labelled; many scores on disk stay there until used."""
        positions = self.plan.order[places]
        score = self._at("score", places)
        if not self.on_disk or score.nbytes <= READ_LATER_FROM:
            score.load()
        return xr.Dataset(
            {
                "score": score,
                "loss": self._at("loss", places).load(),
                **{name: ("sample", np.asarray(self.samples[name])[positions]) for name in SAMPLE_VARIABLES},
            },
            coords={
                "sample": self.ids[positions],
                "layer": np.arange(score.shape[1]),
                "head": np.arange(score.shape[2]),
            },
            attrs=self.attrs | {"complete": int(self.done.all())},
        )


def _read(column: Any, name: str, places: np.ndarray) -> np.ndarray:
    """A column at these places, which ascend, chunk by chunk: what was never written takes no memory.

    Raises:
        HeadnbError: a chunk is damaged.
    """
    if isinstance(column, np.ndarray):
        return np.asarray(column[places])
    found = np.empty((len(places), *column.shape[1:]), column.dtype)
    rows = column.chunks[0]
    chunks, starts = np.unique(places // rows, return_index=True)
    for chunk, start, inside in zip(chunks.tolist(), starts.tolist(), np.split(places, starts)[1:], strict=True):
        file = Path(column.store.root) / _chunk_file(name, chunk, column.ndim)
        with damage_named(file, "; without this file the same call scores these samples again"):
            stored = np.asarray(column[int(inside[0]) : int(inside[-1]) + 1])
            found[start : start + len(inside)] = stored[inside - inside[0]]
    return found


class _Rows(NamedTuple):
    """Scores (b, L, H) and losses (b,) of the places from `start` on."""

    start: int
    scores: np.ndarray
    losses: np.ndarray

    @property
    def stop(self) -> int:
        """The place behind the last."""
        return self.start + len(self.losses)


def _joined(parts: list[_Rows]) -> Iterator[_Rows]:
    """The same rows, with those that follow each other together."""
    runs: list[list[_Rows]] = []
    for part in sorted(parts, key=lambda part: part.start):
        if runs and part.start == runs[-1][-1].stop:
            runs[-1].append(part)
        else:
            runs.append([part])
    for run in runs:
        _, scores, losses = zip(*run, strict=True)
        yield _Rows(run[0].start, np.concatenate(scores), np.concatenate(losses))


@contextmanager
def open_table(
    path: str | Path | None,
    attrs: dict[str, Attribute],
    ids: tuple[int | str, ...],
    samples: Mapping[str, np.ndarray],
    plan: BatchPlan,
    shape: tuple[int, int],
) -> Iterator[ScoreTable]:
    """A table for scores of `shape` (layers, heads): in memory, at `path`, or the one that is at `path` already.

    While the context is open no other run can write there.

    Raises:
        HeadnbError: the scores do not fit into memory; another run writes to `path` now; it cannot be written, holds
            something else, or holds scores of another model, task, method or setting (it says which).
    """
    if path is None:
        held = 2 * len(ids) * shape[0] * shape[1] * 4  # the table, and the result made of it
        check_memory(held, f"scores of {len(ids)} samples", "out= writes them to disk as they come")
    columns: dict[str, np.ndarray] = {
        "score": np.broadcast_to(np.float32(np.nan), (len(ids), *shape)),  # one number: on disk it takes no memory
        "loss": np.full(len(ids), np.nan, np.float32),
        "done": np.zeros(len(ids), np.uint8),
        "batch": plan.batch.astype(np.int32),
        "order": plan.order.astype(np.int64),
        "sample": np.array(ids),
        **samples,
    }
    if path is None:
        columns["score"] = columns["score"].copy()
        yield ScoreTable(columns, attrs, columns["sample"], samples, plan)
        return
    path = local_path(path)
    if path.exists():
        table = _table_of(path, attrs, mode="r")
        if table.done.all():  # nothing to write: it may lie on a read-only disk
            yield table
            return
    with only_writer(path):
        if not path.exists():
            _write_group(path, columns, attrs)
        table = _table_of(path, attrs, mode="r+")
        try:
            yield table
        finally:
            table.flush()


@known_keywords
def open_scores(path: str | Path) -> xr.Dataset:
    """Scores that `score_heads(..., out=path)` wrote (`.attrs["complete"]` says if all), or a netCDF file.

    Raises:
        HeadnbError: there is nothing at `path`, or it is not a store of scores that this version reads.
    """
    from headnb.fit_store import read_fit  # noqa: PLC0415  which is built on this module

    path = local_path(path)
    if not path.exists():
        raise HeadnbError(f"there are no scores at {path}")
    if path.is_dir():
        if (fitted := read_fit(path)) is not None:
            return fitted
        return _read_table(path, mode="r").scores()
    try:
        with xr.open_dataset(path, engine="netcdf4") as stored:
            scores = stored.load()
    except Exception as error:  # xarray lets through whatever its decoders raise
        raise HeadnbError(f"{path} is not a netCDF file: {error}") from error
    if not {"score", "loss"} <= set(scores.data_vars):
        raise HeadnbError(f"{path} holds no head scores")
    return scores


def read_parts(source: xr.Dataset | str | Path, rows: int) -> Iterator[xr.Dataset]:
    """Scores of samples, or a store of them, at most `rows` samples at a time: a large store is never in memory whole.

    The coordinate `position` (sample) is the place of each sample in the input.

    Raises:
        HeadnbError: as `open_scores` does.
    """
    if isinstance(source, (str, Path)) and local_path(source).is_dir():
        yield from _read_table(local_path(source), mode="r").parts(rows)
        return
    scores = source if isinstance(source, xr.Dataset) else open_scores(source)
    for start in range(0, scores.sizes["sample"], rows):
        part = scores.isel(sample=slice(start, start + rows)).load()
        yield part.assign_coords(position=("sample", start + np.arange(part.sizes["sample"])))


# Dimensions of the stored arrays; "place" counts in the order of work, "sample" in the order of the input.
_DIMENSIONS = {
    "score": ("place", "layer", "head"),
    "loss": ("place",),
    "done": ("place",),
    "batch": ("place",),
    "order": ("place",),
    "sample": ("sample",),
    **dict.fromkeys(SAMPLE_VARIABLES, ("sample",)),
}
_FIXED = ("order", "sample", *SAMPLE_VARIABLES)  # what no batch changes


def _write_group(path: Path, columns: Mapping[str, np.ndarray], attrs: dict[str, Attribute]) -> None:
    """Write a new store beside its place and move it there, so that a store is there whole or not at all."""
    import zarr  # noqa: PLC0415  needed only for scores on disk

    draft = path.with_name(f".{path.name}.draft")
    rows = max(1, CHUNK_BYTES // columns["score"][:1].nbytes)
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
                dimension_names=_DIMENSIONS[name],
                compressors=compressors(),
            )
            if name != "score":  # NaN is what a new array is full of
                array[:] = values
        told = {"headnb_format": FORMAT, **attrs}
        fixed = {name: columns[name] for name in _FIXED}
        group.attrs.update({**told, CHECKSUM: checksum(told, fixed, layout(draft, _DIMENSIONS))})
        draft.rename(path)
    except OSError as error:
        raise HeadnbError(f"cannot write scores to {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read_table(path: Path, mode: Literal["r", "r+"]) -> ScoreTable:
    import zarr  # noqa: PLC0415

    try:
        group = zarr.open_group(path, mode=mode, zarr_format=3)  # format 2 knows pickled arrays
        attrs: dict[str, Any] = dict(group.attrs)
        version = attrs.pop("headnb_format")
    except Exception as error:
        raise HeadnbError(f"{path} is not a store of head scores") from error
    if version not in READ_FORMATS:
        read = " and ".join(map(str, READ_FORMATS))
        raise HeadnbError(f"{path} has format {version!r:.20}; this version of headnb reads formats {read}")
    if attrs.get("fitted"):
        raise HeadnbError(f"{path} is not a store of head scores: it is one of a fit")
    with damage_named(path):
        columns: dict[str, Any] = {name: group[name] for name in _DIMENSIONS}
        _refuse_other_shapes(path, columns)
        fixed = {name: plain_values(columns[name][:]) for name in _FIXED}
        expected = attrs.pop(CHECKSUM, None)
        if version > 1 and expected != checksum({"headnb_format": version, **attrs}, fixed, layout(path, _DIMENSIONS)):
            raise HeadnbError(f"{path} is damaged: it is not what was written")
        plan = BatchPlan(fixed["order"], np.asarray(columns["batch"][:]))
        samples = {name: fixed[name] for name in SAMPLE_VARIABLES}
        if not np.array_equal(np.sort(plan.order), np.arange(len(plan.order))):
            raise HeadnbError(f"{path} is damaged: its order of work names samples twice")
        table = ScoreTable(columns, attrs, fixed["sample"], samples, plan)
        rows = columns["score"].chunks[0]
        for chunk, start in enumerate(range(0, len(table.done), rows)):
            if not (path / _chunk_file("score", chunk, 3)).is_file():
                table.done[start : start + rows] = False  # lost: these are scored again
    return table


def _refuse_other_shapes(path: Path, columns: Mapping[str, Any]) -> None:
    """A small file must not say that it holds a large array."""
    samples, layers, heads = columns["score"].shape
    for name, column in columns.items():
        chunk_bytes = int(np.prod(column.chunks, dtype=float)) * column.dtype.itemsize
        shape = (samples, layers, heads)[: len(_DIMENSIONS[name])]
        if column.shape != shape or chunk_bytes > MOST_CHUNK_BYTES or column.chunks[1:] != shape[1:]:
            raise HeadnbError(
                f"{path} is damaged: {name} has the shape {column.shape!s:.60} in parts of {column.chunks!s:.60}"
            )
    # A random order of n samples does not compress to fewer bytes than n.
    stored = sum(file.stat().st_size for file in (path / "order").rglob("*") if file.is_file())
    if samples > stored or layers * heads > MOST_HEADS:
        raise HeadnbError(f"{path} is damaged: {samples} × {layers} × {heads} scores are too many for its files")


def _chunk_file(name: str, chunk: int, dims: int) -> Path:
    """Of a column that is cut along its first dimension only."""
    return Path(name, "c", str(chunk), *["0"] * (dims - 1))


def plain_values(values: Any) -> np.ndarray:
    """Numbers as they are, Zarr's text as numpy's."""
    array = np.asarray(values)
    return array if array.dtype.kind in "iufb" else np.array(array.tolist(), str)


def _table_of(path: Path, wanted: Mapping[str, Any], mode: Literal["r", "r+"]) -> ScoreTable:
    """The table at `path`, which goes on only with what began it. Versions and the time of creation may differ."""
    table = _read_table(path, mode)
    refuse_other(path, table.attrs, wanted)
    return table


def refuse_other(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise HeadnbError unless what made the scores at `path` is what is wanted now, but for versions and time."""
    different = [
        f"{name} {stored.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted((stored.keys() | wanted.keys()) - {"versions", "created"})
        if stored.get(name) != wanted.get(name)
    ]
    if different:
        raise HeadnbError(f"{path} holds scores with {'; '.join(different)}; choose another `out` or remove it")
