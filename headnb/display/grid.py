"""HeadGrid: one result as a notebook output that every front end can draw without a kernel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.atomic_files import write_atomically
from headnb.display import grid_text, html, plot
from headnb.display.csv_table import csv_table
from headnb.display.encodings import for_stdout
from headnb.display.packing import pack
from headnb.display.payload import MIME_TYPE, payload
from headnb.display.payload_parser import parse_payload, read_payload
from headnb.display.role_marks import with_roles
from headnb.errors import HeadnbError
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import xarray as xr

    from headnb.display.payload_types import Payload

_Writer = Callable[["Payload", str], str | bytes]  # from a payload and a theme to the content of a file
_WRITERS: dict[str, _Writer] = {
    ".heads.json": lambda payload, _: json.dumps(payload, allow_nan=False, separators=(",", ":")) + "\n",
    ".csv": lambda payload, _: csv_table(payload),
    ".html": lambda payload, _: html.page(payload),
    ".svg": lambda payload, theme: html.standalone(payload, plot.theme_colours(theme)),
    ".png": lambda payload, theme: plot.picture(payload, "png", theme),
    ".pdf": lambda payload, theme: plot.picture(payload, "pdf", theme),
}
_PLOTTED = (".png", ".pdf")


@dataclass(frozen=True, repr=False)
class HeadGrid:
    """A head grid, drawn as a notebook cell's last value, printed in a terminal with `print`, or saved to a file.

    `payload` is plain data (see `headnb.display.payload`). Create a grid with `HeadGrid.of(pattern)`, or open a saved
    grid with `HeadGrid.open(path)`.
    """

    payload: Payload

    @classmethod
    def of(cls, data: object, *, title: str = "") -> HeadGrid:
        """Create a grid from a payload or data that `headnb.display.payload` accepts, or give a grid another title."""
        if isinstance(data, HeadGrid):
            return cls({**data.payload, "title": title}) if title else data
        if isinstance(data, dict) and "version" in data and "panels" in data:
            return cls.of(cls(parse_payload(data)), title=title)
        return cls(payload(data, title=title))

    @classmethod
    def open(cls, path: str | Path) -> HeadGrid:
        """Open a grid saved as `*.heads.json`. Raises HeadnbError if the file is not a head grid."""
        return cls(read_payload(user_path(path)))

    def with_roles(self, roles: xr.Dataset) -> HeadGrid:
        """The grid with marks on the heads that have a role, from `headnb.head_roles`.

        Raises:
            HeadnbError: `roles` are not head roles, or are of another model's heads.
        """
        return HeadGrid(with_roles(self.payload, roles))

    def save(self, path: str | Path, *, theme: str = "light") -> Path:
        """Save the grid; the suffix of the file name chooses the format.

        - `.heads.json`: the data, which `HeadGrid.open` and JupyterLab open as this grid;
        - `.csv`: a table of the values, their intervals and significance;
        - `.svg`: a picture with its statistics; `.html`: also with a hover text for every head;
        - `.png`, `.pdf`: a figure for papers, drawn by matplotlib (`pip install 'headnb[plot]'`); `.heads.plot` draws
          other sizes.

        Args:
            path: path of the new file; an existing file is replaced.
            theme: "light" or "dark", of an `.svg`, `.png` or `.pdf` file. An `.html` file follows the reader's setting.

        Raises:
            HeadnbError: the suffix or the theme is unknown, matplotlib is not installed, or the file cannot be written.
        """
        path = user_path(path)
        plot.theme_colours(theme)
        write_atomically(path, writer_for(path)(self.payload, theme))
        return path

    def save_page(self, path: str | Path) -> Path:
        """Save the interactive grid as one HTML file that needs no kernel and no network.

        Raises:
            HeadnbError: the file cannot be written, or the front end of this copy of headnb is not built.
        """
        from headnb.display.page import interactive_page  # noqa: PLC0415  reads the bundle

        path = user_path(path)
        write_atomically(path, interactive_page(self.payload))
        return path

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        return mime_bundle(self.payload, include=include, exclude=exclude)

    def __repr__(self) -> str:
        return for_stdout(grid_text.as_text(self.payload))


def mime_bundle(
    payload: Payload,
    selected: Collection[tuple[int, int]] = (),
    *,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
) -> dict[str, Any]:
    """All forms of a grid that a notebook stores; `selected` heads (row, column) are marked in the pictures."""
    forms: dict[str, Callable[[], Any]] = {
        MIME_TYPE: lambda: pack(payload),
        "text/html": lambda: html.card(payload, selected),
        "image/png": lambda: html.picture_png(payload, selected),
        "text/plain": lambda: grid_text.as_text(payload),
    }
    return {
        name: make()
        for name, make in forms.items()
        if (not include or name in include) and not (exclude and name in exclude)
    }


def writer_for(path: Path) -> _Writer:
    """The function that writes a grid in the format of this name. Raises HeadnbError for an unknown suffix."""
    for ending, make in _WRITERS.items():
        if path.name.lower().endswith(ending):
            return make
    raise HeadnbError(
        f"cannot tell the file format from the name {path.name!r}; use a name that ends in {', '.join(_WRITERS)}"
    )


def check_writable(path: Path) -> None:
    """Check that `HeadGrid.save` can write to this path; call it before a long computation.

    Raises:
        HeadnbError: the suffix is unknown, matplotlib is missing, or the folder does not exist or is not writable.
    """
    writer_for(path)
    if path.name.lower().endswith(_PLOTTED):
        plot.check_installed()
    if not path.parent.is_dir():
        raise HeadnbError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise HeadnbError(f"cannot write {path}: the folder {path.parent} is not writable")
