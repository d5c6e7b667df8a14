"""Changes along a study: equal to `headnb.compare` and to a hand calculation, kept on disk and in the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import headnb
import numpy as np
import pytest
from headnb.display.grid_text import loss_line
from headnb.display.payload import payload
from headnb.stats.patterns import evidence
from headnb.tuning.study import Study, TrackedStep, read_study
from scipy import stats

from synthetic_results import scores

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

STEPS = (0, 5, 20)


def at_step(step: int, samples: int = 12) -> xr.Dataset:
    """Scores of the same samples, whose levels fall along the training by an amount that differs between heads."""
    first = scores(samples, 3, 4)
    factors = 1 - step / 40 * np.arange(12).reshape(3, 4) / 12
    noise = np.random.default_rng(step).normal(1, 0.05, first["score"].shape) if step else 1
    return first.assign(score=first["score"] * factors * noise)


def study_of(folder: Path | None = None, samples: int = 12) -> Study:
    study = Study(folder)
    for step in STEPS:
        study.add(TrackedStep(step, {"t": at_step(step, samples)}, np.zeros(3), step, step))
    return study


@pytest.mark.parametrize("step", STEPS)
def test_the_change_of_every_step_is_that_of_compare(step: int) -> None:
    study = study_of()
    tracked = study.scores()["t"]
    expected = headnb.compare(tracked.sel(step=0), tracked.sel(step=step))
    found = study.dataset().sel(step=step, task="t")
    for name, column in {"change": "difference", "change_low": "low", "change_high": "high"}.items():
        np.testing.assert_array_equal(found[name], expected[column])
    np.testing.assert_array_equal(found["change_q_value"], expected["q_value"])
    for name in found["evidence"].values.tolist():
        np.testing.assert_equal(float(found["change_evidence"].sel(evidence=name)), expected.attrs[name])
    np.testing.assert_array_equal(found["level_evidence"], evidence(tracked.sel(step=step)))


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    found = study_of().dataset().sel(step=20, task="t")
    pairs = [abs(at_step(step)["score"].sel(layer=2, head=3).values.astype(np.float64)) for step in (20, 0)]
    interval = stats.ttest_rel(*pairs).confidence_interval(0.95)
    cell = found.sel(layer=2, head=3)
    np.testing.assert_allclose([cell["change_low"], cell["change_high"]], [interval.low, interval.high], rtol=1e-6)


def test_one_sample_has_levels_but_no_change() -> None:
    study = study_of(samples=1).dataset()
    assert study["change"].isnull().all()
    assert study["level"].notnull().all()
    assert not any("change" in panel for panel in payload(study)["panels"])


def test_a_study_on_disk_has_the_same_changes(tmp_path: Path) -> None:
    study = study_of(tmp_path / "study")
    study.write()
    stored = read_study(tmp_path / "study").dataset()
    np.testing.assert_array_equal(stored["change_q_value"], study.dataset()["change_q_value"])


def test_the_payload_has_changes_on_their_own_diverging_scale_and_the_losses() -> None:
    study = study_of()
    study.train_loss = {update: 20.0 - update / 100 for update in range(1, 1001)}
    made = payload(study.dataset())
    assert [panel["step"] for panel in made["panels"]] == list(STEPS)
    scale = made["change_scale"]
    assert scale["low"] == -scale["high"] < 0 <= made["scale"]["low"]
    assert made["alpha"] == 0.05
    change = headnb.compare(at_step(0), at_step(20))
    drawn = made["panels"][-1]["change"]
    assert drawn["significant"] == change["significant"].values.astype(int).tolist()
    assert drawn["reliability_line"].startswith("Reliability ")
    training, tracked = made["curves"]
    assert [training["label"], tracked["label"]] == ["training loss", "loss on t"]
    assert tracked["steps"] == list(STEPS)
    assert len(training["steps"]) <= 400
    np.testing.assert_allclose(training["values"], 20.0 - np.array(training["steps"]) / 100, rtol=1e-3)


def test_the_payload_has_the_exact_match_if_answers_are_compared() -> None:
    study = study_of().dataset()
    matches = np.linspace(0, 0.75, study.sizes["step"])
    study["exact_match"] = (("step", "task"), matches[:, None])
    made = payload(study)
    *_, found = made["curves"]
    assert (found["label"], found["units"]) == ("exact match on t", "")
    assert found["values"] == pytest.approx(matches, abs=1e-4)
    assert loss_line(made).endswith("exact match on t 0 → 0.750.")
    study["exact_match"][:] = np.nan  # no answer of the task can be compared
    assert [curve["label"] for curve in payload(study)["curves"]] == ["loss on t"]


def test_recomputed_changes_are_not_drawn_as_tested() -> None:
    study = study_of().dataset()
    study["change"] = study["change"] * 2
    assert not any("change" in panel for panel in payload(study)["panels"])
