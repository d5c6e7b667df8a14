"""Arrays of xarray that read a store where they are used, so that a large store stays on disk.

xarray's own Zarr backend is no substitute: it reads a chunk whose file is gone, and a store that was moved, as NaN, and
its error about a damaged chunk names no file. What is used here of `xarray.core.indexing` is documented for backends.
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
    """Rows of a stored array in an order of their own.

    Args:
        read: rows (b, ...) of these places in the store, which ascend.
        places: (n,): where each row lies.
        shape: of one row.
        dtype: of the array.
    """

    def __init__(
        self, read: Callable[[np.ndarray], np.ndarray], places: np.ndarray, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._read = read
        self._places = places
        self.shape = (len(places), *shape)
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[int | slice | np.ndarray, ...]) -> np.ndarray:
        """One key for each dimension; an integer drops its dimension."""
        first, *others = (np.atleast_1d(np.arange(size)[part]) for size, part in zip(self.shape, key, strict=True))
        places, back = np.unique(self._places[first], return_inverse=True)
        found = self._read(places)[np.ix_(back, *others)]
        return found.squeeze(tuple(axis for axis, part in enumerate(key) if isinstance(part, (int, np.integer))))


def lazy_variable(rows: StoredRows, dims: tuple[str, ...]) -> xr.Variable:
    """A variable that reads these rows at each use; `.load()` of xarray keeps them."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(rows))
