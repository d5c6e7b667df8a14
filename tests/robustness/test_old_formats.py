"""Files of older versions open with the numbers that were written, or are refused with an error that names them.

A version without checksums wrote tests/fixtures/format-1: sample p of three has the score p + (0, 1, .. 7) / 8 and the
loss p + 1. The last version without a scoring revision wrote tests/fixtures/revision-1 from `tiny_model()` and
`STOPPED`, and was stopped after two of four samples. tests/fixtures/payloads has head grids.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from headnb import HeadnbError, open_scores, score_heads
from headnb.experiments.folder import Run
from headnb.stats.scoring_revision import SCORING_REVISION
from headnb.storage.reading import read_parts
from headnb.tuning.study import read_study

from paths import FIXTURES
from tiny import tiny_model

OLD = FIXTURES / "format-1"
SCORE = (np.arange(3)[:, None, None] + np.arange(8).reshape(2, 4) / 8).astype(np.float32)
REVISION_1 = FIXTURES / "revision-1" / "stopped.zarr"
STOPPED = [{"input_ids": [1, 5 + i, 6, 7, 8 + i], "labels": [-100, -100, -100, 7, 8 + i]} for i in range(4)]
FORMATS = ("store", "stopped store", "fit", "run folder", "study")


def test_a_store_of_format_1_opens():
    scores = open_scores(OLD / "scores.zarr")
    assert scores["sample"].values.tolist() == ["a", "b", "ç"]
    assert np.array_equal(scores["score"], SCORE)
    assert np.array_equal(scores["loss"], [1, 2, 3])
    assert scores["answer_tokens"].values.tolist() == [4, 5, 6]
    assert (scores.attrs["task"], scores.attrs["complete"]) == ("gcd", 1)
    (part,) = read_parts(OLD / "scores.zarr", 10)
    assert np.array_equal(part["score"], SCORE[part["position"]])


def test_a_store_of_format_1_that_was_stopped_goes_on(tmp_path):
    from headnb.engine.batching import BatchPlan
    from headnb.storage.method_tables import MethodTables
    from headnb.storage.score_store import open_table

    out = shutil.copytree(OLD / "stopped.zarr", tmp_path / "a.zarr")
    scored = open_scores(out)
    assert scored["sample"].values.tolist() == ["a", "ç"]
    attrs = {name: value for name, value in scored.attrs.items() if name != "complete"}
    plan = BatchPlan(np.array([2, 0, 1]), np.array([0, 0, 1]))
    known = {name: np.zeros(3, int) for name in ("answer_tokens", "batch_answer_tokens", "fingerprint")}
    with open_table(out, attrs, ("a", "b", "ç"), known, plan, (2, 4)) as table:
        (left,) = MethodTables({"activation": table}).pending()
        table.write(left, SCORE[[1]], np.float32([2]))
    assert np.array_equal(open_scores(out)["score"], SCORE)


def test_a_store_of_an_earlier_scoring_revision_opens_and_is_not_resumed(tmp_path):
    out = shutil.copytree(REVISION_1, tmp_path / "a.zarr")
    with pytest.warns(UserWarning, match="scoring revision 1, this version has 2"):
        scores = open_scores(out)
    assert (scores.attrs["scoring_revision"], scores.attrs["complete"], scores.sizes["sample"]) == (1, 0, 2)
    assert np.isfinite(scores["score"]).all()
    with pytest.raises(HeadnbError, match="of scoring revision 1, and this version of headnb computes revision 2"):
        score_heads(tiny_model(), None, STOPPED, out=out, batch_tokens=10)
    shutil.rmtree(out)
    again = score_heads(tiny_model(), None, STOPPED, out=out, batch_tokens=10)
    assert (again.attrs["scoring_revision"], again.attrs["complete"]) == (SCORING_REVISION, 1)


def test_a_fit_of_format_1_opens():
    fitted = open_scores(OLD / "gates.zarr")
    assert np.array_equal(fitted["score"], np.arange(16).reshape(2, 2, 4) / 16)
    assert fitted["class"].values.tolist() == ["low", "high"]
    assert "state_momentum" not in fitted


def test_a_run_folder_of_format_1_opens():
    run = Run(OLD / "run")
    assert (run.settings.model, run.settings.tasks, run.settings.n) == ("tiny", ("gcd",), 3)
    assert np.array_equal(run.before("gcd")["score"], SCORE)
    assert run.trained == {"gcd": (0,)}
    assert np.array_equal(run.after("gcd", 0, "gcd")["score"], SCORE)
    assert run.result("gcd", 0)["loss"] == {"gcd": {"before": 2.0, "after": 2.0}}
    with pytest.warns(UserWarning, match="findings of revision 1"):
        assert run.findings.numbers("selectivity") == {"gini": 0.25}
    with pytest.warns(UserWarning, match="findings of revision 1"):
        assert run.findings.arrays("selectivity")["gini"].values.tolist() == [0.25]
    study = read_study(run.paths.finetuning("gcd", 0))
    assert sorted(study.steps) == [0, 1]
    assert np.array_equal(study.steps[1].scores["gcd"]["score"], 2 * SCORE)
    assert study.train_loss == {1: 0.5}


def test_stores_and_run_folders_of_a_later_version_are_refused_by_name(tmp_path):
    for name in ("scores.zarr", "gates.zarr"):
        out = shutil.copytree(OLD / name, tmp_path / name)
        root = json.loads((out / "zarr.json").read_text())
        root["attributes"]["headnb_format"] = 99
        (out / "zarr.json").write_text(json.dumps(root))
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    begun = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(begun | {"format": 99}))
    with pytest.raises(
        HeadnbError, match=r"scores\.zarr has format 99; this version of headnb reads formats 1, 2 and 3"
    ):
        open_scores(tmp_path / "scores.zarr")
    with pytest.raises(HeadnbError, match=r"gates\.zarr has format 99"):
        open_scores(tmp_path / "gates.zarr")
    with pytest.raises(HeadnbError, match="has format 99; this version of headnb reads 1"):
        _ = Run(run).settings
    print(f"formats of an older version: {len(FORMATS)} opened ({', '.join(FORMATS)}); 3 of a later version refused")
