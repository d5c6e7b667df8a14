"""The report of a study: one HTML file that opens without a network and still says everything where no script runs.

A report is described by plain values (`Contents`): this module knows how findings, sentences, tables, charts and
grids look, and nothing of where they come from. Text and tables are HTML. Charts and grids stand in the page as SVG,
which is what is printed, and as data, from which one copy of each script draws the interactive form in their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.display import html
from headnb.display.charts import bokeh, svg
from headnb.display.grid import write_whole
from headnb.display.html import IMAGE_INK
from headnb.display.page import embedded, page_script, source_of
from headnb.display.text import estimated, number, printable
from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.stats.estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.display.charts.chart import Chart
    from headnb.display.grid import HeadGrid

    Cell = str | int | float | Estimate | None

_STYLE = Path(__file__).with_name("report.css")
_LEAST_SCALE = 0.85  # on a narrow page a plot is made smaller only so far that its words can be read, then scrolls
_VERDICTS = {True: ("holds", "✓ holds"), False: ("fails", "✗ does not hold"), None: ("open", "? cannot be told")}


@dataclass(frozen=True)
class Number:
    """One measured number of a finding, and what the paper gives for it ("" where that is not known)."""

    name: str
    value: Cell
    paper: str = ""


@dataclass(frozen=True)
class Finding:
    """The answer to a section's question: whether it holds here (None: cannot be told), why, and the numbers."""

    holds: bool | None
    sentence: str
    numbers: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of texts, numbers and estimates (shown with their intervals); None is a dash."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

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
class Contents:
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


def report(contents: Contents, out: str | Path) -> Path:
    """Write the report as one HTML file; returns its path.

    The page is 1.4 MB and its pictures: BokehJS is 1.3 MB, once.

    Raises:
        HeadnbError: the file cannot be written, Bokeh is not installed, or the front end is not built.
    """
    out = user_path(out)
    if out.suffix not in {".html", ".htm"}:
        raise HeadnbError(f"a report is an HTML file; name it {out.name}.html, not {out.name!r}")
    write_whole(out, page(contents))
    return out


def page(contents: Contents) -> str:
    """The report as HTML."""
    style = _STYLE.read_text(encoding="utf-8")
    charts = any(section.charts for section in contents.sections)
    grids = any(section.grids for section in contents.sections)
    scripts = [*(bokeh.resources().js_raw if charts else ()), *([page_script()] if charts or grids else ())]
    allowed = " ".join(map(source_of, scripts)) or "'none'"
    # Bokeh makes style elements of its own; what styles can do is bounded, since nothing may be fetched.
    policy = f"default-src 'none';script-src {allowed};style-src 'unsafe-inline';img-src data: blob:"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{_text(contents.title)}</title><style>{style}</style>'
    )
    loaded = "".join(f"<script>{script}</script>\n" for script in scripts)
    body = "".join(_body(contents))
    for text, shown in sorted(contents.shown_as.items(), key=lambda pair: -len(pair[0])):
        for written in (escape, embedded):  # in HTML, and in data as JSON
            before, after = written(text).strip('"'), written(shown).strip('"')
            head, body = head.replace(before, after), body.replace(before, after)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}{loaded}</body></html>\n'


def _body(contents: Contents) -> Iterator[str]:
    yield f"<header><h1>{_text(contents.title)}</h1>{_paragraphs(contents.lead)}</header>\n"
    yield _contents_list(contents)
    yield "<main>\n"
    if any(section.finding for section in contents.sections):
        yield _summary(contents.sections)
    for place, section in enumerate(contents.sections, start=1):
        yield from _section(section, place)
    if contents.provenance:
        yield _provenance(contents.provenance)
    yield "</main>\n"


def _contents_list(contents: Contents) -> str:
    entries = [f'<li><a href="#section-{i}">{_text(one.title)}</a></li>' for i, one in enumerate(contents.sections, 1)]
    if any(section.finding for section in contents.sections):
        entries.insert(0, '<li><a href="#summary">Summary</a></li>')
    if contents.provenance:
        entries.append('<li><a href="#provenance">Provenance</a></li>')
    return f'<nav aria-label="Contents"><ol>{"".join(entries)}</ol></nav>\n'


def _summary(sections: Iterable[Section]) -> str:
    """Every finding with its verdict, its sentence and its numbers beside the paper's."""
    rows = []
    for place, section in enumerate(sections, start=1):
        finding = section.finding
        if finding is None:
            continue
        numbers = finding.numbers or (Number("", None),)
        span = f' rowspan="{len(numbers)}"'
        link = f'<a href="#section-{place}">{_text(section.title)}</a>'
        rows.append('<tbody class="finding">')
        for line, one in enumerate(numbers):
            first = f'<th scope="rowgroup"{span}>{link}{_verdict(finding)}</th><td{span}>{_text(finding.sentence)}</td>'
            rows.append(
                f"<tr>{first if line == 0 else ''}<td>{_text(one.name)}</td>{_cell(one.value)}"
                f"<td>{_text(one.paper) or '–'}</td></tr>"
            )
        rows.append("</tbody>")
    titles = "".join(f'<th scope="col">{name}</th>' for name in ("Finding", "Here", "Number", "Measured", "Paper"))
    return (
        f'<section id="summary"><h2>Summary</h2><div class="wide"><table class="summary"><thead><tr>{titles}</tr>'
        f"</thead>{''.join(rows)}</table></div></section>\n"
    )


def _section(section: Section, place: int) -> Iterator[str]:
    yield f'<section id="section-{place}"><h2>{_text(section.title)}</h2>'
    if section.question:
        yield f'<p class="question">{_text(section.question)}</p>'
    if section.finding:
        yield f'<p class="answer">{_verdict(section.finding)} {_text(section.finding.sentence)}</p>'
    yield _paragraphs(section.sentences)
    yield from map(_chart, section.charts)
    yield from map(_table, section.tables)
    yield from map(_grid, section.grids)
    yield "</section>\n"


def _chart(chart: Chart) -> str:
    """A chart's plots, each as a picture and as data: they wrap one by one where the page is narrow."""
    plots = []
    for plot in chart.plots:
        figure, width = embedded(bokeh.as_json(plot)), plot.outer_width
        least = width if plot.written else round(_LEAST_SCALE * width)
        plots.append(
            f'<div class="plot" style="width:{width}px;min-width:{least}px">'
            f'<div class="still">{svg.inline(chart, [plot])}</div><div class="live"></div>'
            f'<script type="application/json" data-shows="chart" data-ink="{IMAGE_INK}">{figure}</script></div>'
        )
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in chart.notes)
    title = f"<figcaption>{_text(chart.title)}</figcaption>"
    return f'<figure>{title}<div class="plots">{"".join(plots)}</div>{notes}</figure>\n'


def _grid(grid: HeadGrid) -> str:
    payload = grid.payload
    return (
        f'<figure><div class="grid"><div class="still">{html.static(payload)}</div><div class="live"></div>'
        f'<script type="application/json" data-shows="grid">{embedded(payload)}</script></div></figure>\n'
    )


def _table(table: Table) -> str:
    for row in table.rows:
        if len(row) != len(table.columns):
            raise HeadnbError(
                f"a row of the table {table.caption!r} has {len(row)} cells for {len(table.columns)} columns"
            )
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.columns)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>\n'


def _provenance(groups: Mapping[str, Mapping[str, object]]) -> str:
    parts = []
    for group, facts in groups.items():
        rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(str(value))}</dd>" for name, value in facts.items())
        parts.append(f"<div><h3>{_text(group)}</h3><dl>{rows}</dl></div>")
    return f'<section id="provenance"><h2>Provenance</h2><div class="facts">{"".join(parts)}</div></section>\n'


def _verdict(finding: Finding) -> str:
    name, words = _VERDICTS[finding.holds]
    return f'<span class="verdict {name}">{words}</span>'


def _cell(value: Cell) -> str:
    match value:
        case None:
            return "<td>–</td>"
        case Estimate():
            return f'<td class="number">{_text(value.reason or estimated(value.value, value.low, value.high))}</td>'
        case bool() | str():
            return f"<td>{_text(str(value))}</td>"
        case int():
            return f'<td class="number">{value}</td>'
    return f'<td class="number">{number(float(value)) if math.isfinite(value) else "–"}</td>'


def _paragraphs(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{_text(sentence)}</p>" for sentence in sentences)


def _text(words: str) -> str:
    return escape(printable(words))
