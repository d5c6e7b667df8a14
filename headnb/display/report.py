"""Report of a study: one HTML file that needs no network and is complete without scripts.

`ReportContents` describes a report as plain values; this module only lays out findings, sentences, tables, charts and
grids. A section shows its answer and one picture; its other content is folded. Text and tables are HTML. The page
contains each chart and grid as SVG, which is also printed, and as data, from which a script draws the interactive form
in its place. Each script is included once. A printed page contains the folded content that is open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from headnb.atomic_files import write_atomically
from headnb.display import html
from headnb.display.charts import bokeh, svg
from headnb.display.charts.chart import Chart, widen
from headnb.display.grid_text import format_number, format_with_interval
from headnb.display.html import IMAGE_INK
from headnb.display.page import grid_figure, page_script
from headnb.display.templating import render, replace_texts
from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.stats.estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.display.grid import HeadGrid

    Cell = str | int | float | Estimate | None

Verdict: TypeAlias = Literal["found", "not found", "undecided"]
FOUND: Verdict = "found"
NOT_FOUND: Verdict = "not found"
UNDECIDED: Verdict = "undecided"

ROW_WIDTH = 930  # pixels that the charts of a section fill


@dataclass(frozen=True)
class Number:
    """One measured number of a finding, and the paper's number ("" if the paper gives none)."""

    name: str
    value: Cell
    paper: str = ""


@dataclass(frozen=True)
class Finding:
    """The answer to a section's question.

    Attributes:
        verdict: "found"; "not found", if the study excludes the effect; or "undecided", if it can do neither.
        headline: the answer in one sentence, with its main number.
        reason: why the verdict is as it is; most useful for an undecided finding.
        numbers: the measured numbers.
    """

    verdict: Verdict
    headline: str
    reason: str = ""
    numbers: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of texts, numbers and estimates (shown with their intervals); None is shown as a dash."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise HeadnbError(
                    f"a row of the table {self.caption!r} has {len(row)} cells, but the table has "
                    f"{len(self.columns)} columns"
                )

    @classmethod
    def of(cls, table: pd.DataFrame, caption: str = "") -> Table:
        """The table of a data frame, with its index as the first column.

        Columns `low` and `high` are the interval of the column before them and are shown in its cells.
        """
        names = [str(name) for name in table.columns]
        values = {place for place in range(len(names)) if names[place + 1 : place + 3] == ["low", "high"]}
        shown = [place for place in range(len(names)) if not {place - 1, place - 2} & values]
        columns = (str(table.index.name or ""), *(names[place] for place in shown))
        rows = tuple(
            (str(index), *(_estimate(*row[i : i + 3]) if i in values else _value(row[i]) for i in shown))
            for index, *row in table.itertuples(name=None)  # of `to_numpy`, whole numbers beside others are floats
        )
        return cls(columns, rows, caption)


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: short title, also used in the list of contents.
        question: the question that the section answers.
        finding: the answer; the summary lists all sections that have one.
        statement: a sentence below the question, for a section without a finding.
        picture: the chart or grid that shows the answer.
        sentences, charts, tables, grids: folded, below the picture.
    """

    title: str
    question: str = ""
    finding: Finding | None = None
    statement: str = ""
    picture: Chart | HeadGrid | None = None
    sentences: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    grids: tuple[HeadGrid, ...] = ()

    @property
    def drawings(self) -> list[Chart | HeadGrid]:
        """All charts and grids of the section."""
        return [*([self.picture] if self.picture else []), *self.charts, *self.grids]


@dataclass(frozen=True)
class ReportContents:
    """A whole report.

    Attributes:
        title: heading of the report.
        sections: the sections in order.
        lead: paragraphs above the summary.
        provenance: group (versions, hardware, ...) -> name -> value.
        shown_as: text -> replacement, applied everywhere in the page.
    """

    title: str
    sections: tuple[Section, ...]
    lead: tuple[str, ...] = ()
    provenance: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    shown_as: Mapping[str, str] = field(default_factory=dict)


def _estimate(value: float, low: float, high: float) -> Cell:
    return None if math.isnan(value) else Estimate(value, low, high, level=0.95, samples=0, uncorrected=value)


def _value(value: Any) -> Cell:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def report(contents: ReportContents, out: str | Path) -> Path:
    """Write the report as one HTML file; returns its path.

    The file has 1.4 MB (BokehJS is 1.3 MB of it) plus the size of its pictures.

    Raises:
        HeadnbError: the file cannot be written, Bokeh is not installed, or the front end is not built.
    """
    out = user_path(out)
    if out.suffix not in {".html", ".htm"}:
        raise HeadnbError(f"a report is an HTML file: name it {out.name}.html, not {out.name!r}")
    write_atomically(out, page(contents))
    return out


def page(contents: ReportContents) -> str:
    """The report as HTML."""
    drawings = [drawing for section in contents.sections for drawing in section.drawings]
    has_charts = any(isinstance(drawing, Chart) for drawing in drawings)
    html_page = render(
        "report.html",
        contents=contents,
        scripts=[*(bokeh.resources().js_raw if has_charts else ()), *([page_script()] if drawings else ())],
        is_chart=lambda drawing: isinstance(drawing, Chart),
        widened=lambda chart: widen(chart, ROW_WIDTH),
        measured=_measured,
        any_measured=lambda values: any(map(_measured, values)),
        shown=_shown,
        ink=IMAGE_INK,
        picture=lambda chart, plot: svg.inline(chart, [plot]),
        figure=bokeh.as_json,
        grid_figure=lambda payload: grid_figure(payload, html.static_html(payload)),
    )
    body, end, code = html_page.partition("</main>")
    return replace_texts(body, contents.shown_as) + end + code


def _measured(value: Cell) -> bool:
    return value is not None and not isinstance(value, (str, bool))


def _shown(value: Cell) -> str:
    match value:
        case None:
            return "–"
        case Estimate():
            return value.reason or format_with_interval(value.value, value.low, value.high)
        case bool() | str() | int():
            return str(value)
    return format_number(float(value)) if math.isfinite(value) else "–"
