"""Score tables of one task by several methods, in the same processing order, written together.

Each method has a table, or a store, of its own: the same as if it had been scored alone. A sample counts as scored if
all tables have it.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from headnb.errors import HeadnbError
from headnb.storage.files import safe_file_name
from headnb.storage.locks import local_path
from headnb.storage.score_store import open_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from headnb.engine.batching import BatchPlan
    from headnb.storage.score_store import ScoreTable
    from headnb.storage.zarr_columns import Attribute


class MethodTables:
    """Tables by method. `unfinished` are the methods whose tables were not complete when they were opened."""

    def __init__(self, by_method: Mapping[str, ScoreTable]) -> None:
        self.by_method = by_method
        self.unfinished = [method for method, table in by_method.items() if not table.done.all()]

    @property
    def plan(self) -> BatchPlan:
        """Processing order and batches."""
        return self._any.plan

    @property
    def on_disk(self) -> bool:
        """Whether the tables are stores on disk."""
        return self._any.on_disk

    @property
    def done(self) -> np.ndarray:
        """(n,): whether all methods have scored a sample, in processing order."""
        return np.asarray(np.logical_and.reduce([table.done for table in self.by_method.values()]))

    def pending(self) -> list[np.ndarray]:
        """Batches that are not scored yet, as row indices in processing order."""
        done = self.done
        return [indices for indices in self.plan.batches() if not done[indices].all()]

    def write(self, indices: np.ndarray, scores: Mapping[str, np.ndarray], losses: np.ndarray) -> None:
        """Store one batch, as `ScoreTable.write`; `scores` of the unfinished methods."""
        for method in self.unfinished:
            self.by_method[method].write(indices, scores[method], losses)

    def replan(self, plan: BatchPlan) -> None:
        """Replace the batches of the pending rows, as `ScoreTable.replan`."""
        for method in self.unfinished:
            self.by_method[method].replan(plan)

    def verify(self) -> None:
        """Check that the rows of this run are still on disk, as `ScoreTable.verify`."""
        for table in self.by_method.values():
            table.verify()

    def scores(self, *, whole_blocks_of: int | None = None) -> dict[str, xr.Dataset]:
        """The data set of each method, of the samples that all have scored; see `ScoreTable.scores`."""
        done = self.done
        return {
            method: table.scores(whole_blocks_of=whole_blocks_of, done=done).assign_attrs(complete=int(done.all()))
            for method, table in self.by_method.items()
        }

    @property
    def _any(self) -> ScoreTable:
        """A table to read what all have in common; an unfinished one, whose batches may be replaced."""
        return self.by_method[next(iter(self.unfinished or self.by_method))]


def method_stores(out: str | Path | None, methods: Sequence[str]) -> dict[str, Path | None]:
    """The store of each of several methods in the folder `out`.

    Raises:
        HeadnbError: `out` is itself a store.
    """
    if out is None:
        return dict.fromkeys(methods)
    folder = folder_of_stores(out, "method")
    return {method: folder / f"{safe_file_name(method)}.zarr" for method in methods}


def folder_of_stores(out: str | Path, kind: str) -> Path:
    """The folder for one store of each method or task. Raises HeadnbError if it is itself a store."""
    folder = local_path(out)
    if folder.suffix == ".zarr" or (folder / "zarr.json").exists():
        raise HeadnbError(
            f"with several {kind}s, out is a folder with one store for each {kind}, not itself a store: {folder}"
        )
    return folder


@contextmanager
def open_tables(
    paths: Mapping[str, str | Path | None],
    attrs: Mapping[str, dict[str, Attribute]],
    ids: tuple[int | str, ...],
    samples: Mapping[str, np.ndarray],
    plan: BatchPlan,
    shape: tuple[int, int],
) -> Iterator[MethodTables]:
    """Open the table of each method, as `open_table`; new stores take the batches of those that exist.

    Raises:
        HeadnbError: as for `open_table`; or two stores were scored in different orders.
    """
    tables: dict[str, ScoreTable] = {}
    with ExitStack() as stack:
        for method in sorted(paths, key=lambda method: not _exists(paths[method])):
            tables[method] = stack.enter_context(open_table(paths[method], attrs[method], ids, samples, plan, shape))
            if not np.array_equal(tables[method].plan.order, plan.order) and len(tables) > 1:
                raise HeadnbError(
                    f"{paths[method]} was scored in a different order than the other stores in this folder (different "
                    "batch_tokens or packed); score it alone, or choose another folder"
                )
            plan = tables[method].plan
        yield MethodTables({method: tables[method] for method in paths})


def _exists(path: str | Path | None) -> bool:
    return path is not None and local_path(path).exists()
