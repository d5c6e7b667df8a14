"""Tables of the known tasks, models and methods, as HTML in a notebook and as text elsewhere."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass

from headnb import _background_imports
from headnb.display.encodings import for_stdout
from headnb.display.templating import render
from headnb.errors import HeadnbError


@dataclass(frozen=True, repr=False)
class NameTable:
    """Table of text whose first column has the names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    @property
    def names(self) -> list[str]:
        """The first column."""
        return [row[0] for row in self.rows]

    def _repr_html_(self) -> str:
        return render("names.html", columns=self.columns, rows=self.rows, caption=self.caption)

    def __repr__(self) -> str:
        """One line a row; a terminal cuts long lines, a pipe or file gets them whole."""
        width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else None
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = []
        for row in (self.columns, *self.rows):
            line = "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip()
            lines.append(line if width is None or len(line) <= width else f"{line[: width - 1]}…")
        return for_stdout("\n".join([*lines, *([self.caption] if self.caption else [])]))


def task_table(word: str = "") -> NameTable:
    """Registered tasks, optionally only those with `word` in a column.

    Raises:
        HeadnbError: no task has the word.
    """
    from headnb.tasks.loading import known_tasks  # noqa: PLC0415

    rows = [(name, card.group, card.description, card.origin, card.licence) for name, card in known_tasks().items()]
    found = tuple(row for row in rows if word.lower() in " ".join(row).lower())
    if not found:
        raise HeadnbError(f"no task has {word!r} in its name, group or description")
    return NameTable(("task", "group", "description", "source", "licence"), found, f"{len(found)} tasks")


def model_table(loaded: dict[str, int] | None = None) -> NameTable:
    """Known models; `loaded` maps the names of loaded models to their sizes in bytes."""
    from headnb.models.registry import known_models  # noqa: PLC0415

    sizes = loaded or {}
    known = known_models()
    names = [*known, *(name for name in sizes if name not in known)]
    rows = tuple((name, known.get(name, ""), f"{sizes[name] / 1e9:.2f} GB" if name in sizes else "") for name in names)
    return NameTable(("model", "description", "loaded"), rows, "other hub ids, folders and GGUF files work as well")


def method_table() -> NameTable:
    """Score methods."""
    _background_imports.wait()
    from headnb.scoring.registry import methods  # noqa: PLC0415  loads torch

    return NameTable(("method", "description"), tuple(methods().items()))
