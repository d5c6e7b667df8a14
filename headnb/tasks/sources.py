"""Sources of samples as numbered rows: files, the hub, reasoning-gym, and data in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb import hub
from headnb.errors import HeadnbError, first_line, one_line, unknown_name
from headnb.tasks import procedural, registry
from headnb.tasks.row_values import parse_json, type_name
from headnb.tasks.samples import as_mapping, as_named_row, read_field, read_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headnb.tasks.registry import TaskCard, Template
    from headnb.tasks.samples import Id

DATA_FOLDER = "HEADNB_DATA"
LINE_LIMIT = 10_000_000  # bytes; a longer line indicates a broken file
PROCEDURAL_SAMPLES = 64  # default number, because a procedural task has no end
STREAMED_ROWS = 20_000  # first rows of a large data set, from which samples are taken


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a source, before samples are selected.

    Attributes:
        name: name of the task, unless the user gives one.
        source: origin of the rows, a text for display.
        rows: rows in any form that `samples.read_row` or the template accepts.
        ids: one id per row.
        lines: line number of each row in its file, from 1; empty without a file.
        template: makes prompt and completion of a row; None if the rows have them.
        form: "arrow" for a data set, in which missing nested fields are None; "custom" for a data set with the user's
            own transform; else empty.
    """

    name: str
    source: str
    rows: Sequence[object]
    ids: Sequence[Id]
    lines: Sequence[int] = ()
    template: Template | None = None
    form: str = ""

    def row(self, index: int) -> object:
        """One row.

        Raises:
            HeadnbError: the data set's own transform fails.
        """
        if self.form == "arrow":
            return _without_none(self.rows[index])
        if self.form != "custom":
            return self.rows[index]
        try:
            return self.rows[index]
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise HeadnbError(f"{self.where(index)}: the data set's own transform fails ({reason})") from error

    def where(self, index: int) -> str:
        """The name of a row in errors."""
        if self.lines:
            return f"{self.source} line {self.lines[index]}"
        return f"{self.name}: sample {self.ids[index]!r}"


def find_rows(source: object, split: str, n: int | None, seed: int, fields: Mapping[str, str] | None) -> Rows:
    """The rows of any source that `load_task` accepts, except a Task."""
    if isinstance(source, (str, Path)):
        return _rows_by_name(str(source), split, n, seed, fields)
    if type(source).__module__.partition(".")[0] == "datasets":
        return _dataset(source, split, fields)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return with_ids(Rows("samples", "samples in memory", source, range(len(source))), fields)
    raise HeadnbError(
        f"cannot load a task from {type_name(source)}; give the name of a task, a JSONL file, a data set,"
        " or a list of (prompt, completion) pairs"
    )


def _rows_by_name(source: str, split: str, n: int | None, seed: int, fields: Mapping[str, str] | None) -> Rows:
    path = hub.user_path(source)
    if path.suffix in {".jsonl", ".json"} or path.is_file():
        return with_ids(read_jsonl(path), fields)
    folder = os.environ.get(DATA_FOLDER)
    in_folder = hub.user_path(Path(folder) / f"{source}.{split}.jsonl") if folder and "/" not in source else None
    if in_folder is not None and in_folder.is_file():
        return dataclasses.replace(with_ids(read_jsonl(in_folder), fields), name=source)
    if path.is_dir():
        return with_ids(_from_hub(str(path), path.name, split), fields)
    if source in registry.CARDS:
        try:
            rows = _from_card(source, registry.CARDS[source], split, n)
        except HeadnbError as error:
            if in_folder is None:
                raise
            raise HeadnbError(f"{error}; {DATA_FOLDER} has no {in_folder.name} either") from error
        return rows if fields is None else with_ids(dataclasses.replace(rows, template=None), fields)
    if "/" in source or fields is not None:
        return with_ids(_from_hub(source, source, split), fields)
    generated = procedural.procedural_cards()
    if source in generated:
        return _procedural(source, split, n or PROCEDURAL_SAMPLES, seed)
    raise unknown_name("task", source, [*registry.CARDS, *generated])


def read_jsonl(path: Path) -> Rows:
    """The objects of a JSON Lines file; empty lines are skipped.

    Raises:
        HeadnbError: no such file, or a line that is not UTF-8, not JSON, not an object, or over 10 MB.
    """
    rows: list[object] = []
    lines: list[int] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
                if len(line) > LINE_LIMIT:
                    raise HeadnbError(f"{path} line {number} is longer than {LINE_LIMIT // 10**6} MB")
                if line.strip():
                    rows.append(_parse_line(line, f"{path} line {number}"))
                    lines.append(number)
    except OSError as error:
        raise HeadnbError(f"cannot read {path}: {error.strerror or error}") from error
    if not rows:
        raise HeadnbError(f"{path} has no samples: the file is empty")
    return Rows(path.stem, str(path), rows, range(len(rows)), lines)


def _parse_line(line: bytes, where: str) -> object:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HeadnbError(f"{where} is not UTF-8 text") from error
    row = parse_json(text, where)
    if not isinstance(row, dict):
        raise HeadnbError(f"{where} is a JSON {type(row).__name__}, not an object; JSON Lines has one object per line")
    return row


def with_ids(rows: Rows, fields: Mapping[str, str] | None) -> Rows:
    """Set the ids of rows from the column or template `fields["id"]`, or else from the column `id`.

    Without such a column the rows keep their numbers as ids.

    Raises:
        HeadnbError: some rows have an id and some do not, or the ids are invalid (`samples.read_ids`).
    """
    column = (fields or {}).get("id")
    count = len(rows.rows)
    if column is not None:
        ids = [read_field(as_named_row(rows.row(i), rows.where(i)), "id", column, rows.where(i)) for i in range(count)]
    elif not _may_have_ids(rows):
        return rows  # avoids reading a whole data set
    else:
        ids = [(as_mapping(rows.row(i)) or {}).get("id") for i in range(count)]
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


def _dataset(source: Any, split: str, fields: Mapping[str, str] | None) -> Rows:
    """Rows of a `datasets.Dataset`, or of one split of a `DatasetDict`."""
    if isinstance(source, Mapping):
        if split not in source:
            raise HeadnbError(f"the data set has no split {split!r}; it has {', '.join(map(repr, source))}")
        source = source[split]
    if not hasattr(source, "__len__"):
        raise HeadnbError("a streamed data set has no length; pass a list of rows: list(dataset.take(1000))")
    format_ = source.format
    form = "custom" if format_["type"] == "custom" else "arrow"
    if form == "arrow":  # plain Python values of the columns that the user selected
        source = source.with_format(None, None if format_["output_all_columns"] else format_["columns"])
    name = source.info.dataset_name or "dataset"
    return with_ids(Rows(name, f"data set {name}", source, range(len(source)), form=form), fields)


def _from_hub(source: str, name: str, split: str) -> Rows:
    rows = _load_dataset(source, split=split)
    return Rows(name, f"{source} ({split})", rows, range(len(rows)), form="arrow")


def _from_card(name: str, card: TaskCard, split: str, n: int | None) -> Rows:
    """Rows of a registered task, with their row numbers in the data set as ids."""
    source_split = card.source_split(split)
    if source_split is None:
        raise HeadnbError(
            f"task {name!r} has no split {split!r}; it has {', '.join(dict.fromkeys((*card.splits, 'test')))}"
        )
    if card.url is None:
        stream = card.large and n is not None
        rows = _load_dataset(card.origin, name=card.config, split=source_split, stream=stream)
    else:
        rows = read_jsonl(hub.download(card.url)).rows
    ids: Sequence[int] = range(len(rows))
    if card.held_out and split in {"train", "test"}:
        ids = [i for i in ids if (i % 10 == 9) == (split == "test")]
        rows = [rows[i] for i in ids]
    return Rows(name, f"{card.origin} ({split})", rows, ids, template=card.template)


def _load_dataset(path: str, *, stream: bool = False, **arguments: Any) -> Sequence[object]:
    """`datasets.load_dataset`; every failure becomes a one-line HeadnbError."""
    try:
        import datasets  # noqa: PLC0415  slow to import
    except ImportError as error:
        raise HeadnbError(
            f"the package datasets cannot be imported ({first_line(error)}): pip install datasets"
        ) from error
    local, online = Path(path).is_dir(), True
    try:
        with _quiet(datasets), contextlib.nullcontext(True) if local else hub.offline_unless_reachable() as online:
            loaded = datasets.load_dataset(path, streaming=stream, **arguments)
            return list(loaded.take(STREAMED_ROWS)) if stream else loaded
    except Exception as error:
        reason = first_line(error)
        if not online:
            reason = "no network, and the data set is not in the cache"
        raise HeadnbError(f"cannot load the data set {path!r}: {reason}") from error


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Disable progress bars, which fill a notebook; the user's setting is restored on exit."""
    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def _procedural(name: str, split: str, n: int, seed: int) -> Rows:
    pairs = procedural.question_answers(name, split, n, seed)
    rows = [registry.question_answer(question, answer) for question, answer in pairs]
    return Rows(name, f"reasoning-gym ({split}, seed {seed})", rows, range(n))
