"""Stores moved, removed or replaced during reading or writing: never NaN, never another store's scores.

The expected values are the arrays that were written: see `stores`.
"""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError, open_scores, score_heads
from headnb.engine.batching import plan_batches
from headnb.storage import score_store, zarr_columns
from headnb.storage.method_tables import MethodTables

import stores
from stores import ABOUT, HEADS, KNOWN, LAYERS, LOSS, SAMPLES, SCORE, score_into, scores_are_correct
from tiny import tiny_model

IDS = tuple(f"sämple-{number}" for number in range(SAMPLES))


@pytest.fixture(autouse=True)
def small_chunks_read_late(monkeypatch):
    """Store each column in three files, and read scores only on use."""
    monkeypatch.setattr(zarr_columns, "CHUNK_BYTES", 10 * 8 * 4)
    monkeypatch.setattr(score_store, "LAZY_FROM_BYTES", 0)


def other_scores_into(path, monkeypatch):
    """Write another model's scores of the same samples."""
    with monkeypatch.context() as patch:
        patch.setattr(stores, "ABOUT", {**ABOUT, "model": "other"})
        patch.setattr(stores, "SCORE", -2 * SCORE)
        score_into(path)


def test_scores_of_a_relative_path_are_right_after_chdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, opened = score_into("a.zarr"), open_scores("a.zarr")
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    assert scores_are_correct(made)
    assert scores_are_correct(opened)


@pytest.mark.parametrize("again", [False, True], ids=["gone", "replaced"])
@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_scores_of_a_store_that_moved_are_refused(how, again, tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    opened = [score_into(path), open_scores(path)]
    if how == "renamed":
        path.rename(tmp_path / "b.zarr")
    else:
        shutil.rmtree(path)
    if again:
        other_scores_into(path, monkeypatch)
    for scores in opened:
        with pytest.raises(HeadnbError, match="open it again"):
            scores.score.values  # noqa: B018
    if how == "renamed":
        assert scores_are_correct(open_scores(tmp_path / "b.zarr"))


def test_the_same_scores_scored_again_are_another_store(tmp_path):
    path = tmp_path / "a.zarr"
    scores = score_into(path)
    shutil.rmtree(path)
    score_into(path, batches=1)  # rows that are not scored yet would be NaN
    with pytest.raises(HeadnbError, match="was replaced by another store after it was opened"):
        scores.score.values  # noqa: B018


def test_a_chunk_that_is_gone_is_named_and_scored_again(tmp_path):
    path = tmp_path / "a.zarr"
    scores = score_into(path)
    (path / "score" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(HeadnbError, match=r"score/c/1/0/0 is missing; run the same call"):
        scores.score.values  # noqa: B018
    assert scores_are_correct(score_into(path))


@pytest.mark.parametrize("when", ["between batches", "at the end"])
@pytest.mark.parametrize("lost", ["score/c/0", "loss/c", "done/c", "score", "order", "."])
def test_what_vanishes_during_a_run_is_no_complete_store_and_the_same_call_heals_it(lost, when, tmp_path):
    path = tmp_path / "a.zarr"
    plan = plan_batches(stores._LENGTHS, batch_tokens=120)

    def run():
        with score_store.open_table(path, ABOUT, IDS, KNOWN, plan, (LAYERS, HEADS)) as table:
            pending = MethodTables({"activation": table}).pending()
            for number, rows in enumerate(pending):
                table.write(rows, SCORE[plan.order[rows]], LOSS[plan.order[rows]])
                table.flush()
                if number == (1 if when == "between batches" else len(pending) - 1):
                    shutil.rmtree(path / lost)
            table.verify()

    with pytest.raises(HeadnbError):
        run()
    if path.exists():
        try:
            assert open_scores(path).attrs["complete"] == 0
        except HeadnbError:  # the columns that no batch writes are lost: the run cannot be resumed
            shutil.rmtree(path)
    assert scores_are_correct(score_into(path))
    assert scores_are_correct(open_scores(path))


def test_rows_that_an_earlier_version_left_empty_are_scored_again(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    score_into(path)
    import zarr

    zarr.open_group(path)["score"][3:6] = np.nan  # marked as done
    with pytest.raises(HeadnbError, match="samples without scores"):
        open_scores(path).score.values  # noqa: B018
    monkeypatch.setattr(score_store, "LAZY_FROM_BYTES", 2**26)
    assert scores_are_correct(score_into(path))


def test_xarray_labels_the_rows_of_a_store_as_headnb_does(tmp_path):
    scores = score_into(tmp_path / "a.zarr")
    raw = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert raw.sample.values.tolist() != list(IDS)  # processing order
    for name in ("score", "loss", *KNOWN):
        xr.testing.assert_equal(
            raw[name].sel(sample=scores.sample).drop_vars(["layer", "head"], errors="ignore"),
            scores[name].drop_vars(["layer", "head"], errors="ignore"),
        )


def test_score_heads_scores_again_what_vanished(tmp_path):
    """Through the public function, with a model; the expected values are those of a run in memory."""
    task = [{"input_ids": [3, 4, 5 + i], "labels": [-100, -100, 5 + i]} for i in range(25)]
    path, model = tmp_path / "a.zarr", tiny_model()

    def vanish(progress):
        if progress.done == progress.total:
            (path / "score" / "c" / "0" / "0" / "0").unlink()

    with pytest.raises(HeadnbError, match="run the same call again"):
        score_heads(model, None, task, out=path, on_progress=vanish, batch_tokens=12)
    scores = score_heads(model, None, task, out=path, batch_tokens=12)
    assert scores.attrs["complete"] == 1
    np.testing.assert_allclose(scores.score, score_heads(model, None, task, batch_tokens=12).score, rtol=1e-5)
