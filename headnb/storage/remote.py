"""Results at URLs: copied to a local folder before they are read, uploaded after they are written.

`hf://user/name@revision` is a data set repository of the Hugging Face hub (see `hub_repository`). Every other URL
(`s3://`, `gs://`, `memory://`, `https://`) is opened by fsspec, with the credentials that its file system finds. A
store is copied whole, so the checks of local stores also hold for it: checksums, sizes, missing chunks. Runs write to
local folders only, because locks and atomic renames need a local file system.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, first_line
from headnb.storage.hub_repository import HUB, download
from headnb.storage.locks import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 2**32  # of a copy
MAX_FILES = 100_000


def is_url(path: object) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def shown_url(url: str | Path) -> str:
    """A URL without the user name, password and query (such as a signature) that it may contain."""
    return re.sub(r"(://[^\s?]*\?)[^\s'\"]+", r"\1...", re.sub(r"//[^/@]*@", "//", str(url)))


def url_name(url: str | Path) -> str:
    """The last component of a path or a URL; that of a web address without its query, which follows the suffix."""
    text = str(url)
    if _is_web_address(text):
        text = re.split(r"[?#]", text, maxsplit=1)[0]
    return PurePosixPath(text.rstrip("/")).name


def _is_web_address(url: str) -> bool:
    return url.startswith(("http://", "https://"))


@contextlib.contextmanager
def local_copy(source: str | Path, default: str) -> Iterator[Path]:
    """Local path of a result; the copy of a URL is removed on exit, except from the hub's cache.

    Args:
        source: a path or a URL.
        default: the file to read from a repository of the hub, if the URL names none.

    Raises:
        HeadnbError: the URL cannot be read, has more than 4 GB, or is a Zarr store on a web server.
    """
    if not is_url(source):
        yield local_path(source)
        return
    url = str(source)
    if url.startswith(HUB):
        with _named_by(url, copy := download(url, default)):
            yield copy
        return
    with tempfile.TemporaryDirectory(prefix="headnb-") as folder:
        copy = Path(folder) / (url_name(url) or "scores")
        if copy.suffix == ".zarr" and _is_web_address(url):
            raise HeadnbError(
                f"{shown_url(url)}: a Zarr store cannot be read from a web server, which does not list the store's "
                "files; use a netCDF or Parquet file, or another file system such as s3://"
            )
        _copy(url, copy)
        with _named_by(url, copy):
            yield copy


def upload(file: Path, url: str) -> None:
    """Copy a local file to a URL; an existing file is replaced.

    Raises:
        HeadnbError: the URL cannot be written.
    """
    if url.startswith(HUB):
        raise HeadnbError(f"{url} is on the hub: use scores.heads.push_to_hub('user/name')")
    with _file_system(url) as (files, path), _explained("write", url):
        files.put_file(str(file), path)


@contextlib.contextmanager
def _named_by(url: str, copy: Path) -> Iterator[None]:
    """Replace the path of the copy in errors by the URL."""
    try:
        yield
    except HeadnbError as error:
        raise HeadnbError(str(error).replace(str(copy), shown_url(url))) from error


def _copy(url: str, copy: Path) -> None:
    """Copy a file or a folder to a new local path."""
    with _file_system(url) as (files, root), _explained("read", url):
        found: dict[str, Any] = {root: files.info(root)} if files.isfile(root) else files.find(root, detail=True)
        if not found:
            raise HeadnbError(f"there are no scores at {shown_url(url)}")
        size = sum(info.get("size") or 0 for info in found.values())
        if size > MAX_BYTES or len(found) > MAX_FILES:
            raise HeadnbError(
                f"{shown_url(url)} has {len(found)} files and {size / 2**30:.1f} GB, more than is copied for reading; "
                "copy it to a local folder and open that"
            )
        places = [_inside(copy, name, root) for name in found]
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        files.get(list(found), [str(place) for place in places])


def _inside(copy: Path, name: str, root: str) -> Path:
    """Local place of a remote file; an object store may hold names that lead out of the folder."""
    parts = PurePosixPath(name.removeprefix(root).lstrip("/")).parts
    if not name.startswith(root) or {"..", "."} & set(parts):
        raise HeadnbError(f"the file name {name!r:.100} points outside the store")
    return copy.joinpath(*parts)


@contextlib.contextmanager
def _file_system(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the path in it."""
    import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415  needed only for URLs

    with _explained("open", url):
        files, path = fsspec.core.url_to_fs(url)
    yield files, path


@contextlib.contextmanager
def _explained(what: str, url: str) -> Iterator[None]:
    try:
        yield
    except HeadnbError:
        raise
    except ImportError as error:
        package = f"; its file system needs another package ({first_line(error)})"
        raise HeadnbError(f"cannot {what} {shown_url(url)}{package}") from error
    except Exception as error:  # file systems raise errors of their own libraries
        raise HeadnbError(f"cannot {what} {shown_url(url)}: {shown_url(first_line(error))}") from error
