"""A chart to be looked at: shown in a notebook, saved, or drawn with Bokeh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headnb.display.charts import bokeh, svg
from headnb.display.charts.marks import Drawing
from headnb.display.grid import write_atomically
from headnb.display.html import IMAGE_INK
from headnb.errors import HeadnbError
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path


@dataclass(frozen=True, repr=False)
class Chart(Drawing):
    """A chart to be looked at: in a notebook as a cell's last value, saved, or in a report.

    What a notebook stores is a picture without script, which every front end shows, also years later and in an
    untrusted notebook; `interactive()` draws it with Bokeh instead.
    """

    def svg(self) -> str:
        """The chart as a standalone SVG file."""
        return svg.standalone(self, ink="#222")

    def bokeh(self) -> Any:
        """The chart as a Bokeh figure, or a row of figures where it has several plots.

        Raises:
            HeadnbError: Bokeh is not installed.
        """
        return bokeh.layout(self)

    def interactive(self) -> None:
        """Draw the chart with Bokeh in a notebook: zoom, pan, names under the mouse, series that can be hidden.

        BokehJS goes into the notebook once, with the first interactive chart (2.5 MB). Nothing is drawn in an
        untrusted notebook. Raises HeadnbError where Bokeh is not installed.
        """
        bokeh.show(self)

    def save(self, path: str | Path) -> Path:
        """Write the chart in the form that the name ends on: `.svg` or `.html`, both without script."""
        path = user_path(path)
        forms: dict[str, Callable[[], str]] = {".svg": self.svg, ".html": lambda: svg.page(self)}
        if path.suffix not in forms:
            raise HeadnbError(f"cannot tell the form from the name {path.name!r}; it ends on {', '.join(forms)}")
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
        return "\n".join([self.title, *self.words, *self.notes])


def chart_row(*charts: Chart, title: str = "") -> Chart:
    """Several charts as one: their plots beside each other, each under its chart's title.

    Raises:
        HeadnbError: there is no chart.
    """
    if not charts:
        raise HeadnbError("no charts to put beside each other")
    plots = [
        replace(plot, title=" · ".join(filter(None, (chart.title, plot.title))))
        for chart in charts
        for plot in chart.plots
    ]
    words = [" ".join(filter(None, (f"{chart.title}:", line))) for chart in charts for line in chart.words]
    notes = dict.fromkeys(note for chart in charts for note in chart.notes)
    return Chart(title or " · ".join(chart.title for chart in charts), tuple(plots), tuple(words), tuple(notes))
