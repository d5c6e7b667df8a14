"""JSON and netCDF files of a run folder, written atomically and with checksums."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from headnb.atomic_files import atomic_path
from headnb.errors import HeadnbError, one_line
from headnb.hub import user_path
from headnb.stats.results import restore_identity
from headnb.storage.checksums import CHECKSUM, append_checksum, checksum, verify_checksum
from headnb.storage.netcdf_sizes import check_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MAX_NAME_LENGTH = 160  # bytes; file systems allow 255, and some files get a prefix or a suffix


def safe_file_name(name: str) -> str:
    """Convert the name of a task or model to a file name: hub ids have slashes, paths have folders and suffixes.

    All Unicode forms of a name give the same file name, because file systems differ in the form they store. A name
    that is too long for a file system is truncated, and a hash of the full name is appended.
    """
    name = unicodedata.normalize("NFC", Path(name).name if Path(name).is_absolute() else name)
    file = re.sub(r"[^\w.-]+", "-", name.removesuffix(".jsonl")).strip("-.") or "unnamed"
    if len(file.encode()) <= MAX_NAME_LENGTH:
        return file
    start = file.encode()[: MAX_NAME_LENGTH - 17].decode(errors="ignore")
    return f"{start}-{hashlib.blake2b(name.encode(errors='replace'), digest_size=8).hexdigest()}"


def check_file_names(names: Sequence[str], kind: str) -> None:
    """Check that no two names give the same file name, also on a disk that ignores case.

    Raises:
        HeadnbError: two names give the same file name.
    """
    seen: dict[str, str] = {}
    for name in names:
        file = safe_file_name(name)
        if (other := seen.setdefault(file.casefold(), name)) != name:
            raise HeadnbError(f"two {kind} have the same file name {file}: {other} and {name}; rename one")


def read_json(path: Path, notebook_name: str) -> dict[str, Any]:
    """Read an object from a JSON file that the notebook `notebook_name` writes.

    Raises:
        HeadnbError: the file does not exist, cannot be read, or differs from what `write_json` wrote.
    """
    try:
        stored = json.loads(user_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing_file_error(path, notebook_name) from None
    except (OSError, ValueError, RecursionError) as error:
        raise HeadnbError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(stored, dict):
        raise HeadnbError(f"{path} cannot be read: it is not a JSON object")
    return _verified(stored, path)


def _verified(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    """Remove the checksum after comparing it; files of earlier versions have none.

    The checksum is the last key, so that it is found even if its name is damaged.
    """
    name = CHECKSUM if CHECKSUM in stored else next(reversed(stored), CHECKSUM)
    rest = {key: value for key, value in stored.items() if key != name}
    matches = stored.get(name) == checksum(rest, {})
    if matches != (CHECKSUM in stored):
        raise HeadnbError(
            f"{path} is damaged: its content does not match its checksum (if you edited it, remove its {CHECKSUM} too)"
        )
    return rest if matches else stored


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write an object as JSON with its checksum; NaN and infinities become null, numpy numbers Python numbers."""
    plain = _to_json(values)
    with atomic_path(path, make_folder=True) as draft:
        text = json.dumps({**plain, CHECKSUM: checksum(plain, {})}, indent=1, allow_nan=False)
        draft.write_text(text, encoding="utf-8")
    return path


def remove_folder(path: Path) -> None:
    """Rename a folder, then remove it: training would resume from a half-removed checkpoint."""
    renamed = path.with_name(f".{path.name}.gone")
    shutil.rmtree(renamed, ignore_errors=True)
    path.rename(renamed)
    shutil.rmtree(renamed)


def load_dataset(path: Path, notebook_name: str) -> xr.Dataset:
    """Read a data set from a netCDF file that the notebook `notebook_name` writes.

    Raises:
        HeadnbError: the file does not exist, or as for `read_dataset`.
    """
    if not path.exists():
        raise missing_file_error(path, notebook_name)
    return read_dataset(path)


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Write a data set as netCDF and append a hash of the file.

    Raises:
        HeadnbError: the file cannot be written; an existing file at `path` stays unchanged.
    """
    with atomic_path(path, make_folder=True) as draft:
        try:
            dataset.to_netcdf(draft)
            append_checksum(draft)
        except RuntimeError as error:  # the netCDF library raises it when the disk is full
            raise HeadnbError(f"cannot write {path}: {error}") from error


def read_dataset(path: Path) -> xr.Dataset:
    """Read a data set from a netCDF file.

    Raises:
        HeadnbError: the file cannot be read, or differs from what `write_dataset` wrote.
    """
    try:
        verify_checksum(user_path(path))
        check_sizes(path)
        with xr.open_dataset(path, engine="netcdf4") as stored:
            loaded: xr.Dataset = stored.load()
    except HeadnbError:
        raise
    except Exception as error:  # xarray's decoders raise many types
        raise HeadnbError(f"{path} cannot be read as netCDF: {one_line(error)}") from error
    return restore_identity(loaded)


def missing_file_error(path: Path, notebook_name: str) -> HeadnbError:
    """Error for a missing file, with the notebook that writes it."""
    return HeadnbError(f"{path} does not exist; run notebook {notebook_name} first")


def _to_json(value: Any) -> Any:
    """Convert a value to the types of JSON."""
    if isinstance(value, dict):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _to_json(value.tolist())
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value
