"""Base class of analysis results: table and verdict as text and HTML."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from headnb.display.encodings import for_stdout
from headnb.display.templating import render
from headnb.stats.rounding import interval_text

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    import xarray as xr

_TABLE_FORMAT: dict[str, Any] = {"float_format": "{:.3g}".format, "na_rep": "–"}


class AnalysisResult(ABC):
    """An analysis result with a table of numbers and a verdict in sentences."""

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The numbers of the result."""

    @property
    @abstractmethod
    def verdict(self) -> str:
        """The result in sentences."""

    def _title(self) -> str:
        """Line above the table; none by default."""
        return ""

    def _display_table(self) -> pd.DataFrame:
        """The table as it is displayed."""
        return self.table

    def __repr__(self) -> str:
        parts = (self._title(), self._display_table().to_string(**_TABLE_FORMAT), self.verdict)
        return for_stdout("\n\n".join(filter(None, parts)))

    def _repr_html_(self) -> str:
        return result_html(self._title(), self._display_table(), verdict=self.verdict, **_TABLE_FORMAT)


def result_html(*parts: str | pd.DataFrame, verdict: str = "", **form: Any) -> str:
    """Render paragraphs and tables below each other, then a verdict; empty texts are omitted.

    Args:
        parts: texts and tables.
        verdict: shown in bold.
        form: arguments of `DataFrame.to_html`.
    """
    return render("finding.html", parts=parts, verdict=verdict, form=form)


def signed_text(one: xr.Dataset) -> str:
    """A change with its interval, from a Dataset of `value`, `low`, `high` without dims: `+0.12 [−0.03, +0.27]`."""
    value, low, high = (float(one[name]) for name in ("value", "low", "high"))
    return interval_text(value, low, high, "+")
