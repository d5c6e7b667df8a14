"""Methods of `.heads` that save and share scores and comparisons.

`import headnb` imports this module, so it imports the modules that write only when a method is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.call_checks import check_arguments
from headnb.stats.results import without_stale_identity

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    import xarray as xr


class SavingMethods:
    """Saving and sharing of a data set of scores, or of a comparison."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def to_frame(self) -> pd.DataFrame:
        """Frame with one row per sample, layer and head, which `headnb.open_scores` converts back to scores."""
        from headnb.storage.frames import to_frame  # noqa: PLC0415

        return to_frame(without_stale_identity(self._dataset))

    @check_arguments
    def save(self, path: str | Path) -> str | Path:
        """Save the scores or the comparison in one file, at a path or a URL such as `s3://bucket/a.nc` (by fsspec).

        Args:
            path: the suffix says the format: `.nc` (netCDF) or `.parquet` (`to_frame`, of scores) hold everything;
                `.heads.json` holds the pattern; `.csv`, `.png`, `.pdf`, `.svg` and `.html` are those of `.grid().save`.

        Returns:
            The absolute path, or the URL.

        Raises:
            HeadnbError: an unknown suffix, or the file cannot be written.
        """
        from headnb.storage.writing import save_result  # noqa: PLC0415

        return save_result(without_stale_identity(self._dataset), path)

    @check_arguments
    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Upload the scores to a data set repository of the Hugging Face hub; `open_scores("hf://user/name")` reads it.

        Uploaded are the scores of all samples with their ids, the pattern, a picture, and a card. Paths in the names of
        model and task are reduced to their last component.

        Args:
            repository: `user/name`; created if it does not exist.
            private: make a new repository private. An existing repository must be private already.
            token: of the hub; by default that of `hf auth login`.
            commit_message: of the commit.

        Returns:
            URL of the commit.

        Raises:
            HeadnbError: not scores, no network, or no permission to write to the repository.
        """
        from headnb.storage.sharing import push_scores  # noqa: PLC0415

        return push_scores(self._dataset, repository, private=private, token=token, commit_message=commit_message)
