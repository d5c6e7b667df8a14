"""What a netCDF file would take in memory, asked of the file before anything of it is read.

Compression makes gigabytes of a few kilobytes, and a text that is stored once can stand in a thousand places.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 2**28  # that any file may become
MOST_GROWTH = 50  # times its size, of a larger file
_ADVICE = "if you trust it, write it again without compression (xarray.open_dataset(path).to_netcdf(other))"


def check_sizes(path: Path) -> None:
    """Hold what a file says of its variables against its size.

    Raises:
        HeadnbError: it would become more than 256 MB and more than 50 times its size, or has types that no data set of
            headnb has.
    """
    import netCDF4  # noqa: PLC0415  slow to import

    size = path.stat().st_size
    most = max(MAX_BYTES, MOST_GROWTH * size)
    needed = 0
    with netCDF4.Dataset(path) as file:
        for name, variable in file.variables.items():
            if variable.dtype is not str and not isinstance(variable.dtype, np.dtype):
                raise HeadnbError(f"{path} is not read: its variable {name!r:.60} has a type of its own")
            needed += _bytes(variable)
            if needed <= most and variable.dtype is str:
                needed += _text_bytes(variable, max(1, most // size), most)
            if needed > most:
                raise HeadnbError(
                    f"{path} is not read: its {size} bytes would become more than {most // 2**20} MB; {_ADVICE}"
                )


def _bytes(variable: Any) -> int:
    """Of all numbers of a variable; a part that is compressed as a whole is made as a whole."""
    parts = variable.chunking()
    item: int = 8 if variable.dtype is str else variable.dtype.itemsize
    return item * max(math.prod(map(int, variable.shape)), math.prod(parts) if isinstance(parts, list) else 1)


def _text_bytes(variable: Any, rows: int, most: int) -> int:
    """Of all texts, so few at a time that they fit even if each is as long as the file; it stops above `most`."""
    variable.set_auto_maskandscale(False)
    found = 0
    for index in np.ndindex(*variable.shape[:-1]) if variable.shape else ():
        for start in range(0, variable.shape[-1], rows):
            found += sum(map(len, variable[(*index, slice(start, start + rows))]))
            if found > most:
                return found
    return found
