"""Saving of scores, comparisons and head roles to one file, at a local path or a URL."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headnb.atomic_files import atomic_path
from headnb.display.grid import HeadGrid
from headnb.errors import HeadnbError
from headnb.storage.files import write_dataset
from headnb.storage.frames import write_parquet
from headnb.storage.locks import local_path
from headnb.storage.remote import is_url, upload

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr


def save_result(result: xr.Dataset, path: str | Path) -> str | Path:
    """Save a result in the format that the suffix of the name says, and return the path or URL.

    Raises:
        HeadnbError: an unknown suffix, or the file cannot be written.
    """
    return _at_path_or_url(path, lambda file: _save(result, file))


def save_dataset(dataset: xr.Dataset, path: str | Path) -> str | Path:
    """Save any data set as netCDF, and return the path or URL.

    Raises:
        HeadnbError: the name does not end in .nc, or the file cannot be written.
    """
    if not str(path).endswith(".nc"):
        raise HeadnbError(f"this is saved as netCDF: the name must end in .nc, not {PurePosixPath(str(path)).name!r}")
    return _at_path_or_url(path, lambda file: write_dataset(file, dataset))


def _at_path_or_url(path: str | Path, write: Callable[[Path], None]) -> str | Path:
    """Write a file at a local path; for a URL, in a temporary folder that is uploaded from."""
    if not is_url(path):
        write(local := local_path(path))
        return local
    with tempfile.TemporaryDirectory(prefix="headnb-") as folder:
        write(file := Path(folder) / PurePosixPath(str(path)).name)
        upload(file, str(path))
    return path


def _save(result: xr.Dataset, path: Path) -> None:
    if path.suffix == ".zarr":
        raise HeadnbError(
            "a Zarr store is written while scores are computed (score_heads(..., out=path)); save to .nc or .parquet"
        )
    if path.suffix == ".nc":
        write_dataset(path, result)
    elif path.suffix == ".parquet":
        with atomic_path(path, make_folder=True) as draft:
            write_parquet(draft, result)
    elif path.name.endswith((".heads.json", ".csv", ".html", ".svg", ".png", ".pdf")):
        HeadGrid.of(result).save(path)
    else:
        raise HeadnbError(
            f"cannot tell the file format from the name {path.name!r}; use .nc or .parquet (scores), .heads.json (the "
            "pattern), or .csv, .png, .pdf, .svg or .html (the grid)"
        )
