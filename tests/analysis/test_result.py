"""Text and HTML of analysis results: title, table and verdict, with names escaped."""

from __future__ import annotations

import html
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from headnb.analysis.json_values import as_records, to_json_value, with_interval
from headnb.analysis.result import AnalysisResult
from headnb.stats.estimates import Estimate

HOSTILE = "<script>alert(1)</script> & more"


class Plain(AnalysisResult):
    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"loss": [0.123456, np.nan]}, index=["gsm8k", HOSTILE])

    @property
    def verdict(self) -> str:
        return f"It fell on {HOSTILE}."


class Titled(Plain):
    def _title(self) -> str:
        return f"of {HOSTILE}"

    def _display_table(self) -> pd.DataFrame:
        return self.table.T


@pytest.mark.parametrize("finding", [Plain(), Titled()])
def test_the_verdict_stands_under_the_table_in_both_forms(finding: Plain) -> None:
    console, notebook = repr(finding), finding._repr_html_()
    assert console.endswith(f"\n\n{finding.verdict}")
    assert html.unescape(notebook).endswith(f"</table>\n<p><b>{finding.verdict}</b></p>\n")
    for words in (console, notebook):
        assert "0.123" in words
        assert "0.1234" not in words
        assert "–" in words
        assert "nan" not in words.lower()


@pytest.mark.parametrize("finding", [Plain(), Titled()])
def test_names_and_verdicts_are_escaped(finding: Plain) -> None:
    assert "<script" not in finding._repr_html_()


def test_a_title_stands_above_the_table_where_there_is_one() -> None:
    assert repr(Titled()).startswith(f"of {HOSTILE}\n\n")
    assert html.unescape(Titled()._repr_html_()).startswith(f"<p>of {HOSTILE}</p>\n<table")
    assert Plain()._repr_html_().startswith("<table")


def test_a_table_may_be_shown_in_another_form_than_it_has() -> None:
    assert "<th>gsm8k</th>" in Titled()._repr_html_().split("<tbody>")[0]
    assert "<th>gsm8k</th>" in Plain()._repr_html_().split("<tbody>")[1]


def test_findings_are_json_without_nan_and_with_names_of_their_rows() -> None:
    table = pd.DataFrame(
        {"loss": [0.5, np.inf], "n": [1, 2], "p": [np.nan, 1.0]}, index=pd.Index(["a", "b"], name="task")
    )
    expected = [{"task": "a", "loss": 0.5, "n": 1, "p": None}, {"task": "b", "loss": None, "n": 2, "p": 1.0}]
    for records in (as_records(table), as_records(xr.Dataset(table))):
        assert json.loads(json.dumps(records, allow_nan=False)) == expected
    ends = with_interval(Estimate(0.5, np.nan, 1.0, 0.95, 3, 0.4))
    assert ends == {"value": 0.5, "low": None, "high": 1.0}
    assert [to_json_value(value) for value in (np.float32(0.5), xr.DataArray(np.nan), np.int64(3), "word", None)] == [
        0.5, None, 3, "word", None,
    ]  # fmt: skip
