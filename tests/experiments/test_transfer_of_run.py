"""Measurements of transfer in a run folder, against the same numbers taken from its files by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.display.report import FOUND, UNDECIDED
from headnb.errors import HeadnbError
from headnb.experiments import transfer
from headnb.experiments.folder import Run, Settings
from headnb.storage.files import write_json

from simulated_tracking import SHAPE

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ("gcd", "lcm", "products")
STEPS = [0, 1, 4, 12]


def study(task: str, seed: int) -> xr.Dataset:
    rng = np.random.default_rng([TASKS.index(task), seed])
    levels = rng.gamma(3, size=(len(STEPS), 1, *SHAPE))
    return xr.Dataset(
        {
            "level": (("step", "task", "layer", "head"), levels),
            "eval_loss": (("step", "task"), rng.gamma(3, size=(4, 1))),
        },
        {"step": STEPS, "task": [task]},
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`products` rises by its own training; every run of `gcd` lowers the loss of `lcm` by a quarter nat."""
    found = Run.create(tmp_path, Settings("tiny", TASKS, n=4, max_length=256))
    for task in TASKS:
        for seed in (0, 1):
            after = {name: 2.0 if name == task else 2.75 for name in TASKS} | (
                {"products": 3.5} if task == "products" else {}
            )
            losses = {name: {"before": 3.0, "after": after[name] - 0.1 * seed} for name in TASKS}
            write_json(found.paths.finetuning(task, seed) / "result.json", {"loss": losses})
    monkeypatch.setattr(Run, "study", lambda _, task, seed: study(task, seed))
    monkeypatch.setattr(Run, "before", lambda _, task: xr.Dataset({"loss": ("sample", [3.0, 4.0])}))
    return found


def test_measures_are_those_of_the_files(run: Run, model: Any, tokenizer: Any) -> None:
    found = transfer.transfer_measures(run, model, tokenizer, early_steps=10, samples=3)
    assert found["trained"].values.tolist() == ["gcd", "lcm"]
    np.testing.assert_allclose(found["gain"].sel(trained="gcd"), [1, 0.3 / 1.05])
    changes, patterns = [], []
    for task in ("gcd", "lcm"):
        shapes = np.array([study(task, seed)["level"].values[:, 0] for seed in (0, 1)])
        shapes = shapes / shapes.mean(axis=(2, 3), keepdims=True)
        changes.append((shapes[:, 2] - shapes[:, 0]).mean(axis=0).ravel())
        patterns.append(shapes[:, 2].mean(axis=0).ravel())
    np.testing.assert_allclose(found["change of the pattern"], np.corrcoef(changes))
    np.testing.assert_allclose(found["pattern"], np.corrcoef(patterns))
    falls = [study("lcm", seed)["eval_loss"].values[:, 0] for seed in (0, 1)]
    expected = np.mean([loss[0] - loss[2] for loss in falls])
    assert float(found["early fall of the loss"].sel(trained="lcm")) == pytest.approx(expected)
    of_task = [
        headnb.sample_features(model, tokenizer, run.samples.training(task, 0, 3), "gradient", max_length=256)[
            "feature"
        ]
        for task in ("gcd", "lcm")
    ]
    one, other = (features.values.astype(float).mean(axis=0) for features in of_task)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert float(found["gradients"].sel(trained="gcd", evaluated="lcm")) == pytest.approx(cosine, rel=1e-5)
    assert "there are 2" in transfer.transfer_of(found).verdict


def test_an_untracked_start_names_the_parameter(run: Run, model: Any, tokenizer: Any) -> None:
    with pytest.raises(HeadnbError, match="tracked no step from 1 to 0; see track_steps"):
        transfer.transfer_measures(run, model, tokenizer, early_steps=0)


@pytest.mark.parametrize("signal", [3.0, 0.0])
def test_the_report_says_whether_patterns_predict_transfer(signal: float) -> None:
    rng = np.random.default_rng(5)
    names = [f"task{i}" for i in range(8)]
    vectors = rng.normal(size=(4, 8, 3))
    pattern, change, gradients, text = (latent @ latent.T for latent in vectors)
    gain = signal * change + 0.3 * rng.normal(size=(8, 8))
    square = {"gain": gain, "pattern": pattern, "change of the pattern": change, "gradients": gradients, "text": text}
    measures = xr.Dataset(
        {name: (("trained", "evaluated"), values) for name, values in square.items()}
        | {"loss before": ("evaluated", rng.normal(size=8)), "early fall of the loss": ("trained", rng.normal(size=8))},
        {"trained": names, "evaluated": names},
        {"early_steps": 10},
    )
    section = transfer.transfer_section(measures)
    expected = "change of the pattern predicts" if signal else "Patterns are not shown to predict"
    assert section.finding is not None
    assert section.finding.headline == f"{expected} transfer beyond losses and text similarity."
    assert section.finding.verdict == (FOUND if signal else UNDECIDED)
