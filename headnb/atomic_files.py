"""Files whose names never refer to a partly written file."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: Path, *, make_folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; move it to `path` at the end, or remove it after an error.

    Args:
        path: path of the new file; an existing file is replaced.
        make_folder: create the folder of `path` if it does not exist.

    Raises:
        HeadnbError: the file cannot be written.
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except (OSError, RecursionError) as error:  # RecursionError: a path with a thousand levels
        raise HeadnbError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)  # noqa: PTH105  atomic
    except OSError as error:
        raise HeadnbError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file of bytes or of UTF-8 text.

    Raises:
        HeadnbError: as for `atomic_path`.
    """
    with atomic_path(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
