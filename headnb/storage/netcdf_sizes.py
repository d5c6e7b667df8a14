"""Memory limit of netCDF files, checked from their metadata before values are read.

A compressed file of a few kilobytes can expand to gigabytes, and a text stored once can be referenced thousands of
times.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 2**28  # every file may take this much memory
MOST_GROWTH = 50  # a larger file may take this many times its size
_ADVICE = "if you trust it, write it again without compression (xarray.open_dataset(path).to_netcdf(other))"


def check_sizes(path: Path) -> None:
    """Compare the memory that a file's variables need with the size of the file.

    Raises:
        HeadnbError: the variables need more than 256 MB and more than 50 times the file size, or have a type that
            headnb does not write.
    """
    import netCDF4  # noqa: PLC0415  slow to import

    size = path.stat().st_size
    most = max(MAX_BYTES, MOST_GROWTH * size)
    needed = 0
    with netCDF4.Dataset(path) as file:
        for name, variable in file.variables.items():
            if variable.dtype is not str and not isinstance(variable.dtype, np.dtype):
                raise HeadnbError(f"{path} is not read: its variable {name!r:.60} has a user-defined type")
            needed += _bytes(variable)
            if needed <= most and variable.dtype is str:
                needed += _text_bytes(variable, max(1, most // size), most)
            if needed > most:
                raise HeadnbError(
                    f"{path} is not read: its {size} bytes would take more than {most // 2**20} MB of memory; {_ADVICE}"
                )


def _bytes(variable: Any) -> int:
    """Memory of a variable in bytes, at least that of one chunk: a chunk is decompressed whole."""
    chunks = variable.chunking()
    item: int = 8 if variable.dtype is str else variable.dtype.itemsize
    return item * max(math.prod(map(int, variable.shape)), math.prod(chunks) if isinstance(chunks, list) else 1)


def _text_bytes(variable: Any, rows: int, most: int) -> int:
    """Total length of a variable's texts, counted until it exceeds `most`.

    Reads `rows` texts at a time, few enough to fit even if each is as long as the file.
    """
    variable.set_auto_maskandscale(False)
    total = 0
    for index in np.ndindex(*variable.shape[:-1]) if variable.shape else ():
        for start in range(0, variable.shape[-1], rows):
            total += sum(map(len, variable[(*index, slice(start, start + rows))]))
            if total > most:
                return total
    return total
