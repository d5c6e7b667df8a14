"""Random instructions and random heads are sampled independently for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.selection.features import sample_features
from headnb.analysis.selection.study import ALONE
from headnb.experiments import selection_trials
from headnb.experiments.folder import Run, Settings
from headnb.experiments.samples import Samples

from simulated_finetuning import scores_of

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ("gcd", "lcm", "leg_counting")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Settings("tiny", TASKS, n=6))


def test_each_target_has_random_instructions_of_its_own(run: Run) -> None:
    trial = selection_trials.SelectionTrial(run, None, None, (), pool_samples=20, target_samples=3, ways=["random"])
    chosen = {target: set(trial.chosen("random", target, 20, seed=1).ids) for target in TASKS}
    assert chosen["gcd"] == set(trial.chosen("random", "gcd", 20, seed=1).ids)
    for first, second in (("gcd", "lcm"), ("gcd", "leg_counting"), ("lcm", "leg_counting")):
        assert len(chosen[first] & chosen[second]) < 15  # of 20 out of 60, 7 by chance


def test_the_size_of_the_pool_is_that_of_its_smallest_task(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else precision would be compared at a k that a perfect choice cannot fill."""
    whole = Samples.training
    monkeypatch.setattr(
        Samples, "training", lambda self, task, seed, n: whole(self, task, seed, 7 if task == "lcm" else n)
    )
    trial = selection_trials.SelectionTrial(run, None, None, (), pool_samples=20, target_samples=30, ways=["random"])
    assert trial.precision([2]).attrs == {"pool_samples": 7, "target_samples": 6}


def test_each_task_trains_random_heads_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same scores for every task, the top heads are the same and random heads overlap by chance only."""
    scores = scores_of(np.random.default_rng(0).gamma(2, size=(4, 10, 12)))
    losses = xr.DataArray(np.ones((3, 6)), {"evaluated": list(TASKS)}, ("evaluated", "sample"))
    heads: dict[str, list[set[str]]] = {"top": [], "random": []}

    def losses_after(model: Any, tokenizer: Any, samples: Any, tested: Any, keep: Path, **how: Any) -> xr.Dataset:
        heads["random" if "random" in keep.stem else "top"].append(set(how["heads"]))
        return xr.Dataset({"loss": losses}, attrs={"trained_parameters": 1})

    class Model:
        def num_parameters(self) -> int:
            return 1

    monkeypatch.setattr(selection_trials, "losses_after", losses_after)
    monkeypatch.setattr(selection_trials, "losses_of", lambda *_, **__: losses)
    monkeypatch.setattr(selection_trials, "score_heads", lambda *_, **__: scores)
    sizes = {"choosing_samples": 4, "tested_samples": 6, "steps": 2, "batch_size": 2}
    selection_trials.selective_losses(run, Model(), None, (), (0,), heads=30, beside=(), rates={"heads": 1e-4}, **sizes)
    assert heads["top"][0] == heads["top"][1] == heads["top"][2]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert len(heads["random"][first] & heads["random"][second]) < 20  # of 30 out of 120


@pytest.fixture
def trial(run: Run, model: Any, tokenizer: Any) -> selection_trials.SelectionTrial:
    ways = ["less", "embedding", "random"]
    sizes = {"pool_samples": 4, "target_samples": 2, "warmup_samples": 20}
    return selection_trials.SelectionTrial(run, model, tokenizer, ["gcd", "lcm"], ways=ways, **sizes)


def test_scarce_trainings_use_the_target_and_chosen_samples_of_other_tasks(
    trial: selection_trials.SelectionTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, list[Any]] = {}

    def losses_after(model: Any, tokenizer: Any, samples: Any, tested: Any, keep: Path, **how: Any) -> xr.Dataset:
        trained[keep.name] = [sample.prompt for sample in samples.samples]
        return xr.Dataset({"loss": (("evaluated", "sample"), np.ones((1, 4)))})

    monkeypatch.setattr(selection_trials, "losses_after", losses_after)
    found = trial.losses(["embedding"], [2, 3], [0], scarce=True, steps=1)
    assert found["scarce_loss"].dims == ("scarce_way", "target", "tuned_k", "seed", "sample")
    assert list(found["scarce_way"].values) == ["embedding", ALONE]
    own = [sample.prompt for sample in trial.targets["gcd"].samples]
    others = {sample.prompt for name in ("lcm", "leg_counting") for sample in trial.pool[name].samples}
    assert trained["gcd.target-alone.2.seed0.nc"] == own
    for k in (2, 3):
        prompts = trained[f"gcd.embedding.{2 + k}.seed0.nc"]
        assert prompts[:2] == own
        assert len(prompts) == 2 + k
        assert set(prompts[2:]) <= others


def test_less_compares_updates_of_the_pool_with_gradients_of_the_target(
    trial: selection_trials.SelectionTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets, pool = trial._compared("less")
    checkpoints = list((trial._run.folder / "selection" / "warmup").glob("checkpoint-*"))
    assert len(checkpoints) == selection_trials.WARMUP_EPOCHS
    for scores, candidates in ((targets["gcd"], False), (pool["gcd"], True)):
        task = (trial.pool if candidates else trial.targets)["gcd"]
        how = {"max_length": trial._run.settings.max_length, "warmup": trial._run.folder / "selection" / "warmup"}
        expected = sample_features(trial._model, trial._tokenizer, task, "less", candidates=candidates, **how)
        xr.testing.assert_allclose(scores["feature"], expected["feature"])
    monkeypatch.setattr(selection_trials, "finetune", lambda *_, **how: how["resume"] or pytest.fail("trained again"))
    assert trial._warmup().is_dir()
