"""Data sets of the hub and of folders, read by the `datasets` library."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb import hub
from headnb.errors import HeadnbError, first_line, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STREAMED_ROWS = 20_000  # first rows of a large data set, from which samples are taken
MOST_FILES = 10_000  # in a folder that is read as a data set; `datasets` would search the whole disk for "/"


def load_dataset(path: str, *, stream: bool = False, **arguments: Any) -> Sequence[object]:
    """`datasets.load_dataset`; every failure becomes a one-line HeadnbError.

    Args:
        path: hub id or folder.
        stream: read only the first `STREAMED_ROWS` rows.
        arguments: other arguments of `datasets.load_dataset`: split and name (the configuration).
    """
    local = Path(path).is_dir()
    with one_line_failures(f"the data set {path!r}", local=local) as datasets:
        if local:
            _check_number_of_files(path)
        loaded = datasets.load_dataset(path, streaming=stream, **arguments)
        return list(loaded.take(STREAMED_ROWS)) if stream else loaded


def _check_number_of_files(folder: str) -> None:
    found = 0
    for _, folders, files in os.walk(folder, followlinks=True):
        found += len(folders) + len(files)
        if found > MOST_FILES:
            raise HeadnbError(
                f"{folder} contains more than {MOST_FILES:,} files and folders; give the file or folder with samples"
            )


@contextlib.contextmanager
def one_line_failures(what: str, *, local: bool = False) -> Iterator[Any]:
    """Yield the `datasets` library, without its progress bars and offline if the hub is not reachable.

    Args:
        what: what is loaded, for errors.
        local: whether the network is not needed.

    Raises:
        HeadnbError: for every failure inside the block, with one line.
    """
    try:
        import datasets  # noqa: PLC0415  slow to import
    except ImportError as error:
        raise HeadnbError(
            f"the package datasets cannot be imported ({first_line(error)}): pip install datasets"
        ) from error
    online = True
    try:
        with _quiet(datasets), contextlib.nullcontext(True) if local else hub.offline_unless_reachable() as online:
            yield datasets
    except HeadnbError:
        raise
    except Exception as error:
        raise HeadnbError(f"cannot load {what}: {_reason(error, online=online)}") from error


def _reason(error: Exception, *, online: bool) -> str:
    """The first line of an error; the names of the configurations are on the second one."""
    if not online and (isinstance(error, OSError) or first_line(error).startswith("Couldn't find cache")):
        return "no network, and the data set is not in the cache"
    if first_line(error).startswith("Config name is missing"):
        lines = str(error).splitlines()
        return f"it has several configurations; choose one with config= ({one_line(' '.join(lines[1:2]))})"
    return first_line(error)


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Disable progress bars, which fill a notebook; the user's setting is restored on exit."""
    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()
