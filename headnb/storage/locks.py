"""Where stores of scores may lie, and that one run at a time writes to each."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator


def local_path(path: str | Path) -> Path:
    """The absolute path of a folder or file of this machine: what is read later must not follow `os.chdir`.

    Raises:
        HeadnbError: it is an address, or relative to a working directory that is gone.
    """
    if "://" in str(path):
        raise HeadnbError(f"{path} is an address; scores are written to local folders")
    try:
        return Path(path).expanduser().absolute()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home of this name
        raise HeadnbError(f"cannot find {path}: {error}") from error


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Refuse a second writer of the store at `path`, in this process or another. The empty lock file stays."""
    from filelock import FileLock, Timeout  # noqa: PLC0415  needed only for scores on disk

    real = path.resolve()
    lock = FileLock(real.with_name(f".{real.name}.lock"))
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        if not Path(lock.lock_file).exists():  # some places, such as /proc, deny files in ways that look like a lock
            raise HeadnbError(f"cannot write scores to {path}: no file can be made there") from None
        raise HeadnbError(
            f"another run is writing scores to {path} now; wait until it ends, or choose another `out`"
        ) from None
    except OSError as error:
        raise HeadnbError(f"cannot write scores to {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
