"""Task files: JSON Lines, JSON, CSV and Parquet, also compressed by gzip.

The ending of the name says the format, and the first bytes are checked against it. Files may be hostile: the size of a
line, of unpacked bytes and of a table, and the number of rows are limited.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import re
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

from headnb.errors import HeadnbError, first_line, one_line
from headnb.tasks.file_kinds import JSON, PARQUET, TEXT, file_kind
from headnb.tasks.row_values import parse_json
from headnb.tasks.rows import Rows
from headnb.tasks.tables import TableRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

LINE_LIMIT = 10_000_000  # bytes; a longer line indicates a broken file
SIZE_LIMIT = 1_000_000_000  # bytes, after decompression, of a file that is read as a whole
ROW_LIMIT = 20_000_000
_BATCH_ROWS = 1024  # rows of a Parquet file between two checks of its size
# A cell that begins with a quote; "end" is its last quote, before the next separator.
_QUOTED_CELL = re.compile(rb'(?<![^\t\r\n])"(?P<text>[^"]*+(?:""[^"]*+)*+)(?P<end>"(?![^\t\r\n]))?')
_GZIP = b"\x1f\x8b"
CONCATENATION, UNION = "+", "_or_"  # between the names of the tasks that a combined task consists of

Content: TypeAlias = tuple["Sequence[object]", "Sequence[int]"]
"""The rows of a file, and their line numbers if there are any."""


def read_file(path: Path) -> Rows:
    """The rows of a task file; the ending of its name says the format, and JSON Lines is the default.

    Raises:
        HeadnbError: no such file, a file of another kind, one over the limits, or one that is damaged.
    """
    ending = task_ending(path.name)
    name = path.name[: -len(ending)] if ending else path.stem
    format_ = ending.lower().removesuffix(".gz") or ".jsonl"
    try:
        with path.open("rb") as packed, _unpacked(packed, path) as file:
            _check_kind(file, path, format_)
            rows, lines = _READERS[format_](file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise HeadnbError(f"{path} is damaged: it cannot be decompressed ({first_line(error)})") from error
    except OSError as error:
        raise HeadnbError(f"cannot read {path}: {error.strerror or one_line(error)}") from error
    if not len(rows):
        raise HeadnbError(f"{path} has no samples: the file has no rows")
    if isinstance(rows, TableRows):
        return Rows(name, str(path), rows, range(len(rows)), form="arrow", narrow=rows.narrow)
    return Rows(name, str(path), rows, range(len(rows)), lines)


def task_ending(name: str) -> str:
    """The ending of a task file's name, such as ".csv" or ".jsonl.gz"; empty if it has another ending."""
    endings = [f"{ending}{gz}" for ending in _READERS for gz in ("", ".gz")]
    return next((name[-len(ending) :] for ending in endings if name.lower().endswith(ending)), "")


def task_parts(task: str) -> tuple[str, ...]:
    """The tasks that a combined task such as "gsm8k+mbpp" or "gsm8k_or_mbpp" consists of; else the task itself."""
    return (task,) if task_ending(task) else tuple(task.replace(UNION, CONCATENATION).split(CONCATENATION))


class _Limited(io.RawIOBase):
    """The unpacked bytes of a file, up to `SIZE_LIMIT`."""

    def __init__(self, unpacked: gzip.GzipFile, path: Path) -> None:
        self._unpacked, self._path, self._left = unpacked, path, SIZE_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._unpacked.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise HeadnbError(f"{self._path} has more than {_SIZE_LIMIT} after decompression; convert it to Parquet")
        return count


@contextlib.contextmanager
def _unpacked(file: io.BufferedReader, path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, decompressed if it is a gzip archive."""
    if not file.peek(2).startswith(_GZIP):
        yield file
        return
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield io.BufferedReader(_Limited(unpacked, path))


def _check_kind(file: io.BufferedReader, path: Path, ending: str) -> None:
    """Raise HeadnbError if the first bytes are not those of the format."""
    head = file.peek(512)
    if not head:
        raise HeadnbError(f"{path} has no samples: the file is empty")
    kind = file_kind(head)
    if kind == TEXT and ending in {".json", ".jsonl"} and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"", b"{", b"["}:
        kind = JSON  # perhaps with a mistake, which its line shows
    allowed = {".parquet": PARQUET, ".csv": TEXT, ".tsv": TEXT}.get(ending, JSON)
    if kind == allowed:
        return
    start = f": it begins with {head[:40].decode(errors='replace')!r}" if kind == TEXT else ""
    advice = {PARQUET: "; name it .parquet", JSON: "; name it .json"}.get(kind, "")
    raise HeadnbError(f"{path} is {kind}, not {_NAMES[ending]}{start}{advice}")


def _read_json(file: io.BufferedReader, path: Path) -> Content:
    """A JSON array of rows, or JSON Lines."""
    first = file.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first != b"[":
        return _read_lines(file, path)
    content = file.read(SIZE_LIMIT + 1)
    if len(content) > SIZE_LIMIT:
        raise HeadnbError(f"{path} is a JSON array of more than {_SIZE_LIMIT}; convert it to JSON Lines or Parquet")
    rows = parse_json(_decoded(content, str(path)), str(path))
    return rows, ()


def _read_lines(file: io.BufferedReader, path: Path) -> Content:
    """The objects of JSON Lines; empty lines are skipped."""
    rows: list[object] = []
    lines: list[int] = []
    for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
        if len(line) > LINE_LIMIT:
            raise HeadnbError(f"{path} line {number} is longer than {LINE_LIMIT // 10**6} MB")
        if line.strip():
            rows.append(_parse_line(line, f"{path} line {number}"))
            lines.append(number)
            _check_count(len(rows), path)
    return rows, lines


def _parse_line(line: bytes, where: str) -> object:
    if line.strip() == b"{":
        raise HeadnbError(
            f"{where} starts an object that spans several lines; write one object per line, or a JSON array"
        )
    row = parse_json(_decoded(line, where), where)
    if not isinstance(row, dict):
        raise HeadnbError(f"{where} is a JSON {type(row).__name__}, not an object; JSON Lines has one object per line")
    return row


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HeadnbError(f"{where} is not UTF-8 text") from error


def _read_csv(file: Any, path: Path, separator: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> Content:
    """The rows of a CSV file as dicts of text: values such as 007 and NA stay as they are."""
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        # Without header=None, pandas renames columns of the same name, and drops values beyond the last column.
        frame = pd.read_csv(
            file,
            sep=separator,
            quoting=quoting,
            header=None,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            nrows=ROW_LIMIT + 2,
        )
    except pd.errors.EmptyDataError:
        return [], ()
    except UnicodeDecodeError as error:
        raise HeadnbError(f"{path} is not UTF-8 text; save it as CSV UTF-8") from error
    except pd.errors.ParserError as error:
        reason = first_line(error).removeprefix("Error tokenizing data. C error: ")
        raise HeadnbError(f"{path} is not valid CSV: {reason}") from error
    _check_count(len(frame) - 1, path)  # the first row has the names
    names = frame.iloc[0].tolist()
    if twice := {name for name in names if names.count(name) > 1}:
        raise HeadnbError(f"{path} has two columns with the name {min(twice)!r:.60}")
    return [dict(zip(names, row, strict=True)) for row in frame.iloc[1:].itertuples(index=False, name=None)], ()


def _read_tsv(file: io.BufferedReader, path: Path) -> Content:
    """The rows of a TSV file; a quote is a character unless every cell that begins with a quote also ends with one."""
    content = file.read().removeprefix(codecs.BOM_UTF8)
    if not all(cell["end"] for cell in _QUOTED_CELL.finditer(content)):
        return _read_csv(io.BytesIO(content), path, "\t", csv.QUOTE_NONE)
    if with_tab := next((cell for cell in _QUOTED_CELL.finditer(content) if b"\t" in cell["text"]), None):
        line = content.count(b"\n", 0, with_tab.start()) + 1
        raise HeadnbError(
            f"{path} line {line}: a tab between quotes may be text or a separator; save the file as CSV or JSON Lines"
        )
    return _read_csv(io.BytesIO(content), path, "\t")


def _read_parquet(file: io.BufferedReader, path: Path) -> Content:
    """The rows of a Parquet file, in batches: the sizes that it declares may be wrong."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    if not file.seekable():
        raise HeadnbError(f"{path} is compressed with gzip; decompress it: Parquet files have their own compression")
    try:
        with pq.ParquetFile(file) as parquet:
            _check_count(parquet.metadata.num_rows, path)
            batches, size = [], 0
            for batch in parquet.iter_batches(_BATCH_ROWS):
                batches.append(batch)
                size += batch.nbytes
                if size > SIZE_LIMIT:
                    raise HeadnbError(
                        f"{path} is a table of more than {_SIZE_LIMIT}; give a part of it, or the data set "
                        "datasets.Dataset.from_parquet(...), which stays on the disk"
                    )
            table = pa.Table.from_batches(batches, parquet.schema_arrow).combine_chunks()
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise HeadnbError(f"{path} is not a valid Parquet file: {first_line(error)}") from error
    return TableRows(table, str(path)), ()


def _check_count(count: int, path: Path) -> None:
    if count > ROW_LIMIT:
        raise HeadnbError(f"{path} has more than {ROW_LIMIT // 10**6} million rows; give a part of it")


_SIZE_LIMIT = f"{SIZE_LIMIT // 10**9} GB"
_NAMES = {".jsonl": "JSON Lines", ".json": "JSON", ".csv": "CSV", ".tsv": "TSV", ".parquet": PARQUET}
_READERS: dict[str, Callable[[Any, Path], Content]] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
