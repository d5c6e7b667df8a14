"""Score stores: one writer at a time, a lock that ends with its process, kills between batches, lazy reading."""

from __future__ import annotations

import signal
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError, open_scores, score_heads
from headnb.engine.batching import BatchPlan
from headnb.scoring.progress import ScoringInterrupted
from headnb.storage import score_store, zarr_columns
from headnb.storage.row_buffer import ScoreRows, merge_adjacent
from headnb.storage.score_store import open_table
from headnb.storage.zarr_columns import SAMPLE_VARIABLES

from forks import PROCESSES, exit_code
from scoring_samples import BUDGET, TASK, same_scores
from store_writer_process import write_store
from stores import SAMPLES, score_into
from tiny import tiny_model


@pytest.fixture(scope="module")
def whole():
    """Scores of an undisturbed run."""
    return score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET)


@contextmanager
def another_writer(out, moment):
    """Run a writer in another process and pause it at this moment of its run; it goes on once `test` is closed."""
    test, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=write_store, args=(out, moment, theirs))
    process.start()
    theirs.close()
    try:
        assert test.recv() == "paused"
        yield process, test
    finally:
        process.kill()


def killed_writer(out, moment):
    assert exit_code(write_store, out, moment) == -signal.SIGKILL


def test_ids_that_could_not_be_read_again_are_refused_before_scoring(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_columns, "MOST_TEXT_BYTES", 4 * SAMPLES * 8)
    with pytest.raises(HeadnbError, match=r"the ids of these 30 samples take more than .* give shorter ids"):
        score_into(tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("moment", ["pause_while_creating", "pause_after_each_batch"])
def test_a_second_process_is_refused_and_the_first_ends_undisturbed(moment, whole, tmp_path):
    out = tmp_path / "a.zarr"
    with another_writer(out, moment) as (first, test):
        for _ in range(2):
            with pytest.raises(HeadnbError, match=r"another run is writing scores to .*a\.zarr now; wait") as refused:
                score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out)
        assert "\n" not in str(refused.value)
        test.close()
        first.join(300)
        assert first.exitcode == 0
    assert same_scores(open_scores(out), whole)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where no file can be created")
def test_a_place_where_no_file_can_be_made_is_not_taken_for_a_locked_one():
    with pytest.raises(HeadnbError, match=r"cannot write scores to /proc/a\.zarr"):
        score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out="/proc/a.zarr")


def test_a_store_is_read_while_it_is_written_and_its_lock_dies_with_the_writer(whole, tmp_path):
    out = tmp_path / "a.zarr"
    with another_writer(out, "pause_after_each_batch") as (first, _):
        part = open_scores(out)
        assert part.attrs["complete"] == 0
        assert 0 < part.sizes["sample"] < len(TASK)
        assert part.score.equals(whole.score.sel(sample=part.sample))
        first.kill()
        first.join()
        assert same_scores(score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out), whole)
    assert same_scores(open_scores(out), whole)


def test_the_lock_is_gone_after_an_error_and_an_interrupt(whole, tmp_path):
    """Also while a notebook keeps the error with all of its frames, as `sys.last_exc`."""
    kept = []
    for error in (ValueError("of a callback"), KeyboardInterrupt()):

        def stop(_, error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=tmp_path / "a.zarr", on_progress=stop)
        kept.append(caught.value)
    assert same_scores(score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=tmp_path / "a.zarr"), whole)


def test_a_complete_store_is_given_back_without_a_lock(whole, tmp_path, monkeypatch):
    """Nothing is written, so two calls at once and a read-only disk are fine."""
    out = tmp_path / "a.zarr"
    score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out)
    monkeypatch.setattr("headnb.storage.score_store.write_lock", lambda _: pytest.fail("locked"))
    assert same_scores(score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out), whole)


def test_a_kill_before_the_store_has_its_name_leaves_no_store_and_the_same_call_makes_it(whole, tmp_path):
    out = tmp_path / "a.zarr"
    killed_writer(out, "die_before_the_rename")
    with pytest.raises(HeadnbError, match="there are no scores at"):
        open_scores(out)
    assert (tmp_path / ".a.zarr.draft").exists()
    assert same_scores(score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.zarr.lock", "a.zarr"]


def torn(out, moment):
    """Whether the process was killed between two chunks, so that only a part of a batch is marked or renumbered."""
    stored = xr.open_zarr(out, consolidated=False).load()
    if moment == "die_while_marking":
        return any(0 < marks.sum() < marks.size for _, marks in stored.done.groupby(stored.batch))
    numbers = stored.batch.values
    return (np.diff(numbers) < 0).any()  # new batch numbers are higher than all old ones


@pytest.mark.parametrize("moment", ["die_while_replanning", "die_while_marking"])
def test_a_kill_between_two_chunks_of_one_array_loses_and_doubles_no_sample(moment, whole, tmp_path):
    out = tmp_path / "a.zarr"
    killed_writer(out, moment)
    part = open_scores(out)
    assert 0 < part.sizes["sample"] < len(TASK)
    assert torn(out, moment)
    seen = []
    found = score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out, on_progress=seen.append)
    assert seen[0].done == part.sizes["sample"]
    assert found.sample.equals(whole.sample)
    assert np.allclose(found.loss, whole.loss, rtol=1e-5)
    assert np.abs(found.score - whole.score).max() < 1e-5 * np.abs(whole.score).max()
    assert same_scores(open_scores(out), found)


@pytest.fixture
def clock(monkeypatch):
    """Monotonic clock that only the test advances."""
    passed = [0.0]
    monkeypatch.setattr(score_store.time, "monotonic", lambda: passed[0])
    return passed


def written(monkeypatch, out):
    """List to which the number of samples on disk is appended after each batch."""
    counts = []
    write = score_store.ScoreTable.write

    def write_and_count(table, *args):
        write(table, *args)
        counts.append(int(xr.open_zarr(out, consolidated=False).done.sum()))

    monkeypatch.setattr(score_store.ScoreTable, "write", write_and_count)
    return counts


def test_batches_that_are_faster_than_a_second_are_written_together(whole, tmp_path, clock, monkeypatch):
    out = tmp_path / "a.zarr"
    found = written(monkeypatch, out)
    scored = score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out, packed=False)
    first, *others = found
    assert 0 < first < len(TASK)
    assert len(others) > 2
    assert set(others) == {first}  # the clock did not advance
    assert open_scores(out).attrs["complete"] == 1
    assert same_scores(open_scores(out), scored)
    assert np.allclose(scored.score, whole.score, rtol=1e-4, atol=1e-7)


def test_a_batch_that_took_a_second_is_written_at_once(tmp_path, clock, monkeypatch):
    out = tmp_path / "a.zarr"
    found, done = written(monkeypatch, out), []

    def took_a_second(progress):
        clock[0] += score_store.WRITE_INTERVAL
        done.append(progress.done)

    score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out, on_progress=took_a_second)
    assert found == done[1:]  # the first report comes before the first batch


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("cable pulled")])
def test_what_waits_to_be_written_is_written_when_a_run_ends_early(tmp_path, clock, error):
    out, done = tmp_path / "a.zarr", []

    def stop(progress):
        done.append(progress.done)
        if len(done) == 4:
            raise error

    with pytest.raises((ScoringInterrupted, RuntimeError)):
        score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out, on_progress=stop)
    assert 0 < open_scores(out).sizes["sample"] == done[-1] < len(TASK)


def test_rows_that_follow_each_other_are_written_in_one_piece():
    def rows(start, stop):
        numbers = np.arange(start, stop, dtype=np.float32)
        return ScoreRows(start, numbers[:, None, None], -numbers)

    found = list(merge_adjacent([rows(7, 9), rows(2, 4), rows(4, 5), rows(11, 12)]))
    assert [(part.start, part.stop) for part in found] == [(2, 5), (7, 9), (11, 12)]
    for part in found:
        assert part.scores[:, 0, 0].tolist() == (-part.losses).tolist() == list(range(part.start, part.stop))


@pytest.fixture
def nothing_read_before_it_is_used(monkeypatch):
    monkeypatch.setattr(score_store, "LAZY_FROM_BYTES", 0)


def test_many_scores_on_disk_are_read_where_they_are_used(whole, tmp_path, monkeypatch, nothing_read_before_it_is_used):
    read = []
    once = score_store.read_rows
    monkeypatch.setattr(score_store, "read_rows", lambda *asked, **of: read.append(asked[1:]) or once(*asked, **of))
    scores = score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=tmp_path / "a.zarr")
    assert [name for name, _ in read] == ["loss"]
    some = [5, 0, 3]
    np.testing.assert_array_equal(scores.score[some, 1, 2], whole.score.values[some, 1, 2])
    assert len(read[-1][1]) == len(some)
    assert same_scores(scores, whole)
    assert same_scores(open_scores(tmp_path / "a.zarr"), whole)
    np.testing.assert_array_equal(scores.heads.pattern(), whole.heads.pattern())


def test_scores_read_later_answer_to_every_kind_of_key(whole, tmp_path, nothing_read_before_it_is_used):
    scores = score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=tmp_path / "a.zarr").score
    expected = whole.score
    for keys in [
        {"sample": 2},
        {"sample": slice(None, None, -2), "head": [1, 0]},
        {"sample": [], "layer": 1},
        {"layer": slice(1, 2), "head": -1},
        {"sample": xr.DataArray([3, 3, 1], dims="pair"), "head": xr.DataArray([0, 1, 1], dims="pair")},
    ]:
        xr.testing.assert_identical(scores.isel(keys).drop_attrs(), expected.isel(keys).drop_attrs())


def test_a_chunk_that_was_damaged_after_a_store_was_opened_is_named_where_it_is_used(
    tmp_path, nothing_read_before_it_is_used
):
    scores = score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=tmp_path / "a.zarr")
    chunk = tmp_path / "a.zarr" / "score" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(HeadnbError, match=r"a\.zarr/score/c/0/0/0 is damaged"):
        scores.score.mean().item()


def test_a_store_takes_no_memory_for_the_scores_that_are_to_come(tmp_path):
    def write_a_batch(name, n):
        plan = BatchPlan(np.arange(n), np.arange(n) // 8)
        known = dict.fromkeys(SAMPLE_VARIABLES, np.zeros(n, np.int64))
        with open_table(tmp_path / name, {}, tuple(range(n)), known, plan, (32, 32)) as table:
            table.write(np.arange(8), np.ones((8, 32, 32), np.float32), np.ones(8, np.float32))
            table.write(np.arange(8, 16), np.ones((8, 32, 32), np.float32), np.ones(8, np.float32))

    write_a_batch("first.zarr", 16)  # loads what zarr itself needs
    tracemalloc.start()
    write_a_batch("second.zarr", 16_384)  # 64 MB if all scores were in memory
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16e6
    assert np.isfinite(open_scores(tmp_path / "second.zarr").score).all()
    assert open_scores(tmp_path / "second.zarr").sizes["sample"] == 16
