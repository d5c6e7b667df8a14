"""How a finding looks in a console and in a notebook: its table, and what it says."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it


class TableAndVerdict(ABC):
    """A finding that has a table of numbers and a verdict in words."""

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The numbers."""

    @property
    @abstractmethod
    def verdict(self) -> str:
        """What they show, in sentences."""

    def __repr__(self) -> str:
        return f"{self.table.to_string(float_format='{:.3g}'.format)}\n\n{self.verdict}"

    def _repr_html_(self) -> str:
        table = self.table.to_html(float_format="{:.3g}".format, border=0)
        return f"{table}<p><b>{html.escape(self.verdict)}</b></p>"
