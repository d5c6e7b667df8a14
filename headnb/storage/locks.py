"""Paths of score stores, and the lock that admits one writer per store."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError, one_line
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Iterator


def local_path(path: str | Path) -> Path:
    """Absolute path of a local folder or file, so that a later `os.chdir` does not change what is read.

    Raises:
        HeadnbError: `path` is a URL, is relative to a working directory that was removed, or fails `hub.user_path`.
    """
    if "://" in str(path):
        raise HeadnbError(
            f"{one_line(path, 60)} is a URL, and this needs a local path (runs lock and rename files); save results to "
            "a URL afterwards with scores.heads.save(url)"
        )
    if isinstance(path, Path) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path.as_posix()):
        raise HeadnbError(f"{one_line(path, 60)} is a URL as a Path, which removes slashes; give the URL as text")
    local = user_path(path)
    try:
        return local.absolute()
    except OSError as error:
        raise HeadnbError(f"cannot find {one_line(path)}: {error}") from error


@contextmanager
def write_lock(path: Path, what: str = "scores") -> Iterator[None]:
    """Lock `path` against a second writer, in this process or another. The empty lock file stays.

    Raises:
        HeadnbError: another run holds the lock, or no lock file can be created.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415  needed only for scores on disk

    target = "`out`" if what == "scores" else "folder"

    try:
        real = path.resolve()
        lock = FileLock(real.with_name(f".{real.name}.lock"))
        real.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        if not Path(lock.lock_file).exists():  # file systems such as /proc refuse new files as if they were locked
            raise HeadnbError(f"cannot write {what} to {path}: no file can be created there") from None
        raise HeadnbError(
            f"another run is writing {what} to {path} now; wait until it ends, or choose another {target}"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # such as a path without a name or with a thousand levels
        reason = getattr(error, "strerror", None) or one_line(error, 100)
        raise HeadnbError(f"cannot write {what} to {one_line(path)}: {reason}") from error
    try:
        yield
    finally:
        lock.release()
