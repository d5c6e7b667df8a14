"""A small table of names and what they mean, as HTML in a notebook and as text elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from html import escape

_CELL = "text-align:left;padding:1px 14px 1px 0;vertical-align:top"


@dataclass(frozen=True, repr=False)
class NameTable:
    """Rows of text; the first column holds the names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    @property
    def names(self) -> list[str]:
        """The first column."""
        return [row[0] for row in self.rows]

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="{_CELL}">{escape(column)}</th>' for column in self.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="{_CELL}">{f"<code>{escape(cell)}</code>" if place == 0 else escape(cell)}</td>'
                for place, cell in enumerate(row)
            )
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<div style="max-height:420px;overflow:auto"><table style="border-collapse:collapse;font-size:13px">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
            + (f"<div>{escape(self.caption)}</div>" if self.caption else "")
        )

    def __repr__(self) -> str:
        width = shutil.get_terminal_size((120, 24)).columns
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = []
        for row in (self.columns, *self.rows):
            line = "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip()
            lines.append(line if len(line) <= width else f"{line[: width - 1]}…")
        return "\n".join([*lines, *([self.caption] if self.caption else [])])
