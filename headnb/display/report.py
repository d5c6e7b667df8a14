"""The report of a study: one HTML file that opens without a network and still says everything where no script runs.

A report is described by plain values (`ReportContents`): this module knows how findings, sentences, tables, charts and
grids look, and nothing of where they come from. Text and tables are HTML. Charts and grids stand in the page as SVG,
which is what is printed, and as data, from which one copy of each script draws the interactive form in their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headnb.display import html
from headnb.display.charts import bokeh, svg
from headnb.display.grid import write_atomically
from headnb.display.grid_text import format_number, format_with_interval
from headnb.display.html import IMAGE_INK
from headnb.display.page import page_script
from headnb.display.templating import render
from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.stats.estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.display.charts.chart import Chart
    from headnb.display.grid import HeadGrid

    Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Number:
    """One measured number of a finding, and what the paper gives for it ("" where that is not known)."""

    name: str
    value: Cell
    paper: str = ""


@dataclass(frozen=True)
class Finding:
    """The answer to a section's question: whether it holds here (None: cannot be told), why, and the numbers."""

    supported: bool | None
    sentence: str
    numbers: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of texts, numbers and estimates (shown with their intervals); None is a dash."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise HeadnbError(
                    f"a row of the table {self.caption!r} has {len(row)} cells for {len(self.columns)} columns"
                )

    @classmethod
    def of(cls, table: pd.DataFrame, caption: str = "") -> Table:
        """A data frame, its index first."""
        columns = (str(table.index.name or ""), *map(str, table.columns))
        rows = tuple((str(index), *map(_value, row)) for index, row in zip(table.index, table.to_numpy(), strict=True))
        return cls(columns, rows, caption)


@dataclass(frozen=True)
class Section:
    """One question and what answers it, in the order in which it is shown.

    Attributes:
        title: short, for the list of contents.
        question: what is asked.
        finding: the answer; sections with one are listed in the summary.
        sentences: paragraphs, computed from the results.
        charts, tables, grids: below each other.
    """

    title: str
    question: str = ""
    finding: Finding | None = None
    sentences: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    grids: tuple[HeadGrid, ...] = ()


@dataclass(frozen=True)
class ReportContents:
    """A whole report.

    Attributes:
        title: what was studied.
        sections: in order.
        lead: paragraphs above everything else.
        provenance: group (versions, hardware, ...) -> name -> value.
        shown_as: text -> what the page has in its place, wherever it stands.
    """

    title: str
    sections: tuple[Section, ...]
    lead: tuple[str, ...] = ()
    provenance: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    shown_as: Mapping[str, str] = field(default_factory=dict)


def _value(value: Any) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if hasattr(value, "item"):
        value = value.item()
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def report(contents: ReportContents, out: str | Path) -> Path:
    """Write the report as one HTML file; returns its path.

    The page is 1.4 MB and its pictures: BokehJS is 1.3 MB, once.

    Raises:
        HeadnbError: the file cannot be written, Bokeh is not installed, or the front end is not built.
    """
    out = user_path(out)
    if out.suffix not in {".html", ".htm"}:
        raise HeadnbError(f"a report is an HTML file; name it {out.name}.html, not {out.name!r}")
    write_atomically(out, page(contents))
    return out


def page(contents: ReportContents) -> str:
    """The report as HTML."""
    charts = any(section.charts for section in contents.sections)
    grids = any(section.grids for section in contents.sections)
    from jinja2.utils import htmlsafe_json_dumps  # noqa: PLC0415  importing headnb stays quick
    from markupsafe import escape  # noqa: PLC0415

    html_page = render(
        "report.html",
        contents=contents,
        scripts=[*(bokeh.resources().js_raw if charts else ()), *([page_script()] if charts or grids else ())],
        measured=lambda value: value is not None and not isinstance(value, (str, bool)),
        shown=_shown,
        ink=IMAGE_INK,
        picture=lambda chart, plot: svg.inline(chart, [plot]),
        figure=bokeh.as_json,
        still=html.static_html,
    )
    body, end, code = html_page.partition("</main>")
    for text, shown in sorted(contents.shown_as.items(), key=lambda pair: -len(pair[0])):
        for written in (escape, htmlsafe_json_dumps):  # in HTML, and in data as JSON
            body = body.replace(str(written(text)).strip('"'), str(written(shown)).strip('"'))
    return body + end + code


def _shown(value: Cell) -> str:
    match value:
        case None:
            return "–"
        case Estimate():
            return value.reason or format_with_interval(value.value, value.low, value.high)
        case bool() | str() | int():
            return str(value)
    return format_number(float(value)) if math.isfinite(value) else "–"
