"""Full, read-only and broken disks: errors name the damaged file, damage is never read, complete files stay.

The larger numbers of cases are slow: `make robustness`.
"""

from __future__ import annotations

import errno
import os
import random
import resource
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError, open_scores
from headnb.storage import fit_store, zarr_columns
from headnb.storage.files import read_dataset, read_json, write_dataset, write_json
from headnb.storage.reading import read_parts
from zarr.storage import LocalStore

from stores import ABOUT, SAMPLES, corrupt, one_line, score_into, scores_are_correct

STUDY = xr.Dataset(
    {"level": (("step", "task"), np.arange(6.0).reshape(2, 3)), "loss": ("step", [0.5, np.nan])},
    coords={"step": [0, 4], "task": ["gcd", "lcm", "ünion"]},
    attrs={"model": "tiny", "steps": 4},
)
RESULT = {"task": "gcd", "loss": {"before": 2.25, "after": 1.5}, "seed": 3, "nothing": None}


def cases(few, many):
    return pytest.mark.parametrize("cases", [few, pytest.param(many, marks=pytest.mark.slow)])


def said(call):
    """Return the result of `call`, or the one-line message of the error that it raises."""
    try:
        return call()
    except HeadnbError as error:
        return one_line(error)


@pytest.fixture
def small_chunks(monkeypatch):
    """Store each column in several files."""
    monkeypatch.setattr(zarr_columns, "CHUNK_BYTES", 10 * 8 * 4)


def flip_files(folder, read, is_right, cases):
    """Damage one file at a time at a random position; count the outcomes of reading, which never gives wrong values."""
    moments, found = random.Random(cases), Counter()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    for _ in range(cases):
        path = moments.choice(files)
        content = path.read_bytes()
        path.write_bytes(corrupt(content, moments))
        answer = said(read)
        assert isinstance(answer, str) or is_right(answer), f"{path} was read"
        found["named" if isinstance(answer, str) else "of no consequence"] += 1
        path.write_bytes(content)
    return found


@cases(40, 4000)
def test_a_bit_that_flips_in_a_store_is_named_and_never_read(cases, tmp_path, small_chunks):
    out = tmp_path / "a.zarr"
    score_into(out)
    assert scores_are_correct(open_scores(out))
    found = flip_files(out, lambda: open_scores(out), scores_are_correct, cases)
    print(f"flipped bits and truncated files in a store: {cases} tried, {dict(found)}")
    assert found["named"] > 0.9 * cases
    assert scores_are_correct(open_scores(out))


@cases(20, 1000)
def test_a_bit_that_flips_in_a_store_of_a_fit_is_named(cases, tmp_path):
    out = tmp_path / "gates.zarr"
    fitted = xr.Dataset({"score": (("class", "layer"), [[0.25, 0.5]])}, {"class": ["low"], "layer": [0, 1]}, ABOUT)
    with fit_store.open_fit(out, ABOUT) as store:
        store.save(fitted, {"momentum": np.ones(3)})
    found = flip_files(out, lambda: open_scores(out), fitted.identical, cases)
    print(f"flipped bits and truncated files in a store of a fit: {cases} tried, {dict(found)}")
    assert found["named"] > 0.9 * cases


@cases(30, 4000)
def test_a_bit_that_flips_in_a_study_or_a_result_is_named(cases, tmp_path):
    write_dataset(tmp_path / "study" / "study.nc", STUDY)
    write_json(tmp_path / "result" / "result.json", RESULT)
    for name, read, is_right in (
        ("study", lambda: read_dataset(tmp_path / "study" / "study.nc"), STUDY.identical),
        ("result", lambda: read_json(tmp_path / "result" / "result.json", "02"), RESULT.__eq__),
    ):
        found = flip_files(tmp_path / name, read, is_right, cases)
        print(f"flipped bits and truncated files in a {name}: {cases} tried, {dict(found)}")
        assert found["named"] > 0.8 * cases


def test_a_damaged_chunk_leaves_the_others_readable_and_is_scored_again_without_its_file(tmp_path, small_chunks):
    out = tmp_path / "a.zarr"
    score_into(out)
    chunk = out / "score" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    parts = read_parts(out, 10)
    assert scores_are_correct(next(parts))
    with pytest.raises(
        HeadnbError, match=r"score/c/1/0/0 is damaged: .*; remove this file and run the same call again"
    ):
        next(parts)
    chunk.unlink()
    remaining = open_scores(out)
    assert (remaining.sizes["sample"], remaining.attrs["complete"]) == (SAMPLES - 10, 0)
    assert scores_are_correct(remaining)
    whole = score_into(out)
    assert whole.sizes["sample"] == SAMPLES
    assert scores_are_correct(whole)
    assert scores_are_correct(open_scores(out))


def test_a_lost_file_of_what_is_known_of_samples_is_named(tmp_path, small_chunks):
    score_into(tmp_path / "a.zarr")
    for name in ("order", "sample", "answer_tokens", "fingerprint"):
        chunk = tmp_path / "a.zarr" / name / "c" / "1"
        content = chunk.read_bytes()
        chunk.unlink()
        with pytest.raises(HeadnbError, match="is damaged"):
            open_scores(tmp_path / "a.zarr")
        chunk.write_bytes(content)
    assert scores_are_correct(open_scores(tmp_path / "a.zarr"))


@contextmanager
def failing_after(monkeypatch, writes, number):
    """Let a disk accept `writes` files and then raise this error number."""
    write_file, written = LocalStore.set, []

    async def write_or_fail(self, key, value, *rest):
        written.append(key)
        if len(written) > writes:
            raise OSError(number, os.strerror(number))
        await write_file(self, key, value, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", write_or_fail)
        yield written


@cases(6, 500)
def test_a_disk_that_fails_at_a_random_moment_keeps_what_was_complete(cases, tmp_path, small_chunks, monkeypatch):
    with failing_after(monkeypatch, 10**6, errno.ENOSPC) as written:
        score_into(tmp_path / "whole.zarr")
    moments, left = random.Random(cases), Counter()
    for case in range(cases):
        out, number = tmp_path / f"{case}.zarr", moments.choice([errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
        with failing_after(monkeypatch, moments.randrange(len(written)), number):
            answer = said(lambda out=out: score_into(out))
        assert os.strerror(number) in answer
        if out.exists():
            part = open_scores(out)
            assert scores_are_correct(part)
            left["some samples" if part.sizes["sample"] else "an empty store"] += 1
        else:
            left["no store"] += 1
        assert scores_are_correct(score_into(out))
        assert open_scores(out).sizes["sample"] == SAMPLES
    print(f"failing disks: {cases} tried, left: {dict(left)}; each error named, and each run completed correctly")


@cases(6, 200)
def test_a_file_that_cannot_grow_leaves_the_one_before(cases, tmp_path):
    """The operating system refuses to write in the middle of a file; netCDF raises another type of error."""
    moments = random.Random(cases)
    study, result = tmp_path / "study.nc", tmp_path / "result.json"
    write_dataset(study, STUDY)
    write_json(result, RESULT)
    smallest, size = result.stat().st_size, study.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    for _ in range(cases):
        calls = [(write_dataset, study, STUDY, size)]
        calls += [(write_json, result, RESULT, smallest)]
        for write, path, values, most in calls:
            resource.setrlimit(resource.RLIMIT_FSIZE, (moments.randrange(most), hard))
            try:
                answer = said(lambda write=write, path=path, values=values: write(path, values))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            refused += isinstance(answer, str) and answer.startswith(f"cannot write {path}")
    assert refused == 2 * cases
    assert read_dataset(study).identical(STUDY)
    assert read_json(result, "") == RESULT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "study.nc"]
    print(f"files that cannot grow: {refused} tried, each named; the earlier file stays")
