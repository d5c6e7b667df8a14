"""Tables in memory: pandas and polars frames, Arrow tables, and other objects with Arrow's stream interface.

polars is not imported: its frames offer the same interface as those of pyarrow and DuckDB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, one_line
from headnb.tasks.row_values import type_name
from headnb.tasks.rows import Rows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


_BLOCK = 64  # rows that are converted together, which is faster


class TableRows(Sequence[Any]):
    """Rows of an Arrow table as dicts, converted when they are read; the values of a column by its name.

    Attributes:
        column_names: names of the columns.
        narrow: as in `Rows`.
    """

    def __init__(self, table: pa.Table, where: str) -> None:
        self._table = table
        self.narrow = narrow_floats(table.schema)
        self._start, self._block = 0, table.slice(0, _BLOCK).to_pylist()
        self.column_names: list[str] = table.column_names
        if twice := {name for name in self.column_names if self.column_names.count(name) > 1}:
            raise HeadnbError(f"{where} has two columns with the name {min(twice)!r:.60}")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self._table[index].to_pylist()
        start = index - index % _BLOCK
        if start != self._start:
            self._start, self._block = start, self._table.slice(start, _BLOCK).to_pylist()
        return self._block[index - start]


def narrow_floats(schema: pa.Schema) -> dict[str, type[np.floating[Any]]]:
    """NumPy type of each column of 16- or 32-bit floats."""
    import numpy as np  # noqa: PLC0415
    from pyarrow import types  # noqa: PLC0415

    return {
        field.name: getattr(np, f"float{field.type.bit_width}")
        for field in schema
        if types.is_float16(field.type) or types.is_float32(field.type)
    }


def is_table(value: object) -> bool:
    """Whether a value has Arrow's stream interface: frames of pandas and polars, tables of pyarrow and DuckDB."""
    return hasattr(value, "__arrow_c_stream__") and not isinstance(value, type)


def table_rows(source: Any) -> Rows:
    """The rows of a table. A named index of a pandas frame is a column; other indices are ignored.

    Raises:
        HeadnbError: `source` has no columns with names (a series), or Arrow has no type for the values of a column.
    """
    import pyarrow as pa  # noqa: PLC0415

    library = type(source).__module__.partition(".")[0]
    title = f"{library} {type(source).__name__}"
    try:
        table = _from_pandas(source) if library == "pandas" else pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = one_line("; ".join(map(str, error.args)))
        raise HeadnbError(
            f"cannot read {type_name(source)} as an Arrow table (one type per column): {reason}"
        ) from error
    rows = TableRows(table, f"the {title}")
    return Rows("table", f"{title} in memory", rows, range(len(rows)), form="arrow", narrow=rows.narrow)


def _from_pandas(source: Any) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    if not hasattr(source, "columns"):
        raise TypeError("it has no columns")
    named = [name for name in source.index.names if name is not None and name not in source.columns]
    frame = source.reset_index(level=named) if named else source
    return pa.Table.from_pandas(frame, preserve_index=False)
