"""Samples to half-change of several models: real run folders, and planted speeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import headnb
import numpy as np
import pandas as pd
import pytest
from headnb.errors import HeadnbError
from headnb.experiments import across_models
from headnb.experiments.folder import Run, Settings
from headnb.storage.files import write_json
from scipy import stats

from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def planted(half: dict[str, float], noise: float = 0.1, tasks: int = 5) -> pd.DataFrame:
    """`half`: model -> its true samples; every task has its own speed, the same for all models."""
    rng = np.random.default_rng(0)
    speed = rng.lognormal(sigma=1, size=tasks)
    rows = [
        {"model": model, "family": "llama", "parameters": 1e6 * (row + 1), "task": f"task{task}", "seed": seed}
        | {"samples": samples * speed[task] * rng.lognormal(sigma=noise)}
        for row, (model, samples) in enumerate(half.items())
        for task in range(tasks)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_ratios_are_paired_by_task_and_intervals_are_students() -> None:
    changes = planted({"small": 40, "middle": 40, "large": 10})
    found = across_models.compare_models(changes)
    assert list(found["model"]) == ["small", "middle", "large"]
    logs = changes.assign(log=np.log(changes["samples"])).pivot_table("log", "model", "task")
    difference = logs.loc["large"] - logs.loc["small"]
    ends = stats.t.interval(0.95, 4, difference.mean(), stats.sem(difference))
    large = found.sel(model="large")
    np.testing.assert_allclose([large["ratio_low"], large["ratio_high"]], np.exp(ends))
    assert float(large["value"]) == pytest.approx(np.exp(logs.loc["large"].mean()))
    text = across_models.across_models_summary(found)
    assert "times the samples of small: fewer." in text
    assert "times the samples of small: not shown to be more or fewer." in text


def test_a_task_without_a_half_change_in_one_model_is_left_out() -> None:
    changes = planted({"small": 40, "large": 10})
    changes.loc[(changes["model"] == "large") & (changes["task"] == "task3"), "samples"] = np.nan
    found = across_models.compare_models(changes)
    assert (found.attrs["tasks"], found.attrs["left_out"]) == (4, 2)
    assert "2 training runs without a measured half-change are left out." in across_models.across_models_summary(found)
    few = across_models.compare_models(changes[changes["task"] < "task2"])
    assert few["ratio"].count() == 2
    assert few["ratio_high"].count() == 0
    assert "not shown to be more or fewer" in across_models.across_models_summary(few)
    with pytest.raises(HeadnbError, match="no task has a measured half-change in every model"):
        across_models.compare_models(changes.assign(samples=np.nan))


def test_run_folders_of_two_models_give_their_sizes_and_crossings(tmp_path: Path) -> None:
    """A tiny model, and one of half its width."""
    tokenizer, folders = tiny_tokenizer(), []
    for hidden in (32, 16):
        model, folder = tiny_model(hidden=hidden), tmp_path / f"model{hidden}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        run = Run.create(tmp_path / f"run{hidden}", Settings(str(folder), ("gcd",), n=6, max_length=256))
        scored = {"gcd": run.samples.scored("gcd")}
        how = {"steps": 4, "batch_size": 2, "learning_rate": 1e-2, "every": [0, 1, 2, 4], "max_length": 256}
        tuned = headnb.finetune(model, tokenizer, run.samples.training("gcd", 0, 8), track=scored, **how)
        tuned.save(run.paths.finetuning("gcd", 0))
        write_json(run.paths.finetuning("gcd", 0) / "result.json", {})
        folders.append(run.folder)
    changes = across_models.half_changes(folders)
    assert changes["parameters"].tolist() == [tiny_model(hidden=hidden).num_parameters() for hidden in (32, 16)]
    assert changes["family"].tolist() == ["llama", "llama"]
    of_first = headnb.open_study(Run(folders[0]).paths.finetuning("gcd", 0))
    expected = headnb.trajectory(of_first.study, of_first.scores, scale_free=True)
    np.testing.assert_allclose(changes["samples"][0], expected.half.value * 2)
    np.testing.assert_allclose(changes["high"][0], expected.half.high * 2)
    with pytest.raises(HeadnbError, match="two run folders have the model"):
        across_models.half_changes([folders[0], folders[0]])
