"""Numbered rows of a source, with their ids, before samples are selected."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, one_line
from headnb.tasks.samples import as_mapping, as_named_row, read_field, read_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headnb.tasks.registry import Template
    from headnb.tasks.samples import Id


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a source, before samples are selected.

    Attributes:
        name: name of the task, unless the user gives one.
        source: origin of the rows, a text for display.
        rows: rows in any form that `samples.read_row` or the template accepts.
        ids: one id per row.
        lines: line number of each row in its file, from 1; empty without such numbers.
        template: makes prompt and completion of a row; None if the rows have them.
        form: "arrow" for tables and data sets, in which missing nested fields are None; "custom" for a data set with
            the user's own transform; else empty.
        narrow: NumPy type of the columns with numbers of less than 64 bits: Arrow gives 0.1 as 0.10000000149011612.
        streamed: whether the rows are the first ones of a stream; then samples are taken in order.
    """

    name: str
    source: str
    rows: Sequence[object]
    ids: Sequence[Id]
    lines: Sequence[int] = ()
    template: Template | None = None
    form: str = ""
    narrow: Mapping[str, Callable[[float], object]] = dataclasses.field(default_factory=dict)
    streamed: bool = False

    def row(self, index: int) -> object:
        """One row.

        Raises:
            HeadnbError: the data set's own transform fails.
        """
        if self.form == "arrow":
            row = _without_none(self.rows[index])
            for name in self.narrow.keys() & row.keys():
                row[name] = self._unwidened(name, row[name])
            return row
        if self.form != "custom":
            return self.rows[index]
        try:
            return self.rows[index]
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise HeadnbError(f"{self.where(index)}: the data set's own transform fails ({reason})") from error

    def column(self, name: str) -> list[Any] | None:
        """The values of one column of a table or a data set; the other columns are not read. None for other rows."""
        if self.form != "arrow" or name not in getattr(self.rows, "column_names", ()):
            return None
        table: Any = self.rows
        return [self._unwidened(name, value) for value in table[name][:]]

    def _unwidened(self, name: str, value: Any) -> Any:
        """A value of a column, with the digits of its own type."""
        return value if value is None or name not in self.narrow else float(str(self.narrow[name](value)))

    def where(self, index: int) -> str:
        """The name of a row in errors."""
        if self.lines:
            return f"{self.source} line {self.lines[index]}"
        return f"{self.name}: sample {self.ids[index]!r}"


def with_ids(rows: Rows, fields: Mapping[str, str] | None) -> Rows:
    """Set the ids of rows from the column or template `fields["id"]`, or else from the column `id`.

    Without such a column the rows keep their numbers as ids.

    Raises:
        HeadnbError: some rows have an id and some do not, or the ids are invalid (`samples.read_ids`).
    """
    column = (fields or {}).get("id")
    count = len(rows.rows)
    ids = rows.column(column or "id")
    if ids is None and column is not None:
        ids = [read_field(as_named_row(rows.row(i), rows.where(i)), "id", column, rows.where(i)) for i in range(count)]
    elif ids is None and _may_have_ids(rows):
        ids = [(as_mapping(rows.row(i)) or {}).get("id") for i in range(count)]
    if ids is None:
        return rows  # avoids reading a whole data set
    if column is None:
        without = [i for i, key in enumerate(ids) if key is None]
        if len(without) == len(ids):
            return rows
        if without:
            raise HeadnbError(f"{rows.where(without[0])} has no id, while other rows have one")
    return dataclasses.replace(rows, ids=read_ids(ids, rows.source))


def _may_have_ids(rows: Rows) -> bool:
    if rows.form == "custom":  # only a row shows the columns that the transform makes
        return len(rows.rows) > 0 and "id" in (as_mapping(rows.row(0)) or {})
    return "id" in getattr(rows.rows, "column_names", ["id"])


def _without_none(value: Any, *, of_row: bool = True) -> Any:
    """A row without the nested None fields that Arrow adds: it gives all messages of a data set the same fields."""
    if isinstance(value, dict):
        fields = {name: field for name, field in value.items() if of_row or field is not None or name == "content"}
        return {name: _without_none(field, of_row=False) for name, field in fields.items()}
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        return [_without_none(part, of_row=False) for part in value]
    return value
