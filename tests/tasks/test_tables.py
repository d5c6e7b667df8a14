"""Frames and Arrow tables give the samples of the same rows in a list; streams give their first rows."""

from __future__ import annotations

from decimal import Decimal

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from headnb import HeadnbError
from headnb.tasks.loading import Sample, TokenSample, load_task
from headnb.tasks.rows import Rows
from headnb.tasks.sources import is_source

from mock_datasets import mock_load_dataset

pytestmark = pytest.mark.usefixtures("nothing_outside")

COLUMNS = {"id": ["u", "v", "w"], "question": ["1 + 1?", "2 + 2?", "é?"], "answer": [2, 4, 5]}
FIELDS = {"prompt": "{question} ", "completion": "answer"}
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
TABLES = {
    "pandas": pd.DataFrame(COLUMNS),
    "named index": pd.DataFrame(COLUMNS).set_index("id"),
    "categories": pd.DataFrame(COLUMNS).astype({"question": "category", "id": "category"}),
    "polars": pl.DataFrame(COLUMNS),
    "polars categories": pl.DataFrame(COLUMNS).cast({"question": pl.Categorical}),
    "arrow": pa.table(COLUMNS),
    "batch": pa.record_batch(COLUMNS),
    "chunks": pa.concat_tables([pa.table(COLUMNS)[:1], pa.table(COLUMNS)[1:]]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_the_list_of_its_rows(kind):
    table = TABLES[kind]
    assert is_source(table)
    assert load_task(table, fields=FIELDS).fingerprint() == load_task(ROWS, fields=FIELDS).fingerprint()
    part = load_task(table, n=2, seed=4, fields=FIELDS, name="sums")
    assert part.fingerprint() == load_task(ROWS, n=2, seed=4, fields=FIELDS).fingerprint()


def test_an_index_without_a_name_is_ignored():
    frame = pd.DataFrame({"prompt": ["a", "b"], "completion": ["c", "d"]}, index=[7, 9])
    assert load_task(frame).ids == (0, 1)
    assert load_task(
        frame.rename_axis("row"), fields={"prompt": "prompt", "completion": "completion", "id": "row"}
    ).ids == (
        7,
        9,
    )


def test_whole_numbers_stored_as_floats_are_ids():
    columns = {"prompt": ["a", "b"], "completion": ["c", "d"]}
    for frame in (pd.DataFrame(columns | {"id": [3.0, 4.0]}), pl.DataFrame(columns | {"id": [3.0, 4.0]})):
        ids = load_task(frame).ids
        assert ids == (3, 4)
        assert {type(key) for key in ids} == {int}


@pytest.mark.parametrize("kind", ["pandas", "numbers", "polars", "arrow", "parquet", "dataset", "stream", "folder"])
def test_floats_of_32_bits_are_written_as_short_as_they_are_read(tmp_path, kind):
    values = np.array([0.1, 2.5, 1e20], np.float32)
    frame = pd.DataFrame({"question": ["a", "b", "c"], "answer": values})
    dataset = datasets.Dataset.from_dict({"question": ["a", "b", "c"], "answer": values.tolist()}).cast_column(
        "answer", datasets.Value("float32")
    )
    if kind in {"parquet", "folder"}:
        frame.to_parquet(tmp_path / "test.parquet")
    sources = {
        "pandas": frame,
        "numbers": [{"question": "abc"[i], "answer": values[i]} for i in range(3)],
        "polars": pl.DataFrame(frame.to_dict("list")).cast({"answer": pl.Float32}),
        "arrow": pa.Table.from_pandas(frame),
        "parquet": tmp_path / "test.parquet",
        "dataset": dataset,
        "stream": dataset.to_iterable_dataset(),
        "folder": tmp_path,
    }
    task = load_task(sources[kind], fields={"prompt": "question", "completion": "answer"})
    assert [sample.completion for sample in task.samples] == ["0.1", "2.5", "1e+20"]


def test_decimals_are_text_and_ids():
    price = pa.array([Decimal("2.50"), Decimal("0.10")])
    ids = pa.array([Decimal(7), Decimal(2**60)], pa.decimal128(38, 0))
    table = pa.table({"id": ids, "question": ["a", "b"], "price": price})
    task = load_task(table, fields={"prompt": "{question} {price}", "completion": "price"})
    assert task.samples == (Sample("a 2.50", "2.50"), Sample("b 0.10", "0.10"))
    assert task.ids == (7, 2**60)
    with pytest.raises(HeadnbError, match=r"is a Decimal, not text or a number"):
        load_task([{"a": Decimal("NaN")}], fields={"prompt": "a", "completion": "a"})
    with pytest.raises(HeadnbError, match=r"the id of sample 0 is a Decimal"):
        load_task([{"id": Decimal("NaN"), "prompt": "a", "completion": "b"}])


@pytest.mark.parametrize("fields", [None, {"id": "key"}])
@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, datasets.Dataset.from_dict])
def test_ids_are_read_without_the_other_columns_of_all_rows(make, fields, monkeypatch):
    columns = {"prompt": [f"p{i}" for i in range(300)], "completion": ["a"] * 300}
    source = make(columns | {"id": list(range(1000, 1300)), "key": [f"k{i}" for i in range(300)]})
    read, row = [], Rows.row

    def counted(rows, index):
        read.append(index)
        return row(rows, index)

    monkeypatch.setattr(Rows, "row", counted)
    task = load_task(source, n=3, fields=fields)
    assert len(read) == 3
    assert task.ids == tuple(f"k{i}" if fields else 1000 + i for i in read)
    assert [sample.prompt for sample in task.samples] == [f"p{i}" for i in read]


def test_ids_of_narrow_floats_are_their_whole_numbers():
    ids = pa.array([1.0, 16777216.0], pa.float32())
    assert load_task(pa.table({"id": ids, "prompt": ["a", "b"], "completion": ["c", "d"]})).ids == (1, 16777216)


@pytest.mark.parametrize("library", [pd, pl])
def test_nested_columns(library):
    question, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "thinking": "well"}
    chat = library.DataFrame({"messages": [[question, answer]]})
    assert load_task(chat).samples == (Sample([question], [answer]),)
    tokens = library.DataFrame({"input_ids": [np.array([5, 6, 7])], "labels": [[-100, 6, 7]]})
    assert load_task(tokens).samples == (TokenSample([5, 6, 7], [-100, 6, 7]),)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pd.DataFrame({"prompt": ["a", "b"], "completion": ["c", None]}), r"sample 1: completion is empty \(None\)"),
        (pd.DataFrame({"prompt": ["a"], "completion": [float("nan")]}), r"sample 0: completion is empty \(None\)"),
        (pl.DataFrame({"prompt": ["a"], "completion": [float("nan")]}), r"sample 0: completion is empty \(NaN\)"),
        (pd.DataFrame({"prompt": ["a", 1], "completion": ["c", "d"]}), r"one type per column\): Expected bytes"),
        (pd.DataFrame({"prompt": ["a"]}), r"table: sample 0 lacks 'completion'; it has 'prompt'"),
        (pd.DataFrame({"prompt": ["a"], "completion": ["b"], "id": [1.5]}), r"the id of sample 0 is a float"),
        (pd.DataFrame({"prompt": ["a"] * 2, "completion": ["b"] * 2, "id": [1, None]}), r"sample 1 has no id, while"),
        (pd.DataFrame({"prompt": ["a"] * 2, "completion": ["b"] * 2, "id": [1, 1]}), r"sample id 1 twice"),
        (pd.DataFrame({"prompt": [], "completion": []}), r"has no samples \(pandas DataFrame in memory\)"),
        (pd.DataFrame([["a", "b", "c"]], columns=["prompt", "completion", "prompt"]), r"Duplicate column names"),
        (pa.table([["a"], ["b"]], names=["prompt", "prompt"]), r"two columns with the name 'prompt'"),
        (pd.Series(["a"]), r"cannot (read a Series as an Arrow table|load a task from a Series)"),
        (pl.Series(["a"]), r"cannot read a Series as an Arrow table"),
        (pl.LazyFrame({"prompt": ["a"]}), r"cannot load a task from a LazyFrame.*call its method collect\(\) first"),
        (pd.DataFrame, r"cannot load a task from a type"),
    ],
)
def test_a_bad_table_is_one_plain_error(source, message):
    with pytest.raises(HeadnbError, match=message) as caught:
        load_task(source)
    assert "\n" not in str(caught.value)


def stream(count=200, **more):
    rows = [{"prompt": f"p{i}", "completion": f"c{i}"} | more for i in range(count)]
    return datasets.Dataset.from_list(rows).to_iterable_dataset()


def test_the_first_rows_of_a_stream_in_order():
    read = []
    source = stream().map(lambda row: read.append(row) or row)
    task = load_task(source, n=5, seed=3)
    assert [sample.prompt for sample in task.samples] == [f"p{i}" for i in range(5)]
    assert (task.ids, len(read)) == (tuple(range(5)), 5)
    assert len(load_task(stream())) == 64
    assert len(load_task(stream(10))) == 10
    assert load_task(datasets.IterableDatasetDict(test=stream()), n=1).samples == (Sample("p0", "c0"),)
    with pytest.raises(HeadnbError, match=r"has 10 samples .*fewer than n=11"):
        load_task(stream(10), n=11)
    with pytest.raises(HeadnbError, match=r"cannot load rows of the streamed data set .*: division by zero"):
        load_task(stream().map(lambda _: 1 / 0), n=1)


def test_config_and_part_of_a_split_reach_the_hub(monkeypatch):
    calls = mock_load_dataset(monkeypatch, ROWS)
    task = load_task("org/sums", split="test[:3]", config="main", fields=FIELDS)
    assert calls == [{"path": "org/sums", "streaming": False, "split": "test[:3]", "name": "main"}]
    assert (task.name, task.source) == ("org/sums", "org/sums (main, test[:3])")


def test_a_part_of_a_split_of_a_folder_and_its_configuration(tmp_path):
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "test.parquet")
    assert load_task(tmp_path, split="test[1:]", fields=FIELDS).ids == ("v", "w")
    assert load_task(tmp_path, config="default", fields=FIELDS).ids == ("u", "v", "w")
    with pytest.raises(HeadnbError, match=r"'nope' not found\. Available: \['default'\]"):
        load_task(tmp_path, config="nope", fields=FIELDS)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / name / "test.parquet")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: one\n  data_files: [{split: test, path: one/*}]\n"
        "- config_name: two\n  data_files: [{split: test, path: two/*}]\n---\n"
    )
    assert load_task(tmp_path, config="two", fields=FIELDS).ids == ("u", "v", "w")
    with pytest.raises(HeadnbError, match=r"several configurations; choose one with config= .*\['one', 'two'\]"):
        load_task(tmp_path, fields=FIELDS)


@pytest.mark.parametrize("source", [ROWS, "a.csv", "lm_eval:arc_easy", pd.DataFrame(ROWS)])
def test_config_without_a_data_set_is_refused(source):
    with pytest.raises(HeadnbError, match="config applies to data sets of the hub and folders, not to"):
        load_task(source, config="main")
