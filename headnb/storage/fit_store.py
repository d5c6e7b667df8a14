"""What a method fits to a whole task, on disk: its values so far, and the state from which it goes on.

A Zarr group that is written anew, beside its place, and then moved there: it is there whole or not at all. Between the
two moves the last one lies beside it under another name, and is found there.
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

MAX_BYTES = 2**28  # of all arrays of a fit that comes from elsewhere
_PROGRESS = (
    "complete",
    "steps_done",
    "steps_total",
    RESULT_ID,
    MADE_BY,
)  # attributes that change from one writing to the next
_STATE = "state_"  # what is of use to the fit alone begins so


class FitStore:
    """The place of one fit; without a path nothing is kept."""

    def __init__(self, path: Path | None, attrs: Mapping[str, Attribute]) -> None:
        self.path = path
        self._attrs = attrs

    def load(self) -> xr.Dataset | None:
        """What was kept, with the state; None if nothing was.

        Raises:
            HeadnbError: it is of another model, task, method or setting, or no fit at all.
        """
        if self.path is None:
            return None
        _restore_backup(self.path)
        if not self.path.exists():
            return None
        found = _read(self.path)
        if found is None:
            raise HeadnbError(f"{self.path} is not a store of a fit")
        stored = {name: value for name, value in found.attrs.items() if name not in _PROGRESS}
        check_same_settings(self.path, stored, self._attrs)
        return found

    def save(self, fitted: xr.Dataset, state: Mapping[str, np.ndarray]) -> None:
        """Keep the values so far, and arrays of state.

        Raises:
            HeadnbError: the disk is full or cannot be written; what was kept before stays.
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
    """The place of a fit that `attrs` tell from others; while the context is open no other run can write there.

    Raises:
        HeadnbError: another run writes there now, or nobody can.
    """
    if path is None:
        yield FitStore(None, attrs)
        return
    path = local_path(path)
    with write_lock(path):
        yield FitStore(path, attrs)


def read_fit(path: Path) -> xr.Dataset | None:
    """The values of the fit that is kept at `path`, a folder; None if it is something else."""
    found = _read(path)
    if found is None:
        return None
    return restore_identity(found.drop_vars([name for name in found if str(name).startswith(_STATE)]))


def _backup_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _restore_backup(path: Path) -> None:
    """A process that ended between the two moves of `save` left the last values beside their place."""
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
    told = {"headnb_format": FORMAT, "fitted": 1, **fitted.attrs}
    values_of = {name: values for name, (_, values) in arrays.items()}
    group.attrs.update({**told, CHECKSUM: checksum(told, values_of, array_metadata(path, arrays))})


def _read(path: Path) -> xr.Dataset | None:
    import zarr  # noqa: PLC0415

    from headnb.storage.zarr_files import CheckedStore, check_codecs  # noqa: PLC0415

    try:
        group = zarr.open_group(CheckedStore(path), mode="r", zarr_format=3)
        told: dict[str, Any] = dict(group.attrs)
    except Exception:  # noqa: BLE001  it is something else, or its first file is damaged: no fit to be read
        return None
    expected = told.pop(CHECKSUM, None)
    if told.get("headnb_format") not in READ_FORMATS or not told.get("fitted", 0):
        return None
    with report_corruption(path):
        if sum(array.nbytes for _, array in group.arrays()) > MAX_BYTES:
            raise HeadnbError(f"{path} is damaged: it says that it holds more than a fit does")
        for name, array in group.arrays():
            check_codecs(path, name, array)
            if array.nchunks > 1:
                raise HeadnbError(f"{path} is damaged: {name} is in {array.nchunks} parts, and a fit writes one")
        arrays: dict[str, tuple[Any, np.ndarray]] = {
            name: (array.metadata.dimension_names, plain_values(array[:]))  # type: ignore[union-attr]
            for name, array in group.arrays()
        }
        values = {name: column[1] for name, column in arrays.items()}
        if told["headnb_format"] != 1 and expected != checksum(told, values, array_metadata(path, arrays)):
            raise HeadnbError(f"{path} is damaged: it is not what was written")
    attrs = {name: value for name, value in told.items() if name not in {"headnb_format", "fitted"}}
    attrs.setdefault(REVISION, FIRST_REVISION)
    coords = {name: column for name, column in arrays.items() if column[0] == (name,)}
    return xr.Dataset({name: c for name, c in arrays.items() if name not in coords}, coords=coords, attrs=attrs)
