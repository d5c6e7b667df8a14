"""Stores and files at URLs: copied whole before they are read, and uploaded after they are written."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from headnb import HeadnbError, open_scores
from headnb.storage import remote
from headnb.storage.reading import read_parts

from stores import score_into, scores_are_correct


@pytest.fixture(params=["memory", "s3"])
def files(request, monkeypatch):
    """File system with an empty bucket: in this process, or S3 as moto's server plays it."""
    if request.param == "memory":
        yield (memory := fsspec.filesystem("memory"))
        memory.rm("/", recursive=True)
        return
    moto, s3fs = pytest.importorskip("moto.server"), pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    for name, value in {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # one made before knows another endpoint
    s3 = s3fs.S3FileSystem()
    s3.mkdir("bucket")
    yield s3
    s3.rm("bucket", recursive=True)  # moto keeps buckets for the whole process
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def bucket(files):
    """URL of the bucket."""
    return files.unstrip_protocol("bucket").replace(":///", "://")


@pytest.fixture
def store(files, bucket, tmp_path):
    """URL of a complete store."""
    score_into(tmp_path / "a.zarr")
    files.put(str(tmp_path / "a.zarr"), "bucket/a.zarr", recursive=True)
    return f"{bucket}/a.zarr"


def test_a_store_at_a_url_opens_with_its_values_and_attributes(store, tmp_path):
    found = open_scores(store)
    assert scores_are_correct(found)
    assert found.identical(open_scores(tmp_path / "a.zarr"))
    assert scores_are_correct(open_scores((tmp_path / "a.zarr").as_uri()))


def test_parts_of_a_store_at_a_url_are_read(store):
    parts = list(read_parts(store, 20))
    assert [part.sizes["sample"] for part in parts] == [20, 10]


def test_a_file_is_written_to_a_url_and_read_from_it(files, bucket, tmp_path):
    scores = score_into(None)
    for url in (f"{bucket}/new/a.nc", f"{bucket}/new/a.parquet", (tmp_path / "a.nc").as_uri()):
        assert scores.heads.save(url) == url
        assert open_scores(url).identical(scores)
    scores.heads.save(f"{bucket}/a.heads.json")
    assert files.exists("bucket/a.heads.json")
    with pytest.raises(HeadnbError, match=f"there are no scores at {bucket}/b.nc"):
        open_scores(f"{bucket}/b.nc")


def test_a_file_on_a_web_server_is_read(tmp_path):
    pytest.importorskip("aiohttp")
    for name in ("a.nc", "a.parquet"):
        score_into(None).heads.save(tmp_path / name)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert scores_are_correct(open_scores(f"{url}/a.nc"))
        assert scores_are_correct(open_scores(f"{url}/a.parquet?download=1#top"))
        with pytest.raises(HeadnbError, match=r"there are no scores at .*/b\.nc\?\.\.\.$"):
            open_scores(f"{url}/b.nc?token=secret")
        with pytest.raises(HeadnbError, match=r"/a\.zarr/: a Zarr store cannot be read from a web server"):
            open_scores(f"{url}/a.zarr/")
        server.shutdown()


def test_damage_at_a_url_is_reported_with_the_url(store, files):
    chunk = next(name for name in files.find("bucket/a.zarr") if "/score/c/" in name)
    files.pipe(chunk, b"\0" + files.cat(chunk)[1:])
    with pytest.raises(HeadnbError, match=rf"{store}/score/c/0/0/0 is damaged"):
        open_scores(store)
    files.rm(chunk)
    assert open_scores(store).sizes["sample"] == 0  # as for a local store: its samples count as not scored


def test_a_store_with_too_many_bytes_is_not_copied(store, monkeypatch):
    monkeypatch.setattr(remote, "MAX_BYTES", 1000)
    with pytest.raises(HeadnbError, match="copy it to a local folder and open that"):
        open_scores(store)


def test_a_name_that_leads_out_of_the_store_is_refused(tmp_path):
    for name in ("bucket/a.zarr/../../x", "bucket/other", "bucket/a.zarr/./x/.."):
        with pytest.raises(HeadnbError, match="points outside the store"):
            remote._inside(tmp_path, name, "bucket/a.zarr")
    assert remote._inside(tmp_path, "bucket/a.zarr/score/c/0", "bucket/a.zarr") == tmp_path / "score/c/0"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nowhere/a.zarr", "there are no scores at memory://nowhere"),
        ("nosuch://bucket/a.zarr", "cannot open nosuch://bucket/a.zarr"),
        ("hf://user", "is not of the form hf://user/name"),
        ("hf://user/name/../x", "is not of the form"),
        ("hf://us er/name", "has the form 'user/name'"),
    ],
)
def test_a_wrong_url_is_one_clear_error(url, message):
    with pytest.raises(HeadnbError, match=message) as refused:
        open_scores(url)
    assert "\n" not in str(refused.value)


def test_a_password_in_a_url_is_not_shown():
    with pytest.raises(HeadnbError) as refused:
        open_scores("nosuch://user:secret@host/a.zarr")
    assert "secret" not in str(refused.value)
    assert "nosuch://host/a.zarr" in str(refused.value)


def test_runs_write_to_local_paths_only():
    with pytest.raises(HeadnbError, match=r"is a URL, and this needs a local path.*scores\.heads\.save\(url\)"):
        score_into("s3://bucket/a.zarr")
    for path in (Path("s3://bucket/a.nc"), Path("memory://a.nc")):
        with pytest.raises(HeadnbError, match="is a URL as a Path, which removes slashes; give the URL as text"):
            score_into(None).heads.save(path)
        with pytest.raises(HeadnbError, match="is a URL as a Path"):
            open_scores(path)
    with pytest.raises(HeadnbError, match=r"use scores\.heads\.push_to_hub"):
        score_into(None).heads.save("hf://user/name/scores.nc")
