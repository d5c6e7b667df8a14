"""Sources of samples as numbered rows: files, tables, the hub, task collections, and data in memory."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headnb import hub
from headnb.errors import HeadnbError, one_line, unknown_name, warn_user
from headnb.tasks import harness, procedural, registry
from headnb.tasks.files import read_file, task_ending
from headnb.tasks.hub_data import load_dataset, one_line_failures
from headnb.tasks.row_values import type_name
from headnb.tasks.rows import Rows, with_ids
from headnb.tasks.tables import is_table, narrow_floats, table_rows

if TYPE_CHECKING:
    from headnb.tasks.registry import TaskCard

DATA_FOLDER = "HEADNB_DATA"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path of a URL has one slash
ENDLESS_SAMPLES = 64  # default number of samples of a procedural task or a stream, which have no end


def is_source(value: object) -> bool:
    """Whether `find_rows` accepts a value other than a name and a path."""
    is_dataset = type(value).__module__.partition(".")[0] == "datasets"
    return isinstance(value, (list, tuple)) or is_dataset or is_table(value) or harness.is_harness_task(value)


def has_splits(value: object) -> bool:
    """Whether `find_rows` reads one split of a value other than a name and a path."""
    return isinstance(value, Mapping) or harness.is_harness_task(value)


def is_known(name: str) -> bool:
    """Whether a name is that of a registered or a procedural task."""
    return name in registry.CARDS or name in procedural.procedural_cards()


class Wanted(NamedTuple):
    """What to read of a source: the arguments of `load_task` of these names."""

    split: str
    n: int | None
    seed: int
    fields: Mapping[str, str] | None
    config: str | None


def find_rows(source: object, wanted: Wanted) -> Rows:
    """The rows of any source that `load_task` accepts, except a Task."""
    if isinstance(source, (str, Path)):
        return _rows_by_name(str(source), wanted, is_path=isinstance(source, Path))
    refuse_config(wanted, type_name(source))
    if type(source).__module__.partition(".")[0] == "datasets":
        return _dataset(source, wanted)
    if harness.is_harness_task(source):
        return harness.harness_rows(source, wanted.split, wanted.seed)
    refuse_split(wanted, type_name(source))
    if is_table(source):
        return with_ids(table_rows(source), wanted.fields)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return with_ids(Rows("samples", "samples in memory", source, range(len(source))), wanted.fields)
    hint = "; call its method collect() first" if hasattr(source, "collect") else ""
    raise HeadnbError(
        f"cannot load a task from {type_name(source)}; give the name of a task, a file (JSON Lines, JSON, CSV,"
        f" Parquet), a data set, a data frame, or a list of (prompt, completion) pairs{hint}"
    )


def _rows_by_name(source: str, wanted: Wanted, *, is_path: bool) -> Rows:
    _check_name(source)
    if source.startswith(harness.PREFIX):
        refuse_config(wanted, source)
        return harness.harness_rows(source.removeprefix(harness.PREFIX), wanted.split, wanted.seed)
    path = hub.user_path(source)
    is_name = wanted.config is None and is_known(source) and not (is_path and path.exists())
    if is_name and path.exists():
        warn_user(f"{source!r} is the known task of that name; write './{source}' for the file or folder")
    if not is_name and (task_ending(path.name) or path.is_file()):
        refuse_config(wanted, source)
        refuse_split(wanted, source)
        return with_ids(read_file(path), wanted.fields)
    in_folder = _data_file(source, wanted.split)
    if wanted.config is None and in_folder is not None and in_folder.is_file():
        return with_ids(dataclasses.replace(read_file(in_folder), name=source), wanted.fields)
    if is_name and source in registry.CARDS:
        return _registered(source, wanted, in_folder)
    if source in procedural.procedural_cards() and (is_name or not path.exists()):
        return _procedural(source, wanted)
    if wanted.config is not None or wanted.fields is not None or "/" in source or path.is_dir():
        return _from_hub(source, path, wanted)
    raise unknown_name("task", source, [*registry.CARDS, *procedural.procedural_cards()])


def _check_name(source: str) -> None:
    if not source.strip():
        raise HeadnbError("the name of the task is empty; give the name of a task, a file, a folder or a data set")
    if _URL.match(source):
        raise HeadnbError(f"{one_line(source, 100)} is a URL, which is not read as data; download it and give the file")


def refuse_config(wanted: Wanted, source: str) -> None:
    """Raise HeadnbError if a configuration is given for a source that has none."""
    if wanted.config is not None:
        raise HeadnbError(f"config applies to data sets of the hub and folders, not to {source}")


def refuse_split(wanted: Wanted, source: str) -> None:
    """Raise HeadnbError if another split than train or test is given for a source without splits."""
    if wanted.split not in {"train", "test"}:
        raise HeadnbError(
            f"{source} has no splits, so it has no split {wanted.split!r:.60}; omit split to take all samples"
        )


def _data_file(source: str, split: str) -> Path | None:
    """The file that the folder `HEADNB_DATA` may have for a task."""
    folder = os.environ.get(DATA_FOLDER)
    return hub.user_path(Path(folder) / f"{source}.{split}.jsonl") if folder and "/" not in source else None


def _registered(source: str, wanted: Wanted, in_folder: Path | None) -> Rows:
    try:
        rows = _from_card(source, registry.CARDS[source], wanted)
    except HeadnbError as error:
        if in_folder is None:
            raise
        raise HeadnbError(f"{error}; {DATA_FOLDER} has no {in_folder.name} either") from error
    return rows if wanted.fields is None else with_ids(dataclasses.replace(rows, template=None), wanted.fields)


def _dataset(source: Any, wanted: Wanted) -> Rows:
    """Rows of a `datasets.Dataset` or an `IterableDataset`, or of one split of several."""
    if isinstance(source, Mapping):
        if wanted.split not in source:
            raise HeadnbError(f"the data set has no split {wanted.split!r}; it has {', '.join(map(repr, source))}")
        source = source[wanted.split]
    else:
        refuse_split(wanted, type_name(source))
    if not hasattr(source, "info"):
        raise HeadnbError(f"cannot load a task from {type_name(source)} of a data set; give the whole data set")
    if not hasattr(source, "__len__"):
        return with_ids(_stream(source, wanted.n or ENDLESS_SAMPLES), wanted.fields)
    format_ = source.format
    form = "custom" if format_["type"] == "custom" else "arrow"
    if form == "arrow":  # plain Python values of the columns that the user selected
        source = source.with_format(None, None if format_["output_all_columns"] else format_["columns"])
    name = source.info.dataset_name or "dataset"
    rows = Rows(name, f"data set {name}", source, range(len(source)), form=form, narrow=_narrow(source))
    return with_ids(rows, wanted.fields)


def _stream(source: Any, n: int) -> Rows:
    """The first n rows of an `IterableDataset`."""
    name = source.info.dataset_name or "dataset"
    with one_line_failures(f"rows of the streamed data set {name}", local=True):
        rows = list(itertools.islice(source.with_format(None), n))
    source_name = f"data set {name} (first rows)"
    return Rows(name, source_name, rows, range(len(rows)), form="arrow", narrow=_narrow(source), streamed=True)


def _narrow(source: Any) -> dict[str, Any]:
    features = getattr(source, "features", None)  # unknown for some streams
    return {} if features is None else narrow_floats(features.arrow_schema)


def _from_hub(source: str, path: Path, wanted: Wanted) -> Rows:
    """Rows of a data set in a folder or on the hub."""
    if path.name in {"", ".."}:
        path = path.resolve()
    where, name = (str(path), path.name) if path.is_dir() else (source, source)
    rows = load_dataset(where, split=wanted.split, name=wanted.config)
    part = wanted.split if wanted.config is None else f"{wanted.config}, {wanted.split}"
    read = Rows(name, f"{where} ({part})", rows, range(len(rows)), form="arrow", narrow=_narrow(rows))
    return with_ids(read, wanted.fields)


def _from_card(name: str, card: TaskCard, wanted: Wanted) -> Rows:
    """Rows of a registered task, with their row numbers in the data set as ids."""
    source_split = _source_split(name, card, wanted.split)
    if card.url is None:
        stream = card.large and wanted.n is not None
        rows = load_dataset(card.origin, name=card.config, split=source_split, stream=stream)
    else:
        rows = read_file(hub.download(card.url)).rows
    ids: Sequence[int] = range(len(rows))
    if card.held_out and wanted.split in {"train", "test"}:
        ids = [i for i in ids if (i % 10 == 9) == (wanted.split == "test")]
        rows = [rows[i] for i in ids]
    return Rows(name, f"{card.origin} ({wanted.split})", rows, ids, template=card.template)


def _source_split(name: str, card: TaskCard, split: str) -> str:
    source_split = card.source_split(split)
    if source_split is None:
        raise unknown_name(f"split of {name}", split, {*card.splits, "test"})
    return source_split


def _procedural(name: str, wanted: Wanted) -> Rows:
    refuse_config(wanted, name)
    if wanted.fields is not None:
        raise HeadnbError(f"fields names columns of rows, and {name} generates its samples; omit fields")
    card = procedural.procedural_cards()[name]
    n, split = wanted.n or ENDLESS_SAMPLES, _source_split(name, card, wanted.split)
    pairs = procedural.question_answers(name, split, n, wanted.seed)
    rows = [registry.question_answer(question, answer) for question, answer in pairs]
    return Rows(name, f"{card.origin} ({split}, seed {wanted.seed})", rows, range(n))
