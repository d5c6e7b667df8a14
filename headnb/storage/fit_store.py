"""Zarr store of the values that a method fits to a whole task, with the state needed to resume the fit.

`save` writes a complete new group next to the store and renames it, so that the store is always complete. It renames
the previous group to a backup first; if the process ends between the two renames, `load` restores the backup.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import xarray as xr

from headnb.errors import HeadnbError
from headnb.stats.results import MADE_BY, RESULT_ID, restore_identity
from headnb.stats.scoring_revision import FIRST_REVISION, REVISION, check_same_settings
from headnb.storage.checksums import CHECKSUM, array_metadata, checksum, compressors, report_corruption
from headnb.storage.locks import local_path, write_lock
from headnb.storage.zarr_columns import FORMAT, READ_FORMATS, plain_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from headnb.storage.zarr_columns import Attribute

MAX_BYTES = 2**28  # of all arrays of an untrusted store
_PROGRESS = ("complete", "steps_done", "steps_total", RESULT_ID, MADE_BY)  # attributes that each `save` changes
_STATE = "state_"  # prefix of the arrays that only the fit itself uses


class FitStore:
    """Store of one fit; without a path nothing is stored."""

    def __init__(self, path: Path | None, attrs: Mapping[str, Attribute]) -> None:
        self.path = path
        self._attrs = attrs

    def load(self) -> xr.Dataset | None:
        """Stored values with the state arrays; None if nothing is stored.

        Raises:
            HeadnbError: the store has another model, task, method or setting, or is not a store of a fit.
        """
        if self.path is None:
            return None
        _restore_backup(self.path)
        if not self.path.exists():
            return None
        fitted = _read(self.path)
        if fitted is None:
            raise HeadnbError(f"{self.path} is not a store of a fit")
        stored = {name: value for name, value in fitted.attrs.items() if name not in _PROGRESS}
        check_same_settings(self.path, stored, self._attrs)
        return fitted

    def save(self, fitted: xr.Dataset, state: Mapping[str, np.ndarray]) -> None:
        """Store the current values and the state arrays, in place of earlier ones.

        Raises:
            HeadnbError: the disk is full or not writable; the earlier values stay stored.
        """
        if self.path is None:
            return
        draft = self.path.with_name(f".{self.path.name}.draft")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            _write(draft, fitted, state)
            if self.path.exists():
                self.path.rename(_backup_path(self.path))
            draft.rename(self.path)
        except OSError as error:
            raise HeadnbError(f"cannot write scores to {self.path}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            if self.path.exists():
                shutil.rmtree(_backup_path(self.path), ignore_errors=True)


@contextmanager
def open_fit(path: str | Path | None, attrs: Mapping[str, Attribute]) -> Iterator[FitStore]:
    """Open the store of the fit with the settings `attrs`, locked against other writers inside the context.

    Raises:
        HeadnbError: another run writes to `path` now, or `path` is not writable.
    """
    if path is None:
        yield FitStore(None, attrs)
        return
    path = local_path(path)
    with write_lock(path):
        yield FitStore(path, attrs)


def read_fit(path: Path) -> xr.Dataset | None:
    """Values of the fit stored in the folder `path`, without the state; None if it is not a store of a fit."""
    fitted = _read(path)
    if fitted is None:
        return None
    return restore_identity(fitted.drop_vars([name for name in fitted if str(name).startswith(_STATE)]))


def _backup_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _restore_backup(path: Path) -> None:
    """Restore the backup that a process left if it ended between the two renames of `save`."""
    if not path.exists() and _backup_path(path).exists():
        _backup_path(path).rename(path)


def _write(path: Path, fitted: xr.Dataset, state: Mapping[str, np.ndarray]) -> None:
    import zarr  # noqa: PLC0415  needed only for scores on disk

    group = zarr.open_group(path, mode="w", zarr_format=3)
    arrays = {
        str(name): (tuple(map(str, array.dims)), array.values)
        for name, array in {**fitted.coords, **fitted.data_vars}.items()
    }
    arrays |= {_STATE + name: (tuple(f"{name}_{axis}" for axis in range(v.ndim)), v) for name, v in state.items()}
    for name, (dims, values) in arrays.items():
        text = values.dtype.kind == "U"
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=str if text else values.dtype,
            dimension_names=dims,
            compressors=compressors(),
        )
        array[:] = values
    attrs = {"headnb_format": FORMAT, "fitted": 1, **fitted.attrs}
    values_of = {name: values for name, (_, values) in arrays.items()}
    group.attrs.update({**attrs, CHECKSUM: checksum(attrs, values_of, array_metadata(path, arrays))})


def _read(path: Path) -> xr.Dataset | None:
    import zarr  # noqa: PLC0415

    from headnb.storage.zarr_files import CheckedStore, check_codecs  # noqa: PLC0415

    try:
        group = zarr.open_group(CheckedStore(path), mode="r", zarr_format=3)
        group_attrs: dict[str, Any] = dict(group.attrs)
    except Exception:  # noqa: BLE001  not a Zarr group, or its metadata file is damaged
        return None
    expected = group_attrs.pop(CHECKSUM, None)
    if group_attrs.get("headnb_format") not in READ_FORMATS or not group_attrs.get("fitted", 0):
        return None
    with report_corruption(path):
        if sum(array.nbytes for _, array in group.arrays()) > MAX_BYTES:
            raise HeadnbError(f"{path} is damaged: its arrays are larger than those of a fit")
        for name, array in group.arrays():
            check_codecs(path, name, array)
            if array.nchunks > 1:
                raise HeadnbError(f"{path} is damaged: {name} has {array.nchunks} chunks, and a fit writes one")
        arrays: dict[str, tuple[Any, np.ndarray]] = {
            name: (array.metadata.dimension_names, plain_values(array[:]))  # type: ignore[union-attr]
            for name, array in group.arrays()
        }
        values = {name: column[1] for name, column in arrays.items()}
        if group_attrs["headnb_format"] != 1 and expected != checksum(
            group_attrs, values, array_metadata(path, arrays)
        ):
            raise HeadnbError(f"{path} is damaged: its content does not match its checksum")
    attrs = {name: value for name, value in group_attrs.items() if name not in {"headnb_format", "fitted"}}
    attrs.setdefault(REVISION, FIRST_REVISION)
    coords = {name: column for name, column in arrays.items() if column[0] == (name,)}
    return xr.Dataset({name: c for name, c in arrays.items() if name not in coords}, coords=coords, attrs=attrs)
