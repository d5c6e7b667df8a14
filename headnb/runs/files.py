"""Files of a run folder: each is written beside its place and moved there, so it is whole or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def file_name(name: str) -> str:
    """A task's or a model's name as part of a path: hub ids have slashes, files have folders and endings."""
    name = Path(name).name if Path(name).is_absolute() else name
    return re.sub(r"[^\w.-]+", "-", name.removesuffix(".jsonl")).strip("-.") or "unnamed"


def read_json(path: Path, maker: str) -> dict[str, Any]:
    """An object from a JSON file that the notebook `maker` writes."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise not_made(path, maker) from None
    except (OSError, ValueError) as error:
        raise HeadnbError(f"{path} cannot be read: {error}") from error
    return stored


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write an object as JSON; NaN becomes null, numpy's numbers become Python's."""
    with drafted(path) as place:
        place.write_text(json.dumps(_plain(values), indent=1, allow_nan=False), encoding="utf-8")
    return path


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which is moved to `path` at the end, or removed after an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise HeadnbError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)  # noqa: PTH105  the move itself is the point
    except OSError as error:
        raise HeadnbError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load(path: Path, maker: str) -> xr.Dataset:
    """A data set from a netCDF file that the notebook `maker` writes."""
    if not path.exists():
        raise not_made(path, maker)
    try:
        with xr.open_dataset(path) as stored:
            return stored.load()
    except (OSError, ValueError) as error:
        raise HeadnbError(f"{path} cannot be read: {error}") from error


def not_made(path: Path, maker: str) -> HeadnbError:
    """The error that says which notebook makes a file."""
    return HeadnbError(f"there is no {path}; run notebook {maker} first")


def _plain(value: Any) -> Any:
    """What JSON has words for."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value
