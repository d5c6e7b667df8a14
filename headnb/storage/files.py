"""Files of a run folder: each is written beside its place and moved there, so it is whole or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from headnb.errors import HeadnbError, one_line
from headnb.hub import user_path
from headnb.stats.results import restore_identity
from headnb.storage.checksums import CHECKSUM, append_checksum, checksum, verify_checksum
from headnb.storage.netcdf_sizes import check_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


MAX_NAME_LENGTH = 160  # bytes; file systems take 255, and some files get an ending or a beginning


def safe_file_name(name: str) -> str:
    """A task's or a model's name as part of a path: hub ids have slashes, files have folders and endings.

    The Unicode forms of one name give one file name: disks differ in which of them they keep. Of a name that is longer
    than file systems take, the beginning and a hash of the whole.
    """
    name = unicodedata.normalize("NFC", Path(name).name if Path(name).is_absolute() else name)
    file = re.sub(r"[^\w.-]+", "-", name.removesuffix(".jsonl")).strip("-.") or "unnamed"
    if len(file.encode()) <= MAX_NAME_LENGTH:
        return file
    start = file.encode()[: MAX_NAME_LENGTH - 17].decode(errors="ignore")
    return f"{start}-{hashlib.blake2b(name.encode(errors='replace'), digest_size=8).hexdigest()}"


def check_file_names(names: Sequence[str], kind: str) -> None:
    """Refuse two names that give one file name, on a disk that ignores capital letters too.

    Raises:
        HeadnbError: there are two such names.
    """
    found: dict[str, str] = {}
    for name in names:
        file = safe_file_name(name)
        if (other := found.setdefault(file.casefold(), name)) != name:
            raise HeadnbError(f"two {kind} would be called {file}: {other} and {name}; rename one")


def read_json(path: Path, notebook_name: str) -> dict[str, Any]:
    """An object from a JSON file that the notebook `notebook_name` writes.

    Raises:
        HeadnbError: it is not there, cannot be read, or is not what `write_json` wrote.
    """
    try:
        stored = json.loads(user_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing_file_error(path, notebook_name) from None
    except (OSError, ValueError, RecursionError) as error:
        raise HeadnbError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(stored, dict):
        raise HeadnbError(f"{path} cannot be read: it holds no JSON object")
    return _verified(stored, path)


def _verified(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    """The object without its checksum, which is the last where its name is damaged; earlier versions wrote none."""
    name = CHECKSUM if CHECKSUM in stored else next(reversed(stored), CHECKSUM)
    rest = {key: value for key, value in stored.items() if key != name}
    matches = stored.get(name) == checksum(rest, {})
    if matches != (CHECKSUM in stored):
        raise HeadnbError(
            f"{path} is damaged: it is not what was written (if you changed it, remove its {CHECKSUM} too)"
        )
    return rest if matches else stored


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write an object as JSON, with its checksum; NaN becomes null, numpy's numbers become Python's."""
    plain = _to_json(values)
    with atomic_path(path) as place:
        text = json.dumps({**plain, CHECKSUM: checksum(plain, {})}, indent=1, allow_nan=False)
        place.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which is moved to `path` at the end, or removed after an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except (OSError, RecursionError) as error:  # of a path of a thousand levels
        raise HeadnbError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)  # noqa: PTH105  the move itself is the point
    except OSError as error:
        raise HeadnbError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, and at no moment have a half of it under its name: a training would go on from there."""
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone)


def load_dataset(path: Path, notebook_name: str) -> xr.Dataset:
    """A data set from a netCDF file that the notebook `notebook_name` writes."""
    if not path.exists():
        raise missing_file_error(path, notebook_name)
    return read_dataset(path)


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Write a data set as netCDF, with a hash of the file behind it.

    Raises:
        HeadnbError: it cannot be written; what was at `path` stays.
    """
    with atomic_path(path) as draft:
        try:
            dataset.to_netcdf(draft)
            append_checksum(draft)
        except RuntimeError as error:  # what netCDF's library says of a full disk
            raise HeadnbError(f"cannot write {path}: {error}") from error


def read_dataset(path: Path) -> xr.Dataset:
    """A data set from a netCDF file.

    Raises:
        HeadnbError: it cannot be read, or is not what `write_dataset` wrote.
    """
    try:
        verify_checksum(user_path(path))
        check_sizes(path)
        with xr.open_dataset(path, engine="netcdf4") as stored:
            loaded: xr.Dataset = stored.load()
    except HeadnbError:
        raise
    except Exception as error:  # xarray lets through whatever its decoders raise
        raise HeadnbError(f"{path} cannot be read: {one_line(error)}") from error
    return restore_identity(loaded)


def missing_file_error(path: Path, notebook_name: str) -> HeadnbError:
    """The error that says which notebook makes a file."""
    return HeadnbError(f"there is no {path}; run notebook {notebook_name} first")


def _to_json(value: Any) -> Any:
    """What JSON has words for."""
    if isinstance(value, dict):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _to_json(value.tolist())
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value
