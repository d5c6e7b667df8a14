"""HeadGrid: one result as a notebook output that every front end can draw without a kernel."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from headnb.display import grid_text, html
from headnb.display.encodings import for_stdout
from headnb.display.payload import MIME_TYPE, payload
from headnb.display.payload_parser import parse_payload, read_payload
from headnb.display.role_marks import with_roles
from headnb.errors import HeadnbError
from headnb.hub import user_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import xarray as xr

    from headnb.display.payload_types import Payload

_WRITERS: dict[str, Callable[[Payload], str]] = {
    ".heads.json": lambda payload: json.dumps(payload, allow_nan=False, separators=(",", ":")) + "\n",
    ".svg": html.standalone,
    ".html": html.page,
}


@dataclass(frozen=True, repr=False)
class HeadGrid:
    """A head grid, drawn as a notebook cell's last value, printed in a terminal with `print`, or saved to a file.

    `payload` is plain data (see `headnb.display.payload`). Create a grid with `HeadGrid.of(pattern)`, or open a saved
    grid with `HeadGrid.open(path)`.
    """

    payload: Payload

    @classmethod
    def of(cls, data: object, *, title: str = "") -> HeadGrid:
        """Create a grid from a payload or from data that `headnb.display.payload` accepts; a grid is returned as is."""
        if isinstance(data, HeadGrid):
            return data
        if isinstance(data, dict) and "version" in data and "panels" in data:
            return cls(parse_payload(data))
        return cls(payload(data, title=title))

    @classmethod
    def open(cls, path: str | Path) -> HeadGrid:
        """Open a grid saved as `*.heads.json`. Raises HeadnbError if the file does not hold a head grid."""
        return cls(read_payload(user_path(path)))

    def with_roles(self, roles: xr.Dataset) -> HeadGrid:
        """The grid with marks on the heads that have a role, from `headnb.head_roles`.

        Raises:
            HeadnbError: `roles` are not head roles, or are of another model's heads.
        """
        return HeadGrid(with_roles(self.payload, roles))

    def save(self, path: str | Path) -> Path:
        """Save the grid as data (`.heads.json`) or as a picture (`.svg`, `.html`), by the suffix of the name."""
        path = user_path(path)
        write_atomically(path, writer_for(path)(self.payload))
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
        forms: dict[str, Callable[[], Any]] = {
            MIME_TYPE: lambda: self.payload,
            "text/html": lambda: html.card(self.payload),
            "image/svg+xml": lambda: html.standalone(self.payload, ink=html.IMAGE_INK),
            "text/plain": lambda: grid_text.as_text(self.payload),
        }
        return {
            name: make()
            for name, make in forms.items()
            if (not include or name in include) and not (exclude and name in exclude)
        }

    def __repr__(self) -> str:
        return for_stdout(grid_text.as_text(self.payload))


def writer_for(path: Path) -> Callable[[Payload], str]:
    """The function that writes a grid in the format of this name. Raises HeadnbError for an unknown suffix."""
    for ending, make in _WRITERS.items():
        if path.name.endswith(ending):
            return make
    raise HeadnbError(
        f"cannot tell the file format from the name {path.name!r}; use a name that ends in {', '.join(_WRITERS)}"
    )


def check_writable(path: Path) -> None:
    """Check that `HeadGrid.save` can write to this path; call it before a long computation.

    Raises:
        HeadnbError: the suffix is unknown, or the folder does not exist or is not writable.
    """
    writer_for(path)
    if not path.parent.is_dir():
        raise HeadnbError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise HeadnbError(f"cannot write {path}: the folder {path.parent} is not writable")


def show(data: object, *, title: str = "") -> None:
    """Draw `data` (see `HeadGrid.of`) in the notebook, or print it outside a notebook."""
    from IPython.display import display  # noqa: PLC0415  importing headnb must not load IPython

    display(HeadGrid.of(data, title=title))  # type: ignore[no-untyped-call]


def write_atomically(path: Path, content: str) -> None:
    """Write a file atomically: the name never refers to a partly written file."""
    try:
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(content)
        Path(file.name).chmod(0o666 & ~_umask())
        Path(file.name).replace(path)
    except OSError as error:
        raise HeadnbError(f"cannot write {path}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
