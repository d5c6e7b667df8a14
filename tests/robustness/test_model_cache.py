"""Cache of the default model: damaged, full and read-only disks, killed processes and races.

The larger numbers of cases are slow: `make robustness`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from headnb import HeadnbError
from headnb.models import default_model, folder_checksums
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.loading import load_model
from tqdm import auto, std

from stores import corrupt, one_line

FORKED = multiprocessing.get_context("fork")  # a forked process has the tiny model in memory


def cases(few, many):
    return pytest.mark.parametrize("cases", [few, pytest.param(many, marks=pytest.mark.slow)])


@pytest.fixture
def convert(model, tokenizer):
    return lambda _: (model, tokenizer)


def left_in(folder):
    """Names of the files in a folder, without locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


def as_another_process(call):
    """Call without this process's record of verified files."""
    folder_checksums._sound.clear()
    return call()


@cases(60, 4000)
def test_a_bit_that_flips_is_named_with_its_cure_and_never_loaded(cases, model_cache, convert):
    made = default_model.default_folder(convert)
    moments, found = random.Random(cases), Counter()
    files = sorted(made.iterdir())
    for _ in range(cases):
        path = moments.choice(files)
        content = path.read_bytes()
        path.write_bytes(corrupt(content, moments))
        with pytest.raises(HeadnbError) as refused:
            as_another_process(lambda: default_model.default_folder(convert))
        said = one_line(refused.value)
        assert "is damaged" in said
        assert f"remove the folder {made}, and the next call converts the model again" in said
        found[path.name] += 1
        path.write_bytes(content)
    assert as_another_process(lambda: default_model.default_folder(convert)) == made
    print(f"flipped bits and truncated files in the model's cache: {found.total()} tried, each named; {dict(found)}")
    assert len(found) == len(files)


@cases(6, 300)
def test_a_file_that_cannot_grow_is_one_line_and_leaves_nothing(cases, model_cache, convert):
    """The operating system refuses to write, in the middle of a file."""
    moments = random.Random(cases)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(cases):
        resource.setrlimit(resource.RLIMIT_FSIZE, (moments.randrange(20_000), hard))
        try:
            with pytest.raises(HeadnbError, match=r"File too large.*needs 0\.6 GB") as refused:
                default_model.default_folder(convert)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        one_line(refused.value)
        assert left_in(model_cache) == left_in(Path(tempfile.gettempdir(), f"headnb-{os.getuid()}")) == []
    print(f"files that cannot grow: {cases} tried, each one line and nothing left")
    assert default_model.default_folder(convert) == model_cache / "smollm2-135m"


@cases(3, 20)
def test_loads_from_an_unwritable_cache_share_one_copy(cases, model_cache, model, convert):
    model_cache.parent.write_text("a file where the folder should be")
    converted = []

    def counted(path):
        converted.append(path)
        return convert(path)

    for _ in range(cases):
        folder = as_another_process(lambda: default_model.default_folder(counted))
        assert weights_fingerprint(load_model(folder)[0]) == weights_fingerprint(model)
    assert len(converted) == 1
    assert len(left_in(Path(tempfile.gettempdir()))) == 1
    print(f"loads from an unwritable cache: {cases}, one conversion and one copy")


def slowly(convert, log):
    """A logged conversion that takes long enough for other processes to start."""

    def read(path):
        with log.open("a") as file:
            file.write("x")
        time.sleep(0.3)
        return convert(path)

    return read


def make(convert, began):
    for bar in (std.tqdm, auto.tqdm):  # forks share the default lock, and a killed process never releases it
        bar.set_lock(threading.RLock())
    began.set()
    default_model.default_folder(convert)


@cases(2, 30)
def test_processes_that_convert_at_once_convert_once(cases, model_cache, convert, tmp_path):
    for case in range(cases):
        log, began = tmp_path / f"log{case}", FORKED.Event()
        together = [FORKED.Process(target=make, args=(slowly(convert, log), began)) for _ in range(4)]
        for each in together:
            each.start()
        for each in together:
            each.join(300)
        assert [each.exitcode for each in together] == [0] * 4
        assert log.read_text() == "x"
        made = default_model.default_folder(convert)
        assert left_in(model_cache) == [made.name]
        made.rename(tmp_path / f"away{case}")
    print(f"four processes that convert at once: {cases} times, one conversion each")


@cases(6, 100)
def test_a_conversion_that_is_killed_leaves_nothing_behind_the_next(cases, model_cache, model, convert, tmp_path):
    moments, found = random.Random(cases), Counter()
    for case in range(cases):
        began = FORKED.Event()
        process = FORKED.Process(target=make, args=(convert, began))
        process.start()
        assert began.wait(300)
        time.sleep(moments.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        left = left_in(model_cache)
        found["a part of it" if any(name.startswith(".") for name in left) else "all of it" if left else "nothing"] += 1
        made = default_model.default_folder(convert)
        assert left_in(model_cache) == [made.name]
        folder_checksums.check_files(made)
        made.rename(tmp_path / f"away{case}")
    print(f"killed conversions: {cases} tried; left: {dict(found)}; the next conversion was complete, without remains")
