"""Where stores of scores may lie, and that one run at a time writes to each."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError, one_line
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Iterator


def local_path(path: str | Path) -> Path:
    """The absolute path of a folder or file of this machine: what is read later must not follow `os.chdir`.

    Raises:
        HeadnbError: it is an address, relative to a working directory that is gone, or as for `hub.user_path`.
    """
    if "://" in str(path):
        raise HeadnbError(f"{one_line(path, 60)} is an address; scores are written to local folders")
    found = user_path(path)
    try:
        return found.absolute()
    except OSError as error:
        raise HeadnbError(f"cannot find {one_line(path)}: {error}") from error


@contextmanager
def write_lock(path: Path, what: str = "scores") -> Iterator[None]:
    """Refuse a second writer of what is at `path`, in this process or another. The empty lock file stays."""
    from filelock import FileLock, Timeout  # noqa: PLC0415  needed only for what goes to disk

    place = "`out`" if what == "scores" else "folder"

    try:
        real = path.resolve()
        lock = FileLock(real.with_name(f".{real.name}.lock"))
        real.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        if not Path(lock.lock_file).exists():  # some places, such as /proc, deny files in ways that look like a lock
            raise HeadnbError(f"cannot write {what} to {path}: no file can be made there") from None
        raise HeadnbError(
            f"another run is writing {what} to {path} now; wait until it ends, or choose another {place}"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # a path without a name, or of a thousand levels
        reason = getattr(error, "strerror", None) or one_line(error, 100)
        raise HeadnbError(f"cannot write {what} to {one_line(path)}: {reason}") from error
    try:
        yield
    finally:
        lock.release()
