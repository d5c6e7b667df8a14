"""Network check and offline mode of the Hugging Face libraries, downloads, and checks of user paths.

Without a network `huggingface_hub` retries each file six times (23 seconds) before it uses its cache or fails. headnb
therefore checks once whether the hub is reachable, and otherwise switches to offline mode.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_SECONDS = 4.0  # until the first answer

_offline = threading.RLock()


def cache_folder() -> Path:
    """Folder for files that headnb converts or downloads."""
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_cache_dir("headnb"))


def user_path(source: object) -> Path:
    """Convert a user's path, which need not exist; `~` is the home folder.

    Raises:
        HeadnbError: `source` is not text or a path, is not valid on this machine, or is a pipe, a socket or a device,
            because reading those may never end.
    """
    if not isinstance(source, (str, Path)):
        raise HeadnbError(f"expected a name, an id or a path, not {source!r:.60}")
    mode = 0
    try:
        path = Path(source).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            mode = path.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HeadnbError(f"{str(source)!r:.60} is not a valid name, id or path: {reason}") from error
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise HeadnbError(f"{str(source)!r:.60} is a pipe, a socket or a device, not a file or a folder")
    return path


def check_files_of(folder: Path) -> None:
    """Raise HeadnbError if a folder contains a pipe, a socket or a device: reading it may never end."""
    for path in folder.iterdir():
        user_path(path)


def reachable(url: str | None = None, seconds: float = TIMEOUT_SECONDS) -> bool:
    """Whether the hub (or another URL) answers within `seconds`; False if the user set HF_HUB_OFFLINE."""
    import huggingface_hub as hub  # noqa: PLC0415

    if hub.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            answer = hub.get_session().head(url or hub.constants.ENDPOINT, timeout=seconds)
            if answer.status_code < 500:  # a proxy reports an unreachable host as 5xx
                answered.set()

    # A thread, because the timeout of a request does not cover a name server that does not answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


@contextlib.contextmanager
def offline_unless_reachable() -> Iterator[bool]:
    """Yield whether the hub is reachable; if not, put its libraries in offline mode inside the block."""
    if reachable():
        yield True
        return
    with offline():
        yield False


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Put the hub's libraries in offline mode inside the block."""
    from huggingface_hub import constants  # noqa: PLC0415

    with _offline, contextlib.ExitStack() as undo:
        for holder in (constants, sys.modules.get("datasets.config")):
            if holder is not None:
                undo.callback(setattr, holder, "HF_HUB_OFFLINE", holder.HF_HUB_OFFLINE)
                holder.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        yield


def download(url: str) -> Path:
    """Path of a web file in headnb's cache; downloads the file on first use.

    Raises:
        HeadnbError: the URL is not reachable or does not return the file.
    """
    name = f"{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}-{url.rpartition('/')[2]}"
    path = cache_folder() / "files" / name
    if path.is_file():
        return path
    from huggingface_hub import get_session  # noqa: PLC0415

    if not reachable(url):
        raise HeadnbError(f"cannot reach {url} (no network?)")
    try:
        answer = get_session().get(url, timeout=60, follow_redirects=True)
        answer.raise_for_status()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(answer.content)
        partial.replace(path)
    except Exception as error:
        raise HeadnbError(f"cannot fetch {url}: {error}") from error
    return path
