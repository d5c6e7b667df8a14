"""Lazy xarray variables that read a store on use, so that a large store stays on disk.

xarray's Zarr backend is not used: it reads missing chunk files and moved stores as NaN, and its error about a damaged
chunk does not name the file. The parts of `xarray.core.indexing` used here are documented for backends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

if TYPE_CHECKING:
    from collections.abc import Callable


class StoredRows(BackendArray):
    """Rows of a stored array, in any order.

    Args:
        read: maps ascending row indices (b,) of the store to the rows (b, ...).
        indices: (n,), the row index in the store of each row of this array.
        shape: of one row.
        dtype: of the array.
    """

    def __init__(
        self, read: Callable[[np.ndarray], np.ndarray], indices: np.ndarray, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._read = read
        self._indices = indices
        self.shape = (len(indices), *shape)
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[int | slice | np.ndarray, ...]) -> np.ndarray:
        """Index with one key per dimension; an integer drops its dimension."""
        first, *others = (np.atleast_1d(np.arange(size)[part]) for size, part in zip(self.shape, key, strict=True))
        indices, inverse = np.unique(self._indices[first], return_inverse=True)
        values = self._read(indices)[np.ix_(inverse, *others)]
        return values.squeeze(tuple(axis for axis, part in enumerate(key) if isinstance(part, (int, np.integer))))


def lazy_variable(rows: StoredRows, dims: tuple[str, ...]) -> xr.Variable:
    """Variable that reads the rows at each use; xarray's `.load()` keeps them in memory."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(rows))
