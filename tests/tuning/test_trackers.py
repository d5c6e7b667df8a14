"""Tracked steps in TensorBoard, W&B and trackio: equal to the study, in the trainer's own run, harmless on errors."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from base64 import b64decode
from functools import partial
from importlib.machinery import ModuleSpec
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
from datasets import Dataset
from headnb.errors import HeadnbError
from headnb.tuning.trackers import step_numbers
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, integration_utils
from trl import SFTConfig

from paths import ROOT
from short_trainings import short_finetuning
from tiny import tiny_model, tiny_tokenizer
from trackers import FakeTrackio, Steps, picture_of, tensorboard_steps, wandb_steps
from trainers import PAIRS, QuietSFTTrainer, rows, sft_trainer

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

TASKS = {"sums": PAIRS[:8], "held (out)": PAIRS[8:13]}


def check_steps(logged: Steps, study: xr.Dataset, scores: dict[str, xr.Dataset]) -> None:
    """Compare everything that was logged with statistics of the scores."""
    names = {step: {name for name in row if name.startswith("headnb/")} for step, row in logged.items()}
    assert sorted(step for step, found in names.items() if found) == study.step.values.tolist()
    for step in study.step.values.tolist():
        row, expected = logged[step], {"headnb/movement": study.movement.sel(step=step).mean()}
        for task, of_task in scores.items():
            first, now = of_task.isel(step=0), of_task.sel(step=step)
            compared = headnb.compare(first, now)
            expected |= {
                f"headnb/{task}/loss": now.loss.mean(),
                f"headnb/{task}/gini": now.heads.pattern().heads.gini(),
                f"headnb/{task}/reliability": now.heads.reliability(),
                f"headnb/{task}/change": abs(compared.difference).sum() / abs(first.heads.pattern()).sum(),
                f"headnb/{task}/significant_heads": (compared.q_value < 0.05).sum(),
            }
            steps = [0] if step == 0 else [0, step]
            grid = study.sel(task=[task], step=steps).heads.grid()
            png = grid._repr_mimebundle_(include={"image/png"})["image/png"]
            np.testing.assert_array_equal(row[f"headnb/{task}/grid"], picture_of(b64decode(png)))
        assert names[step] == expected.keys() | {f"headnb/{task}/grid" for task in scores}
        for name, number in expected.items():
            assert row[name] == pytest.approx(float(number), rel=1e-5), name


class StopAt(TrainerCallback):
    """Ends the training after a step that the callbacks before it do not expect to be the last."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == self._step


def test_tensorboard_gets_the_numbers_and_pictures_of_a_finetuning(tmp_path: Path) -> None:
    result = short_finetuning(
        tiny_model(), track=TASKS, learning_rate=0.05, output_dir=tmp_path, report_to="tensorboard"
    )
    logged = tensorboard_steps(tmp_path)
    check_steps(logged, result.study, result.scores)
    assert logged[4]["headnb/sums/significant_heads"] > 0
    assert len(list(tmp_path.rglob("events.out.tfevents*"))) == 1
    assert "train/loss" in logged[4]


def test_a_step_after_the_end_of_the_training_reaches_the_same_tensorboard_folder(tmp_path: Path) -> None:
    callback = headnb.HeadScoreCallback(TASKS, every=[0])
    sft_trainer(tiny_model(), tmp_path, callback, StopAt(2), max_steps=4, report_to="tensorboard").train()
    assert callback.study.step.values.tolist() == [0, 2]
    check_steps(tensorboard_steps(tmp_path), callback.study, callback.scores)
    assert len({path.parent for path in tmp_path.rglob("events.out.tfevents*")}) == 1


def test_a_tensorboard_callback_added_last_also_gets_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a writer opened too early would write to ./runs
    callback = headnb.HeadScoreCallback({"sums": PAIRS[:8]}, every=1)
    sft_trainer(tiny_model(), tmp_path / "out", callback, TensorBoardCallback(), max_steps=1).train()
    check_steps(tensorboard_steps(tmp_path / "out"), callback.study, callback.scores)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_wandb_gets_them_offline_in_the_run_that_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    import wandb

    run = wandb.init(project="heads", dir=tmp_path)
    callback = headnb.HeadScoreCallback(TASKS, every=[0])
    sft_trainer(tiny_model(), tmp_path / "out", callback, StopAt(2), max_steps=3, report_to="wandb").train()
    assert wandb.run is run
    wandb.teardown()  # waits for its process to write the files
    logged = wandb_steps(tmp_path)
    check_steps(logged, callback.study, callback.scores)
    assert "train/loss" in logged[2]
    assert len(list(tmp_path.rglob("run-*.wandb"))) == 1


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> FakeTrackio:
    fake = FakeTrackio()
    fake.__spec__ = ModuleSpec("trackio", None)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def test_trackio_gets_them_in_the_run_of_its_callback(tmp_path: Path, trackio: FakeTrackio) -> None:
    callback = headnb.HeadScoreCallback(TASKS, every=2)
    sft_trainer(tiny_model(), tmp_path, callback, max_steps=2, report_to="trackio").train()
    check_steps(trackio.steps, callback.study, callback.scores)


def test_a_step_after_the_end_of_trackios_run_is_a_warning(tmp_path: Path, trackio: FakeTrackio) -> None:
    callback = headnb.HeadScoreCallback(TASKS, every=[0])
    trainer = sft_trainer(tiny_model(), tmp_path, callback, StopAt(1), max_steps=2, report_to="trackio")
    with pytest.warns(UserWarning, match="head scores of step 1 were not logged to trackio: Call trackio.init"):
        trainer.train()
    check_steps(trackio.steps, callback.study.sel(step=[0]), callback.scores)
    assert callback.study.step.values.tolist() == [0, 1]


def test_an_error_of_a_tracker_is_one_warning_and_the_training_continues(tmp_path: Path, trackio: FakeTrackio) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server\ndid not answer")

    trackio.Image = fail
    callback = headnb.HeadScoreCallback(TASKS, every=1)
    trainer = sft_trainer(tiny_model(), tmp_path, callback, max_steps=3, report_to=["trackio", "tensorboard"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    messages = [str(warning.message) for warning in caught if "trackio" in str(warning.message)]
    assert messages == ["head scores of step 0 were not logged to trackio: the server"]
    assert trainer.state.global_step == 3
    check_steps(tensorboard_steps(tmp_path), callback.study, callback.scores)  # the other tracker gets everything


@pytest.mark.parametrize("tracker", ["mlflow", "trackio"])
def test_a_finetuning_logs_numbers_to_other_trackers_and_only_once_to_these(
    tracker: str, trackio: FakeTrackio, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[dict[str, float]] = []

    class Recorder(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            received.append(logs)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", Recorder)
    result = short_finetuning(tiny_model(), steps=2, track=TASKS, report_to=tracker)
    if tracker == "mlflow":
        tracked = [{name: log[name] for name in log if name.startswith("headnb/")} for log in received]
        assert [numbers for numbers in tracked if numbers] == [step_numbers(result.study, step) for step in (0, 2)]
    else:
        check_steps(trackio.steps, result.study, result.scores)
        assert not [name for row in trackio.steps.values() for name in row if name.startswith("train/headnb")]


@pytest.mark.long
def test_without_a_tracker_none_is_imported(tmp_path: Path) -> None:
    script = f"""
import sys
import headnb, torch
from tiny import tiny_model, tiny_tokenizer
from transformers import Trainer, TrainingArguments

row = {{"input_ids": torch.arange(8), "labels": torch.arange(8)}}
callback = headnb.HeadScoreCallback({{"sums": [("1 + 1 =", "2")]}}, tokenizer=tiny_tokenizer())
options = TrainingArguments({str(tmp_path)!r}, max_steps=1, use_cpu=True, save_strategy="no", disable_tqdm=True)
Trainer(tiny_model(), options, train_dataset=[row], callbacks=[callback]).train()
assert callback.study.sizes["step"] == 2
print({{"wandb", "trackio", "tensorboard", "torch.utils.tensorboard"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_documentation_runs_and_names_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")
    names = {
        "headnb": headnb,
        "wandb": wandb,
        "model": tiny_model(),
        "tokenizer": tiny_tokenizer(),
        "task": headnb.load_task(PAIRS[:8], name="sums"),
        "train_dataset": Dataset.from_list(rows()),
        "SFTConfig": partial(SFTConfig, use_cpu=True, bf16=False, save_strategy="no"),
        "SFTTrainer": QuietSFTTrainer,
    }
    for block in re.findall(r"^ *```python\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL):
        short = dedent(block).replace("steps=200", "steps=2").replace("every=20", "every=20, answers=2")
        exec(short, names)
    wandb.teardown()
    documented = set(re.findall(r"^\| `(headnb/\S+)` ", page, re.MULTILINE))
    for logged, task in (
        (tensorboard_steps(tmp_path / "runs" / "lora"), "sums"),
        (tensorboard_steps(tmp_path / "runs" / "own"), "gsm8k"),
        (wandb_steps(tmp_path), "sums"),
    ):
        assert {name.replace(task, "<task>") for name in logged[2] if name.startswith("headnb/")} == documented


def test_numbers_that_are_not_available_are_left_out() -> None:
    """One sample has no test and no reliability; signed scores have no Gini coefficient."""
    one = short_finetuning(tiny_model(), track={"one": PAIRS[:1]}, steps=1, method="ablate-zero")
    assert step_numbers(one.study, 1).keys() == {"headnb/movement", "headnb/one/loss"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"report_to": "trackio"}, "report_to='trackio' needs trackio: pip install trackio"),
        ({"report_to": ["tensorboard"]}, "report_to='tensorboard' needs output_dir='FOLDER'"),
        ({"report_to": "tensorbord"}, "tensorbord is not supported"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_answered_in_one_line(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(HeadnbError, match=message) as raised:
        short_finetuning(tiny_model(), **options)
    assert "\n" not in str(raised.value)
