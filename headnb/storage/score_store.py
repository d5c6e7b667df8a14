"""Scores as they are made: a table in the order of work, in memory or on disk, and the labelled data set made of it.

On disk the table is a Zarr group. It holds the batch plan, so that a run that was stopped goes on with the very same
batches, and a mark for each sample that is set after its scores are written. What is on disk is either complete and
marked or it does not count. (NaN is no mark: layers without softmax heads are NaN.) One run writes at a time: it holds
a lock of the operating system, which goes with its process. Reading needs no lock. What is read is checked: see
`score_columns`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.engine.batching import BatchPlan
from headnb.errors import HeadnbError, one_line
from headnb.models.memory import check_memory
from headnb.stats.results import as_result, restore_identity
from headnb.stats.scoring_revision import check_same_settings, warn_of_revision
from headnb.storage.checksums import report_corruption
from headnb.storage.lazy_arrays import StoredRows, lazy_variable
from headnb.storage.locks import local_path, write_lock
from headnb.storage.netcdf_sizes import check_sizes
from headnb.storage.row_buffer import ScoreRows, merge_adjacent
from headnb.storage.zarr_columns import (
    DIMENSIONS,
    SAMPLE_VARIABLES,
    Attribute,
    check_same_store,
    chunk_file,
    chunk_rows,
    read_columns,
    read_rows,
    without_scores,
    write_columns,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headnb.stats.labelled import Scores

WRITE_INTERVAL = 1.0  # seconds: faster batches are written together, so that an accelerator does not wait for the disk
LAZY_FROM_BYTES = 2**26  # bytes of scores on disk that a data set does not read before they are used


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
        identity: bytes = b"",
    ) -> None:
        self._identity = identity  # of the store, as `read_columns` found it
        self._columns = columns  # arrays of numpy or zarr, which are written and read in the same way
        self.attrs = attrs
        self.ids = ids
        self.samples = samples
        self.plan = plan
        self._unwritten: list[ScoreRows] = []
        self._written = -np.inf  # when, of the clock that only goes on
        self._writing = threading.Lock()
        # A mark without a loss is a chunk that got lost: it is scored again.
        self.done = np.asarray(columns["done"][:]).astype(bool) & np.isfinite(np.asarray(columns["loss"][:]))
        self._stored = self.done.copy()

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
        self._unwritten.append(ScoreRows(int(places[0]), scores, losses))
        self.done[places] = True
        if time.monotonic() - self._written >= WRITE_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet.

        Raises:
            HeadnbError: the disk is full or cannot be written, the chunk that is written to is damaged or gone, or so
                is the store; batches that were complete before stay.
        """
        with self._writing, self._write_errors():  # who draws scores that come may do so in a thread of its own
            waiting = self._unwritten.copy()
            for part in merge_adjacent(waiting):
                self._check_chunk_files(part)
                rows = slice(part.start, part.stop)
                self._columns["score"][rows] = part.scores
                self._columns["loss"][rows] = part.losses
                self._columns["done"][rows] = np.ones(len(part.losses), np.uint8)  # last: from here on it counts
                self._stored[rows] = True
            del self._unwritten[: len(waiting)]
            self._written = time.monotonic()

    def _check_chunk_files(self, part: ScoreRows) -> None:
        """A chunk that got lost must not be written anew: the rows that it had would be NaN, and marked."""
        if not self.on_disk or not len(part.losses):
            return
        check_same_store(self._path, self._identity)
        column = self._columns["score"]
        rows = column.chunks[0]
        for chunk in range(part.start // rows, (part.stop - 1) // rows + 1):
            file = self._path / chunk_file("score", chunk, column.ndim)
            if self._stored[chunk * rows : (chunk + 1) * rows].any() and not file.is_file():
                raise HeadnbError(f"the file {file} got lost during the run; the same call scores its samples again")

    def verify(self) -> None:
        """Hold what this run wrote against what is on disk now.

        Raises:
            HeadnbError: files of scores that were written are gone or damaged. Their samples count as not scored, here
                and on disk, so that the same call scores them again.
        """
        self.flush()
        if not self.on_disk or self._written == -np.inf:
            return
        check_same_store(self._path, self._identity)
        lost = self.done & ~_read_table(self._path, mode="r").done | self.without_scores()
        if not lost.any():
            return
        self.mark_unscored(lost)
        with self._write_errors():
            self._columns["done"][:] = self.done.astype(np.uint8)
        raise HeadnbError(
            f"the scores of {int(lost.sum())} of {len(lost)} samples got lost in {self._path} during the run: its "
            "files were removed or changed; the same call scores them again"
        )

    def mark_unscored(self, lost: np.ndarray) -> None:
        """Count the samples at these places, a mask (n,), as not scored."""
        self.done[lost] = self._stored[lost] = False

    @property
    def is_small(self) -> bool:
        """Whether a data set of the scores holds them in memory."""
        return not self.on_disk or self._columns["score"].nbytes <= LAZY_FROM_BYTES

    def without_scores(self) -> np.ndarray:
        """(n,): whether a sample is marked as done and has no scores on disk.

        Raises:
            HeadnbError: a chunk is damaged.
        """
        column = self._columns["score"]
        lost = np.zeros(len(self.done), bool)
        for start in range(0, len(lost), column.chunks[0]):
            rows = slice(start, start + column.chunks[0])
            with report_corruption(self._path / chunk_file("score", start // column.chunks[0], column.ndim)):
                lost[rows] = self.done[rows] & without_scores(np.asarray(column[rows]))
        return lost

    @property
    def _path(self) -> Path:
        """Of the store."""
        return Path(self._columns["score"].store.root)

    def replan(self, plan: BatchPlan) -> None:
        """Other batches for what is left, in the same order of work; raises HeadnbError as `write` does."""
        with self._write_errors():
            self._columns["batch"][:] = plan.batch
        self.plan = plan

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # a full disk; a chunk that cannot be read to be completed
            reason = getattr(error, "strerror", None) or error
            raise HeadnbError(f"scores cannot be written any more ({reason}); what was complete is kept") from error

    def pending(self) -> list[np.ndarray]:
        """The batches that are not scored yet, as places in the order of work."""
        return [places for places in self.plan.batches() if not self.done[places].all()]

    def scored_prefix(self) -> int:
        """How many samples are scored in the order of work before the first that is not."""
        return len(self.done) if self.done.all() else int(np.argmin(self.done))

    def score_rows(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Scores (b, L, H) of the places from `start` to `stop`, a few at a time."""
        if start < stop:
            self.flush()
        rows = chunk_rows(self._columns["score"])
        for first in range(start, stop, rows):
            places = np.arange(first, min(first + rows, stop))
            yield read_rows(self._columns["score"], "score", places, identity=self._identity)

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

    def iterate_parts(self, rows: int) -> Iterator[xr.Dataset]:
        """What is scored so far, at most `rows` samples at a time, in the order of work, as it lies on disk.

        The coordinate `position` (sample) is the place of each sample in the input.
        """
        self.flush()
        for start in range(0, len(self.done), rows):
            places = start + np.flatnonzero(self.done[start : start + rows])
            if len(places):
                yield self._dataset(places).assign_coords(position=("sample", self.plan.order[places]))

    def _lazy_column(self, name: str, places: np.ndarray) -> xr.Variable:
        """A column at these places in any order, read when it is used."""
        column = self._columns[name]
        read = partial(read_rows, column, name, identity=self._identity)
        rows = StoredRows(read, places, column.shape[1:], column.dtype)
        return lazy_variable(rows, ("sample", *DIMENSIONS[name][1:]))

    def _dataset(self, places: np.ndarray) -> xr.Dataset:
        """What is known of these places in the order of work, labelled; many scores on disk stay there until used."""
        positions = self.plan.order[places]
        score = self._lazy_column("score", places)
        if is_read := not self.on_disk or score.nbytes <= LAZY_FROM_BYTES:
            score.load()
        found = xr.Dataset(
            {
                "score": score,
                "loss": self._lazy_column("loss", places).load(),
                **{name: ("sample", np.asarray(self.samples[name])[positions]) for name in SAMPLE_VARIABLES},
            },
            coords={
                "sample": self.ids[positions],
                "layer": np.arange(score.shape[1]),
                "head": np.arange(score.shape[2]),
            },
            attrs=self.attrs | {"complete": int(self.done.all())},
        )
        return as_result(found, "" if is_read else hashlib.blake2b(self._identity, digest_size=16).hexdigest())


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
        table = _open_matching_table(path, attrs, mode="r")
        if table.done.all():  # nothing to write: it may lie on a read-only disk
            yield table
            return
    with write_lock(path):
        if not path.exists():
            write_columns(path, columns, attrs)
        table = _open_matching_table(path, attrs, mode="r+")
        try:
            yield table
        finally:
            table.flush()


@check_arguments
def open_scores(path: str | Path) -> Scores:
    """Scores that `score_heads(..., out=path)` wrote (`.attrs["complete"]` says if all), or a netCDF file.

    Scores of another scoring revision open with a warning (see `headnb.stats.scoring_revision`).

    Raises:
        HeadnbError: there is nothing at `path`, or it is not a store of scores that this version reads.
    """
    from headnb.storage.fit_store import read_fit  # noqa: PLC0415  which is built on this module

    given, path = path, local_path(path)
    if not path.exists():
        raise HeadnbError(f"there are no scores at {given}")
    if path.is_dir():
        fitted = read_fit(path)
        scores = _read_table(path, mode="r").scores() if fitted is None else fitted
        warn_of_revision(path, scores.attrs)
        return cast("Scores", scores)
    try:
        check_sizes(path)
        with xr.open_dataset(path, engine="netcdf4") as stored:
            scores = stored.load()
    except HeadnbError:
        raise
    except Exception as error:  # xarray lets through whatever its decoders raise
        raise HeadnbError(f"{path} is not a netCDF file: {one_line(error)}") from error
    if not {"score", "loss"} <= set(scores.data_vars):
        raise HeadnbError(f"{path} holds no head scores")
    warn_of_revision(path, scores.attrs)
    return cast("Scores", restore_identity(scores))


def read_parts(source: xr.Dataset | str | Path, rows: int) -> Iterator[xr.Dataset]:
    """Scores of samples, or a store of them, at most `rows` samples at a time: a large store is never in memory whole.

    The coordinate `position` (sample) is the place of each sample in the input.

    Raises:
        HeadnbError: as `open_scores` does.
    """
    if isinstance(source, (str, Path)) and local_path(source).is_dir():
        yield from _read_table(local_path(source), mode="r").iterate_parts(rows)
        return
    scores = source if isinstance(source, xr.Dataset) else open_scores(source)
    for start in range(0, scores.sizes["sample"], rows):
        part = scores.isel(sample=slice(start, start + rows)).load()
        yield part.assign_coords(position=("sample", start + np.arange(part.sizes["sample"])))


def _read_table(path: Path, mode: Literal["r", "r+"]) -> ScoreTable:
    arrays, attrs, fixed, lost, identity = read_columns(path, mode)
    samples = {name: fixed[name] for name in SAMPLE_VARIABLES}
    with report_corruption(path):
        plan = BatchPlan(fixed["order"], np.asarray(arrays["batch"][:]))
        table = ScoreTable(arrays, attrs, fixed["sample"], samples, plan, identity)
    table.mark_unscored(lost)  # these are scored again
    return table


def _open_matching_table(path: Path, wanted: Mapping[str, Any], mode: Literal["r", "r+"]) -> ScoreTable:
    """The table at `path`, which goes on only with what began it, as `check_same_settings` says."""
    table = _read_table(path, mode)
    check_same_settings(path, table.attrs, wanted)
    if table.is_small:  # it is read anyway
        table.mark_unscored(table.without_scores())
    return table
