"""Results of another scoring revision can be opened, but not resumed or mixed with new results."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError
from headnb.experiments.folder import Run, Settings
from headnb.experiments.mixtures import mixtures_for
from headnb.stats.findings_revision import FINDINGS_REVISION
from headnb.stats.scoring_revision import SCORING_REVISION, revision_note
from headnb.storage.files import write_dataset, write_json
from headnb.suite import graph as suite_graph
from headnb.tuning.checkpoint_tracking import _open_study
from headnb.tuning.run_folder import open_folder
from headnb.tuning.study import Study, TrackedStep, read_study

from paths import FIXTURES
from suites import NOTEBOOKS, graph, write_suite

REFUSED = f"of scoring revision 1, and this version of headnb computes revision {SCORING_REVISION}"
OLD_RUN = FIXTURES / "format-1" / "run"
NOW = {"scoring_revision": SCORING_REVISION}


def test_a_run_of_an_earlier_revision_opens_and_is_not_resumed(tmp_path):
    folder = shutil.copytree(OLD_RUN, tmp_path / "run")
    settings = Run(folder).settings
    with pytest.raises(HeadnbError, match=f"contains a run {REFUSED}"):
        Run.create(folder, settings)
    new = tmp_path / "new"
    Run.create(new, Settings("tiny", ("gcd",)))
    assert Run.create(new, Settings("tiny", ("gcd",))).settings.model == "tiny"


def test_a_fine_tuning_of_an_earlier_revision_is_not_resumed(tmp_path):
    settings = {"model": "tiny", "seed": 0}
    open_folder(tmp_path / "old", settings, resume=True, inplace=False)
    with pytest.raises(HeadnbError, match=f"contains a fine-tuning {REFUSED}"):
        open_folder(tmp_path / "old", settings | NOW, resume=True, inplace=False)
    open_folder(tmp_path / "new", settings | NOW, resume=True, inplace=False)
    open_folder(tmp_path / "new", settings | NOW, resume=True, inplace=False)


def test_a_study_of_an_earlier_revision_is_not_resumed(tmp_path):
    study = Study(tmp_path, {"model": "tiny"})
    study.add(TrackedStep(0, {}, np.zeros(2), 0.0, 0.0))
    study.write()
    assert sorted(read_study(tmp_path).steps) == [0]
    with pytest.raises(HeadnbError, match=f"contains a study {REFUSED}"):
        _open_study(tmp_path, {"model": "tiny", **NOW}, SimpleNamespace(checkpoints=[]))


def test_keys_of_a_suite_change_with_the_revision(tmp_path, monkeypatch):
    suite = write_suite(tmp_path)
    before = {node.name: node.key for node in graph(suite, tmp_path / "out")}
    assert before == {node.name: node.key for node in graph(suite, tmp_path / "out")}
    monkeypatch.setattr(suite_graph, "SCORING_REVISION", SCORING_REVISION + 1)
    after = {node.name: node.key for node in graph(suite, tmp_path / "out")}
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_keys_of_notebooks_that_write_findings_change_with_the_findings_revision(tmp_path, monkeypatch):
    end = {**NOTEBOOKS["end"], "writes": ["findings/selectivity.json"]}
    suite = write_suite(tmp_path, notebooks={**NOTEBOOKS, "end": end})
    before = {node.name: node.key for node in graph(suite, tmp_path / "out")}
    monkeypatch.setattr(suite_graph, "FINDINGS_REVISION", FINDINGS_REVISION + 1)
    after = {node.name: node.key for node in graph(suite, tmp_path / "out")}
    assert {name for name in before if before[name] != after[name]} == {"end"}


def test_old_findings_open_with_a_warning_and_nothing_new_is_computed_from_them(tmp_path):
    run = Run.create(tmp_path / "run", Settings("tiny", ("gcd",)))
    path = run.findings.save("composition", {"gcd": 1}, xr.Dataset({"x": 1.0}, attrs={"level": 0.95}))
    assert run.findings.numbers("composition", current=True) == {"gcd": 1}
    assert run.findings.arrays("composition").attrs == {"level": 0.95}
    write_json(path, {"gcd": 1})  # the format of earlier versions
    write_dataset(path.with_suffix(".nc"), xr.Dataset({"x": 1.0}))
    with pytest.warns(UserWarning, match="findings of revision 1"):
        assert run.findings.numbers("composition") == {"gcd": 1}
    with pytest.warns(UserWarning, match="run notebook 04_composition again"):
        run.findings.arrays("composition")
    with pytest.raises(HeadnbError, match="findings of revision 1"):
        mixtures_for(run, "gcd", 0, 4, ["weights"])


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({}, ""),
        (NOW, ""),
        ({"versions": "{}"}, "an earlier version of headnb (scoring revision 1"),
        ({"scoring_revision": 1}, "an earlier version of headnb (scoring revision 1"),
        ({"scoring_revision": SCORING_REVISION + 1}, "a later version"),
    ],
)
def test_the_note_says_which_revision_scores_are_of(attrs, expected):
    note = revision_note(attrs)
    assert expected in note
    assert bool(note) == bool(expected)


@pytest.mark.parametrize("revision", [None, "2", [2], 1.5])
def test_a_revision_that_is_no_number_is_one_line(revision):
    with pytest.raises(HeadnbError, match="the stored scoring_revision is not a whole number"):
        revision_note({"scoring_revision": revision})
