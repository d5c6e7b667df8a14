"""Table of per-sample scores in processing order, in memory or on disk, and the labelled data set built from it.

On disk the table is a Zarr group. It holds the batch plan, so that an interrupted run resumes with the same batches.
Each sample has a `done` mark, which is set after its scores are written; unmarked rows are ignored. (NaN cannot be the
mark: layers without softmax heads are NaN.) One run writes at a time, under a lock of the operating system that ends
with the process. Reading needs no lock. `zarr_columns` verifies what is read.
"""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from headnb.engine.batching import BatchPlan
from headnb.errors import HeadnbError
from headnb.models.memory import check_memory
from headnb.stats.results import as_result
from headnb.stats.scoring_revision import check_same_settings
from headnb.storage.checksums import report_corruption
from headnb.storage.lazy_arrays import StoredRows, lazy_variable
from headnb.storage.locks import local_path, write_lock
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

WRITE_INTERVAL = 1.0  # seconds: faster batches are written together, so that an accelerator does not wait for the disk
LAZY_FROM_BYTES = 2**26  # bytes: a data set loads more scores than this only when they are used


class ScoreTable:
    """Scores (n, L, H), losses (n,) and done marks (n,), one row per sample in processing order.

    Attributes:
        attrs: model, task, method and settings of the scores, as flat scalars.
        ids: sample ids, in input order.
        samples: variables known before scoring, (n,) each, in input order: `answer_tokens`, `batch_answer_tokens`
            (of the sample's batch in the paper's script) and `fingerprint`.
        plan: processing order and batches.
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
        self._identity = identity  # of the store, as `read_columns` returned it
        self._columns = columns  # numpy or Zarr arrays, which share the interface used here
        self.attrs = attrs
        self.ids = ids
        self.samples = samples
        self.plan = plan
        self._unwritten: list[ScoreRows] = []
        self._written = -np.inf  # time of the last write, by the monotonic clock
        self._writing = threading.Lock()
        # A mark without a loss means that a chunk was lost: its samples are scored again.
        self.done = np.asarray(columns["done"][:]).astype(bool) & np.isfinite(np.asarray(columns["loss"][:]))
        self._stored = self.done.copy()

    @property
    def on_disk(self) -> bool:
        """Whether the table is a store on disk."""
        return not isinstance(self._columns["score"], np.ndarray)

    def write(self, indices: np.ndarray, scores: np.ndarray, losses: np.ndarray) -> None:
        """Store the scores (b, L, H) and losses (b,) of one batch.

        A batch that ends less than `WRITE_INTERVAL` after the last write is buffered until the next batch, read or
        `flush`.

        Args:
            indices: (b,), consecutive row indices in processing order.
            scores: (b, L, H).
            losses: (b,).

        Raises:
            HeadnbError: as for `flush`.
        """
        self._unwritten.append(ScoreRows(int(indices[0]), scores, losses))
        self.done[indices] = True
        if time.monotonic() - self._written >= WRITE_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows.

        Raises:
            HeadnbError: the disk is full or not writable, or the store or a chunk of it is damaged or missing. Batches
                written before stay.
        """
        with self._writing, self._write_errors():  # a live display may read from another thread
            if not (buffered := self._unwritten.copy()):
                return
            for part in merge_adjacent(buffered):
                self._check_chunk_files(part)
                rows = slice(part.start, part.stop)
                self._columns["score"][rows] = part.scores
                self._columns["loss"][rows] = part.losses
                self._columns["done"][rows] = np.ones(len(part.losses), np.uint8)  # last: marks the rows as complete
                self._stored[rows] = True
            del self._unwritten[: len(buffered)]
            self._written = time.monotonic()

    def _check_chunk_files(self, part: ScoreRows) -> None:
        """Raise HeadnbError if a chunk file is missing: writing a new one would leave its marked rows NaN."""
        if not self.on_disk or not len(part.losses):
            return
        check_same_store(self._path, self._identity)
        column = self._columns["score"]
        rows = column.chunks[0]
        for chunk in range(part.start // rows, (part.stop - 1) // rows + 1):
            file = self._path / chunk_file("score", chunk, column.ndim)
            if self._stored[chunk * rows : (chunk + 1) * rows].any() and not file.is_file():
                raise HeadnbError(
                    f"the file {file} was removed during the run; run the same call again to score its samples"
                )

    def verify(self) -> None:
        """Check that the rows of this run are still on disk.

        Raises:
            HeadnbError: files of scores are missing or damaged. Their samples are marked as not scored, in memory and
                on disk, so that the same call scores them again.
        """
        self.flush()
        if not self.on_disk or self._written == -np.inf:
            return
        check_same_store(self._path, self._identity)
        lost = self.done & ~read_table(self._path, mode="r").done | self.without_scores()
        if not lost.any():
            return
        self.mark_unscored(lost)
        with self._write_errors():
            self._columns["done"][:] = self.done.astype(np.uint8)
        raise HeadnbError(
            f"the scores of {int(lost.sum())} of {len(lost)} samples in {self._path} were lost during the run: its "
            "files were removed or changed; run the same call again to score them"
        )

    def mark_unscored(self, lost: np.ndarray) -> None:
        """Mark the rows where `lost` (n,) is true as not scored."""
        self.done[lost] = self._stored[lost] = False

    @property
    def is_small(self) -> bool:
        """Whether a data set of the scores is loaded into memory at once."""
        return not self.on_disk or self._columns["score"].nbytes <= LAZY_FROM_BYTES

    def without_scores(self) -> np.ndarray:
        """(n,): whether a row is marked as done and has no scores on disk.

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
        """Path of the store."""
        return Path(self._columns["score"].store.root)

    def replan(self, plan: BatchPlan) -> None:
        """Replace the batches of the pending rows, in the same processing order; raise HeadnbError as `write` does."""
        with self._write_errors():
            self._columns["batch"][:] = plan.batch
        self.plan = plan

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # a full disk, or a damaged chunk that must be completed
            reason = getattr(error, "strerror", None) or error
            raise HeadnbError(f"cannot write more scores ({reason}); complete batches stay stored") from error

    def scored_prefix(self) -> int:
        """Number of scored samples before the first unscored one in processing order."""
        return len(self.done) if self.done.all() else int(np.argmin(self.done))

    def score_rows(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Iterate over the scores (b, L, H) of the rows from `start` to `stop`, one chunk size at a time."""
        if start < stop:
            self.flush()
        rows = chunk_rows(self._columns["score"])
        for first in range(start, stop, rows):
            indices = np.arange(first, min(first + rows, stop))
            yield read_rows(self._columns["score"], "score", indices, identity=self._identity)

    def scores(self, *, whole_blocks_of: int | None = None, done: np.ndarray | None = None) -> xr.Dataset:
        """Data set of the samples scored so far, in input order.

        Args:
            done: (n,), which of them; None: all.
            whole_blocks_of: size of a block in samples. Incomplete blocks are left out, unless no block is complete:
                a block is sorted by length, so a part of it is not a random sample of the task.
        """
        self.flush()
        done = self.done.copy() if done is None else done
        if whole_blocks_of:
            starts = np.arange(0, len(done), whole_blocks_of)
            blocks = np.repeat(np.logical_and.reduceat(done, starts), np.diff([*starts, len(done)]))
            done = blocks if blocks.any() else done
        indices = np.flatnonzero(done)
        by_input = np.argsort(self.plan.order[indices])
        return self._dataset(indices[by_input])

    def iterate_parts(self, rows: int) -> Iterator[xr.Dataset]:
        """Iterate over the samples scored so far, at most `rows` at a time, in processing order.

        The coordinate `position` (sample) is each sample's position in the input.
        """
        self.flush()
        for start in range(0, len(self.done), rows):
            indices = start + np.flatnonzero(self.done[start : start + rows])
            if len(indices):
                yield self._dataset(indices).assign_coords(position=("sample", self.plan.order[indices]))

    def _lazy_column(self, name: str, indices: np.ndarray) -> xr.Variable:
        """Rows of a column, in any order, read on use."""
        column = self._columns[name]
        read = partial(read_rows, column, name, identity=self._identity)
        rows = StoredRows(read, indices, column.shape[1:], column.dtype)
        return lazy_variable(rows, ("sample", *DIMENSIONS[name][1:]))

    def _dataset(self, indices: np.ndarray) -> xr.Dataset:
        """Labelled data set of these rows; more than `LAZY_FROM_BYTES` of scores are read on use."""
        positions = self.plan.order[indices]
        score = self._lazy_column("score", indices)
        if is_read := not self.on_disk or score.nbytes <= LAZY_FROM_BYTES:
            score.load()
        dataset = xr.Dataset(
            {
                "score": score,
                "loss": self._lazy_column("loss", indices).load(),
                **{name: ("sample", np.asarray(self.samples[name])[positions]) for name in SAMPLE_VARIABLES},
            },
            coords={
                "sample": self.ids[positions],
                "layer": np.arange(score.shape[1]),
                "head": np.arange(score.shape[2]),
            },
            attrs=self.attrs | {"complete": int(self.done.all())},
        )
        return as_result(dataset, "" if is_read else hashlib.blake2b(self._identity, digest_size=16).hexdigest())


@contextmanager
def open_table(
    path: str | Path | None,
    attrs: dict[str, Attribute],
    ids: tuple[int | str, ...],
    samples: Mapping[str, np.ndarray],
    plan: BatchPlan,
    shape: tuple[int, int],
) -> Iterator[ScoreTable]:
    """Open a table for scores of `shape` (layers, heads): in memory, or a new or existing store at `path`.

    Inside the context no other run can write to `path`.

    Raises:
        HeadnbError: the scores do not fit into memory; another run writes to `path` now; `path` is not writable, is
            not a store of scores, or has scores of another model, task, method or setting, which the message names.
    """
    if path is None:
        needed = 2 * len(ids) * shape[0] * shape[1] * 4  # bytes: the table and the data set built from it
        check_memory(needed, f"scores of {len(ids)} samples", "out= writes them to disk during the run")
    columns: dict[str, np.ndarray] = {
        "score": np.broadcast_to(np.float32(np.nan), (len(ids), *shape)),  # a view of one number: takes no memory
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
        if table.done.all():  # nothing to write: the disk may be read-only
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


def read_table(path: Path, mode: Literal["r", "r+"]) -> ScoreTable:
    """Open the table at `path`; rows whose files are missing count as not scored.

    Raises:
        HeadnbError: it is not a store of scores that this version reads, or is damaged.
    """
    arrays, attrs, fixed, lost, identity = read_columns(path, mode)
    samples = {name: fixed[name] for name in SAMPLE_VARIABLES}
    with report_corruption(path):
        plan = BatchPlan(fixed["order"], np.asarray(arrays["batch"][:]))
        table = ScoreTable(arrays, attrs, fixed["sample"], samples, plan, identity)
    table.mark_unscored(lost)  # a later run scores them again
    return table


def _open_matching_table(path: Path, wanted: Mapping[str, Any], mode: Literal["r", "r+"]) -> ScoreTable:
    """Open the table at `path` if it was started with the settings `wanted` (see `check_same_settings`)."""
    table = read_table(path, mode)
    check_same_settings(path, table.attrs, wanted)
    if table.is_small:  # its scores are read anyway
        table.mark_unscored(table.without_scores())
    return table
