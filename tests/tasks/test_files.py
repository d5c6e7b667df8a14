"""Task files of each format, files of another kind than their name says, and files that are damaged or hostile."""

from __future__ import annotations

import bz2
import gzip
import json
import sqlite3
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from headnb import HeadnbError
from headnb.tasks import files
from headnb.tasks.loading import Sample, load_task
from safetensors.numpy import save

pytestmark = pytest.mark.usefixtures("nothing_outside")

ROWS = [{"id": "u", "prompt": "2 + 2 =", "completion": "4"}, {"id": "v", "prompt": 'say "é",\n', "completion": "é"}]
LINES = "\n".join(map(json.dumps, ROWS)).encode()
ARRAY = json.dumps(ROWS, indent=2).encode()
CSV = 'id,prompt,completion\nu,2 + 2 =,4\n\nv,"say ""é"",\n",é\n'.encode()


def parquet(rows=ROWS, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue().to_pybytes()


FORMS = {
    "a.jsonl": LINES,
    "a.json": ARRAY,
    "lines.json": LINES,
    "array.jsonl": b"\xef\xbb\xbf" + ARRAY,
    "a.csv": CSV,
    "A.CSV": b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n").replace(b",\r\n", b",\n"),
    "a.tsv": b'id\tprompt\tcompletion\nu\t2 + 2 =\t4\nv\t"say ""\xc3\xa9"",\n"\t\xc3\xa9\n',
    "a.parquet": parquet(),
    "a.jsonl.gz": gzip.compress(LINES, mtime=0),
    "a.json.gz": gzip.compress(ARRAY, mtime=0),
    "a.csv.gz": gzip.compress(CSV, mtime=0),
    "unpacked.jsonl.gz": LINES,
    "packed.jsonl": gzip.compress(LINES, mtime=0),
    "no_ending": LINES,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_file_gives_the_same_task(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FORMS[name])
    task = load_task(path)
    assert task.ids == ("u", "v")
    assert task.samples == (Sample("2 + 2 =", "4"), Sample('say "é",\n', "é"))
    assert task.name == name.partition(".")[0]
    swapped = load_task(str(path), n=2, seed=1, fields={"prompt": "{completion}?", "completion": "prompt", "id": "id"})
    assert {key: sample.prompt for key, sample in zip(swapped.ids, swapped.samples, strict=True)} == {
        "u": "4?",
        "v": "é?",
    }


@pytest.mark.parametrize("name", ["a.jsonl", "no_ending"])
def test_a_file_is_read_whole_and_has_no_other_splits(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(LINES)
    assert load_task(path, split="train") == load_task(path)
    with pytest.raises(HeadnbError, match=r"has no splits, so it has no split 'test\[:1\]'; omit split"):
        load_task(path, split="test[:1]")


def test_cells_of_csv_are_text_as_written(tmp_path):
    (tmp_path / "a.csv").write_text("id,prompt,completion\n007,NA,1.50\n1e3,null,True\n")
    task = load_task(tmp_path / "a.csv")
    assert task.ids == ("007", "1e3")
    assert task.samples == (Sample("NA", "1.50"), Sample("null", "True"))


def test_quotes_of_an_unquoted_tsv_are_text(tmp_path):
    (tmp_path / "a.tsv").write_text('prompt\tcompletion\n"Hi\tyes\nBye\tno\n"Ok" he said\tfine\n')
    assert load_task(tmp_path / "a.tsv").samples == (
        Sample('"Hi', "yes"),
        Sample("Bye", "no"),
        Sample('"Ok" he said', "fine"),
    )


@pytest.mark.parametrize("name", ["ORCID", "PAR1", "GGUF", "BZh9", "GIF8"])
def test_a_column_may_have_the_name_of_a_signature(tmp_path, name):
    (tmp_path / "a.csv").write_text(f"{name},prompt,completion\n1,a,b\n")
    assert load_task(tmp_path / "a.csv").samples == (Sample("a", "b"),)


def test_parquet_keeps_types_and_nested_columns(tmp_path):
    question, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "thinking": "well"}
    (tmp_path / "chat.parquet").write_bytes(parquet([{"id": 3, "messages": [question, answer]}]))
    assert load_task(tmp_path / "chat.parquet").samples == (Sample([question], [answer]),)
    assert load_task(tmp_path / "chat.parquet").ids == (3,)
    (tmp_path / "many.parquet").write_bytes(
        parquet([{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(3000)], row_group_size=700)
    )
    assert [sample.prompt for sample in load_task(tmp_path / "many.parquet").samples] == [f"p{i}" for i in range(3000)]


def other_files(folder):
    """Name -> content of files that are not what their name says."""
    with zipfile.ZipFile(folder / "made.zip", "w") as archive:
        archive.writestr("a", "b")
    sqlite3.connect(folder / "made.db").execute("create table a (b)").connection.commit()
    data = xr.Dataset({"a": ("x", [1.0])})
    data.to_netcdf(folder / "made4.nc", engine="netcdf4")
    data.to_netcdf(folder / "made3.nc", engine="scipy")
    return {
        "is a Parquet file, not JSON Lines; name it .parquet": ("a.jsonl", parquet()),
        "is a Parquet file, not CSV; name it .parquet": ("b.csv", parquet()),
        "is JSON, not a Parquet file; name it .json": ("c.parquet", LINES),
        "is JSON, not CSV; name it .json": ("d.csv", ARRAY),
        "is text, not JSON Lines: it begins with 'id,prompt": ("e.jsonl", CSV),
        "is text, not JSON: it begins with 'id,prompt": ("f.json.gz", gzip.compress(CSV, mtime=0)),
        "is text, not a Parquet file: it begins with 'id,prompt": ("g.parquet", CSV),
        "is a zip archive": ("h.jsonl", (folder / "made.zip").read_bytes()),
        "is an SQLite database, not JSON": ("i.json", (folder / "made.db").read_bytes()),
        "is an HDF5 or netCDF file": ("j.jsonl", (folder / "made4.nc").read_bytes()),
        "is a netCDF file": ("k.jsonl", (folder / "made3.nc").read_bytes()),
        "is a safetensors file": ("l.jsonl", save({"a": np.ones(3)})),
        "is a PDF": ("m.csv", b"%PDF-1.7\n%\xe2\xe3"),
        "is an HTML page": ("n.jsonl", b"\n<!doctype HTML><p>sign in</p>"),
        "is a Git LFS pointer": ("o.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "is UTF-16 text": ("p.csv", "prompt,completion".encode("utf-16")),
        "is an archive compressed with bzip2": ("s.csv", bz2.compress(CSV)),
        "is a Python pickle": ("q", b"\x80\x04\x95"),
        "is a binary file, not CSV": ("r.csv", b"a,b\n\0,c"),
    }


def test_a_wrong_file_says_what_it_is(tmp_path):
    for message, (name, content) in other_files(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HeadnbError) as caught:
            load_task(tmp_path / name)
        assert f"{tmp_path / name} {message}" in str(caught.value)
        assert "is not JSON" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"prompt,completion\na,b,c\n", r"a\.csv is not valid CSV: Expected 2 fields in line 2, saw 3"),
        ("a.csv", b'prompt,completion\n"a,b\n', r"not valid CSV: EOF inside string"),
        ("a.tsv", b'prompt\tcompletion\n"a\tb\nc"\td\n', r"a\.tsv line 2: a tab between quotes may be text"),
        ("a.csv", b"prompt,prompt\na,b\n", r"two columns with the name 'prompt'"),
        ("a.csv", b"prompt,completion\n", r"has no samples: the file has no rows"),
        ("a.csv", b"\n\n", r"has no samples"),
        ("a.csv", b"", r"has no samples: the file is empty"),
        ("a.csv", b"prompt,completion\na\n", r"sample 0: the completion is empty"),
        ("a.csv", b"prompt;completion\na;b\n", r"lacks 'prompt' and 'completion'; it has 'prompt;completion'"),
        ("a.csv", "prompt,completion\né,b".encode("latin-1"), r"is not UTF-8 text; save it as CSV UTF-8"),
        ("a.json", b'{\n "data": []\n}', r"line 1 starts an object that spans several lines"),
        ("a.json", b'[{"prompt": "a"}', r"a\.json is not JSON \(Expecting ',' delimiter"),
        ("a.json", b"[]", r"has no samples"),
        ("a.json", b'[{"prompt": "\xff"}]', r"is not UTF-8"),
        ("a.parquet", b"", r"the file is empty"),
        ("a.parquet", parquet()[:-9], r"is not a valid Parquet file"),
        ("a.parquet", parquet([{"prompt": "a"}]), r"sample 0 lacks 'completion'"),
        ("a.parquet.gz", gzip.compress(parquet(), mtime=0), r"is compressed with gzip; decompress it"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-12], r"is damaged: it cannot be decompressed"),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)[:-8] + b"12345678", r"is damaged: it cannot be decompressed \(CRC"),
        ("missing.csv", None, r"cannot read .*missing\.csv: No such file"),
        ("missing.parquet", None, r"No such file"),
    ],
)
def test_a_damaged_file_is_one_plain_error(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(HeadnbError, match=message) as caught:
        load_task(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.json.gz", "a.json"])
def test_unpacked_bytes_are_limited(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "SIZE_LIMIT", 100_000)
    content = {"jsonl": (LINES + b"\n") * 2000, "csv": CSV * 2000, "json": b"[" + b" " * 200_000 + b"]"}[
        name.split(".")[1]
    ]
    (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    with pytest.raises(HeadnbError, match="more than 1 GB"):
        load_task(tmp_path / name)


def test_a_table_that_grows_when_read_is_refused(tmp_path, monkeypatch):
    """One text, to which each row refers: the file stays small."""
    monkeypatch.setattr(files, "SIZE_LIMIT", 20_000_000)
    content = parquet([{"prompt": "x" * 10_000, "completion": "y"}] * 5000)
    assert len(content) < 10_000
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(HeadnbError, match="is a table of more than 1 GB"):
        load_task(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_the_number_of_rows_is_limited(tmp_path, monkeypatch, name):
    monkeypatch.setattr(files, "ROW_LIMIT", 1)
    (tmp_path / name).write_bytes(FORMS[name])
    with pytest.raises(HeadnbError, match="million rows"):
        load_task(tmp_path / name)
