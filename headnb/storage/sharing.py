"""Upload of scores to the Hugging Face hub: the scores, their pattern, a picture, and a card that describes them.

Names of models and tasks may be paths of the uploading machine, absolute or relative. Only the last component of a
path is uploaded, in the files' attributes and in the card. Sample ids are uploaded unchanged.
"""

from __future__ import annotations

import re
import tempfile
from base64 import b64decode
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from headnb.display.grid import HeadGrid
from headnb.display.html import picture_png
from headnb.errors import HeadnbError
from headnb.stats.results import as_result, require_scores
from headnb.storage.card import card
from headnb.storage.files import write_dataset
from headnb.storage.hub_repository import checked_repository, push_folder
from headnb.storage.reading import SHARED_FILE

if TYPE_CHECKING:
    import xarray as xr

PATTERN_FILE = "pattern.heads.json"
PICTURE_FILE = "pattern.png"
_PATH = re.compile(r"(?<![\w.:/\\-])(?:[A-Za-z]:|~[\w-]*|file://|\.\.?)?[/\\](?:[^\n'\",;:+/\\]+[/\\])+")


def push_scores(
    scores: xr.Dataset, repository: str, *, private: bool | None, token: str | None, commit_message: str | None
) -> str:
    """Upload scores in one commit and return its URL: see `ScoresHeads.push_to_hub`."""
    if "score" not in scores or not set(scores["score"].dims) <= {"sample", "layer", "head"}:
        raise HeadnbError("push_to_hub uploads scores of one set of samples; select one with .sel first")
    require_scores(scores)
    checked_repository(repository)
    public = without_paths(scores.load())
    message = commit_message or f"Head scores of {public.attrs.get('model', 'a model')}"
    with tempfile.TemporaryDirectory(prefix="headnb-") as folder:
        write_files(public, repository, Path(folder))
        return push_folder(Path(folder), repository, private=private, token=token, commit_message=message)


def write_files(scores: xr.Dataset, repository: str, folder: Path) -> None:
    """Write the files of a repository: scores, pattern, picture and README.md."""
    grid = HeadGrid.of(scores)
    write_dataset(folder / SHARED_FILE, scores)
    grid.save(folder / PATTERN_FILE)
    (folder / PICTURE_FILE).write_bytes(b64decode(picture_png(grid.payload)))
    (folder / "README.md").write_text(card(scores, repository), encoding="utf-8")


def without_paths(scores: xr.Dataset) -> xr.Dataset:
    """Scores whose attributes have the last component of each path instead of the path."""
    cleaned = scores.copy()
    cleaned.attrs = _cleaned(cleaned.attrs)
    for variable in cleaned.variables.values():
        variable.attrs = _cleaned(variable.attrs)
    return as_result(cleaned)


def _cleaned(attrs: dict[Any, Any]) -> dict[Any, Any]:
    return {name: last_components(value) for name, value in attrs.items()}


def last_components(value: Any) -> Any:
    """A text with the last component of each path instead of the path; other values, and hub ids, unchanged.

    Paths are absolute, or begin with `~`, `.` or `..`.
    """
    if not isinstance(value, str):
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute():
            return kind(value).name
    if re.match(r"~|\.\.?[/\\]", value):
        return PureWindowsPath(value).name  # divides at slashes of both kinds
    return _PATH.sub("", value)
