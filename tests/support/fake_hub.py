"""A hub in a local folder, in the layout of the hub's cache: what is uploaded, the real library then finds offline."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """The calls of HfApi that headnb uses.

    Attributes:
        cache: folder of the hub's cache.
        private: repository -> whether it is private.
        calls: tokens and uploads, in order.
    """

    def __init__(self, cache):
        self.cache = cache
        self.private = {}
        self.calls = []

    def __call__(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repository, *, repo_type, private, exist_ok):
        assert repo_type == "dataset"
        assert exist_ok
        self.private.setdefault(repository, bool(private))

    def repo_info(self, repository, *, repo_type):
        assert repo_type == "dataset"
        return SimpleNamespace(private=self.private[repository])

    def upload_folder(self, *, repo_id, folder_path, repo_type, commit_message):
        assert repo_type == "dataset"
        self.calls.append(("upload", repo_id, commit_message))
        storage = self.folder(repo_id).parents[1]
        shutil.copytree(folder_path, self.folder(repo_id))
        (storage / "refs").mkdir()
        for name in ("main", "v1"):
            (storage / "refs" / name).write_text(COMMIT)
        return SimpleNamespace(commit_url=f"https://huggingface.co/datasets/{repo_id}/commit/{COMMIT}")

    def folder(self, repository):
        """Folder of the uploaded files."""
        return self.cache / f"datasets--{repository.replace('/', '--')}" / "snapshots" / COMMIT
