"""Chart: a drawing that a notebook shows, that can be saved, or drawn with Bokeh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headnb.atomic_files import write_atomically
from headnb.display.charts import bokeh, svg
from headnb.display.charts.marks import Cells, Drawing, Rule
from headnb.display.charts.svg import GAP
from headnb.display.encodings import for_stdout
from headnb.display.html import IMAGE_INK
from headnb.errors import HeadnbError
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from headnb.display.charts.marks import Plot

_MAX_GROWTH = 2.2


@dataclass(frozen=True, repr=False)
class Chart(Drawing):
    """A chart, drawn as a notebook cell's last value, saved to a file, or shown in a report.

    A notebook stores it as a picture without scripts, which every front end shows, also in an untrusted notebook;
    `interactive()` draws it with Bokeh instead.
    """

    def svg(self) -> str:
        """The chart as a standalone SVG file."""
        return svg.standalone(self, ink="#222")

    def bokeh(self) -> Any:
        """The chart as a Bokeh figure, or as a row of figures if it has several plots.

        Raises:
            HeadnbError: Bokeh is not installed.
        """
        return bokeh.layout(self)

    def interactive(self) -> None:
        """Draw the chart with Bokeh in a notebook, with zoom, pan, tooltips, and series that can be hidden.

        The first interactive chart adds BokehJS (2.5 MB) to the notebook. An untrusted notebook draws nothing. Raises
        HeadnbError if Bokeh is not installed.
        """
        bokeh.show(self)

    def save(self, path: str | Path) -> Path:
        """Save the chart as `.svg` or `.html`, by the suffix of the name; both are without scripts."""
        path = user_path(path)
        forms: dict[str, Callable[[], str]] = {".svg": self.svg, ".html": lambda: svg.page(self)}
        if path.suffix not in forms:
            raise HeadnbError(
                f"cannot tell the file format from the name {path.name!r}; use a name that ends in {', '.join(forms)}"
            )
        write_atomically(path, forms[path.suffix]())
        return path

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        forms: dict[str, Callable[[], str]] = {
            "text/html": lambda: svg.card(self),
            "image/svg+xml": lambda: svg.standalone(self, ink=IMAGE_INK),
            "text/plain": lambda: repr(self),
        }
        return {
            name: make()
            for name, make in forms.items()
            if (not include or name in include) and not (exclude and name in exclude)
        }

    def __repr__(self) -> str:
        return for_stdout("\n".join([self.title, *self.words, *self.notes]))


def widen(chart: Chart, row: int) -> Chart:
    """The chart with plots that fill a row of this many pixels, if they fit in one row.

    Plots become at most `_MAX_GROWTH` times as wide, and a little taller. Plots of cells and plots with a diagonal keep
    their size.
    """
    growing = sum(map(_may_grow, chart.plots))
    spare = row - (len(chart.plots) - 1) * GAP - sum(plot.outer_width for plot in chart.plots)
    if not growing or spare <= 0:
        return chart
    plots = (_wider(plot, spare / growing) if _may_grow(plot) else plot for plot in chart.plots)
    return replace(chart, plots=tuple(plots))


def _may_grow(plot: Plot) -> bool:
    return not any(
        isinstance(mark, Cells) or (isinstance(mark, Rule) and mark.x is None and mark.y is None) for mark in plot.marks
    )


def _wider(plot: Plot, spare: float) -> Plot:
    width = min(plot.width + spare, _MAX_GROWTH * plot.width)
    return replace(plot, width=int(width), height=round(plot.height * min(1.25, (width / plot.width) ** 0.5)))


def chart_row(*charts: Chart, title: str = "") -> Chart:
    """Combine charts into one with all their plots in a row, each with its chart's title.

    Raises:
        HeadnbError: no chart is given.
    """
    if not charts:
        raise HeadnbError("no charts given: a row of charts needs at least one")
    plots = [
        replace(plot, title=" · ".join(filter(None, (chart.title, plot.title))))
        for chart in charts
        for plot in chart.plots
    ]
    words = [" ".join(filter(None, (f"{chart.title}:", line))) for chart in charts for line in chart.words]
    notes = dict.fromkeys(note for chart in charts for note in chart.notes)
    return Chart(title or " · ".join(chart.title for chart in charts), tuple(plots), tuple(words), tuple(notes))
