"""Figure that a notebook shows without pyplot; imported only where matplotlib is installed."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

_DPI = 200
_CSS_PIXELS = 96  # per inch


class NotebookFigure(Figure):
    """Figure whose notebook output is a PNG in its print size; `%matplotlib inline` takes precedence."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=_DPI)
        return file.getvalue(), {"width": round(_CSS_PIXELS * self.get_figwidth())}
