"""Data set repositories of the Hugging Face hub: download of one result, upload of a folder.

A download is pinned: the hub's library resolves the revision to a commit once, stores the files of that commit in its
cache, and finds them there without a network.
"""

from __future__ import annotations

import contextlib
import glob
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from headnb import hub
from headnb.errors import HeadnbError, cause_names, first_line, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = "hf://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_ADDRESS = re.compile(
    r"hf://(?:datasets/)?(?P<repository>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(?P<file>[^@]*))?"
)


class HubAddress(NamedTuple):
    """A file or folder in a data set repository.

    Attributes:
        repository: `user/name`.
        revision: branch, tag or commit; None for the newest commit.
        file: path in the repository; empty if the address names none.
    """

    repository: str
    revision: str | None
    file: str


def parse_address(url: str) -> HubAddress:
    """Parse `hf://user/name`, `hf://user/name@revision` and `hf://user/name@revision/path`.

    Raises:
        HeadnbError: `url` does not have one of these forms.
    """
    found = _ADDRESS.fullmatch(url)
    file = (found["file"] or "").rstrip("/") if found else ""
    if not found or ".." in PurePosixPath(file).parts:
        raise HeadnbError(f"{one_line(url, 100)} is not of the form hf://user/name or hf://user/name@revision")
    return HubAddress(checked_repository(found["repository"]), unquote(found["revision"] or "") or None, file)


def checked_repository(name: object) -> str:
    """Return `name` if it has the form `user/name`.

    Raises:
        HeadnbError: it does not.
    """
    if not isinstance(name, str) or not _REPOSITORY.fullmatch(name) or len(name) > 96:
        raise HeadnbError(f"a repository of the hub has the form 'user/name', not {name!r:.100}")
    return name


def download(url: str, default: str) -> Path:
    """Path of a file or folder in the hub's cache; without a network, of the newest revision that is in the cache.

    Args:
        url: see `parse_address`.
        default: the file in the repository, if `url` names none.

    Raises:
        HeadnbError: the repository, the revision or the file does not exist, or is not in the cache without a network.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    repository, revision, file = parse_address(url)
    file = file or default
    pattern = glob.escape(file)
    with hub.offline_unless_reachable() as online:
        try:
            folder = snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                allow_patterns=[pattern, f"{pattern}/*"],
                local_files_only=not online,  # huggingface_hub 1 asks for a commit's files even when it is offline
            )
        except Exception as error:
            raise _download_error(url, error, online=online) from error
    path = Path(folder) / file
    if not path.exists():
        raise HeadnbError(f"the data set repository {repository} has no {file}{'' if online else ' in the cache'}")
    return path


def push_folder(folder: Path, repository: str, *, private: bool | None, token: str | None, commit_message: str) -> str:
    """Upload a folder in one commit, to a data set repository that is created if it does not exist.

    Returns:
        URL of the commit.

    Raises:
        HeadnbError: no network, no permission, or `private=True` for an existing repository that is public.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415

    if not hub.reachable():
        raise HeadnbError("the hub is not reachable (no network, or HF_HUB_OFFLINE is set)")
    api = HfApi(token=token)
    with _explained_upload(repository):
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        is_safe = not private or api.repo_info(repository, repo_type="dataset").private
    if not is_safe:
        raise HeadnbError(f"{repository} exists and is public; choose another name, or make it private in its settings")
    with _explained_upload(repository):
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, repo_type="dataset", commit_message=commit_message
        )
    return str(commit.commit_url)


@contextlib.contextmanager
def _explained_upload(repository: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _upload_error(repository, error) from error


def _download_error(url: str, error: Exception, *, online: bool) -> HeadnbError:
    causes = cause_names(error)
    if not online:
        return HeadnbError(f"{url} is not in the hub's cache, and the hub is not reachable")
    if "GatedRepoError" in causes:
        return HeadnbError(f"{url} is gated: accept its terms on its hub page, then log in (hf auth login)")
    if "RevisionNotFoundError" in causes:
        return HeadnbError(f"{url}: the repository has no such branch, tag or commit")
    if "RepositoryNotFoundError" in causes:
        return HeadnbError(f"{url}: there is no such data set repository; a private one needs a login (hf auth login)")
    return HeadnbError(f"cannot read {url}: {first_line(error)}")


def _upload_error(repository: str, error: Exception) -> HeadnbError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {401, 403} or "LocalTokenNotFoundError" in cause_names(error):
        return HeadnbError(
            f"the hub does not allow you to write to {repository}; log in with a token that has write access (hf auth "
            "login), or pass token="
        )
    return HeadnbError(f"cannot upload to {repository}: {first_line(error)}")
