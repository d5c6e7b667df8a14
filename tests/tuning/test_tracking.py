"""`HeadScoreCallback` in a trainer: its measurements are correct and do not change the training."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import torch
from headnb.engine.hooks import find_heads
from headnb.errors import HeadnbError
from headnb.tasks.loading import subset
from headnb.tuning.budget import schedule
from headnb.tuning.movement import Movement
from headnb.tuning.options import defaults
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from architectures import build
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS, Weights, rows, sft_trainer

if TYPE_CHECKING:
    from pathlib import Path

SUMS = headnb.load_task(PAIRS[:6], name="sums")
SURE = headnb.load_task(PAIRS[6:10], name="sure")


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")


class Steps(TrainerCallback):
    """Records the weights after each update, by name; `stop` interrupts the training before an update."""

    def __init__(self, stop: int = -1) -> None:
        self.after: dict[int, dict[str, torch.Tensor]] = {}
        self._stop = stop

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._stop:
            raise KeyboardInterrupt

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.after[state.global_step] = {name: value.detach().clone() for name, value in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("adapters", [False, True])
def test_tracking_changes_no_bit_of_the_training(adapters: bool, tmp_path: Path) -> None:
    """Dropout, accumulation and checkpointing would reveal a changed random state or flag."""
    runs = []
    for tracked in (False, True):
        model, steps = tiny_model(attention_dropout=0.2), Steps()
        callbacks = [headnb.HeadScoreCallback([SUMS, SURE], every=1, online=True, answers=2)] if tracked else []
        arguments = {"gradient_accumulation_steps": 2, "gradient_checkpointing": True, "max_steps": 4}
        folder = tmp_path / str(tracked)
        trainer = sft_trainer(model, folder, *callbacks, steps, peft_config=lora() if adapters else None, **arguments)
        trainer.train()
        drawn = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())  # noqa: NPY002
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        runs.append((steps.after, drawn, losses))
    (plain, *others), (tracked_run, *tracked_others) = runs
    assert all(equal(plain[step], tracked_run[step]) for step in range(1, 5))
    assert others == tracked_others
    assert not equal(plain[1], plain[4])


@pytest.mark.parametrize("adapters", [False, True])
def test_tracked_scores_are_those_of_the_weights_of_that_step(adapters: bool, tmp_path: Path) -> None:
    model, steps, callback = tiny_model(), Steps(), headnb.HeadScoreCallback({"a": SUMS, "b": SURE}, every=2)
    before = headnb.score_heads(model, tiny_tokenizer(), SURE)
    trainer = sft_trainer(model, tmp_path, callback, steps, peft_config=lora() if adapters else None)
    trainer.train()
    study, scores = callback.study, callback.scores["b"]
    assert scores.step.values.tolist() == [0, 2, 3]
    np.testing.assert_allclose(scores.score.sel(step=0), before.score, rtol=1e-5, atol=1e-8)
    for step in (2, 3):
        trainer.model.load_state_dict(steps.after[step])
        expected = headnb.score_heads(trainer.model, tiny_tokenizer(), SURE)
        np.testing.assert_array_equal(scores.score.sel(step=step), expected.score)
        level = abs(expected.score.values.astype(float)).mean(0)
        np.testing.assert_allclose(study.level.sel(step=step, task="b"), level)
        assert study.eval_loss.sel(step=step, task="b") == pytest.approx(float(expected.loss.mean()))
    assert study.level.attrs["kind"] == "level"


def test_tracked_exact_match_is_that_of_the_weights_of_that_step(tmp_path: Path) -> None:
    """Every answer of the training data begins with "It", which the tiny model learns first."""
    begun = headnb.load_task([(prompt, "It") for prompt, _ in PAIRS[:6]], name="begun")
    shown = {"answers": 4, "max_new_tokens": len(tiny_tokenizer()("It", add_special_tokens=False)["input_ids"])}
    model, steps, callback = tiny_model(), Steps(), headnb.HeadScoreCallback(begun, every=2, **shown)
    trainer = sft_trainer(model, tmp_path, callback, steps, max_steps=12, learning_rate=0.01)
    trainer.train()
    study, matches = callback.study, callback.scores["begun"]["exact_match"]
    assert matches.notnull().sum("sample").values.tolist() == [4] * study.sizes["step"]
    first = subset(begun, range(4))
    for step in (2, 12):
        trainer.model.load_state_dict(steps.after[step])
        expected = headnb.evaluate(trainer.model, tiny_tokenizer(), first, max_new_tokens=shown["max_new_tokens"])
        assert matches.sel(step=step)[:4].values.tolist() == expected["exact_match"].values.tolist()
        assert study["exact_match"].sel(step=step).item() == float(expected["accuracy"])
    assert study["exact_match"][0].item() < study["exact_match"][-1].item()
    assert headnb.open_study(tmp_path / "head_scores").study["exact_match"].equals(study["exact_match"])


@pytest.mark.parametrize(("numbers", "message"), [({"answers": -1}, "answers"), ({"max_new_tokens": 0}, "max_new")])
def test_numbers_of_answers_below_their_least_value_are_refused(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(HeadnbError, match=message):
        headnb.HeadScoreCallback(SUMS, **numbers)


def test_samples_and_tokens_seen_are_those_of_the_batches_also_when_packed(tmp_path: Path) -> None:
    lengths = [len(row["input_ids"]) for row in rows()]
    callback = headnb.HeadScoreCallback(every=1)
    sft_trainer(tiny_model(), tmp_path / "a", callback, max_steps=6).train()  # an epoch of 24 samples in batches of 4
    assert callback.study.samples_seen.values.tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert callback.study.tokens_seen.values[-1] == sum(lengths)
    packed = headnb.HeadScoreCallback(every=1)
    arguments = {"packing": True, "max_length": 96, "max_steps": -1, "num_train_epochs": 1}
    sft_trainer(tiny_model(), tmp_path / "b", packed, **arguments).train()
    last = packed.study.isel(step=-1)
    assert (last.samples_seen, last.tokens_seen) == (24, sum(lengths))


def test_movement_is_the_relative_distance_of_the_dense_weights(tmp_path: Path) -> None:
    for adapters in (None, lora()):
        model, steps = tiny_model(), Steps()
        callback = headnb.HeadScoreCallback(every=3)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        trainer = sft_trainer(model, tmp_path / str(adapters is None), callback, steps, peft_config=adapters)
        trainer.train()
        end = trainer.model.merge_and_unload().state_dict() if adapters else model.state_dict()
        for layer in range(2):
            names = [name for name in start if f"layers.{layer}." in name]
            moved = sum(float((end[name].double() - start[name].double()).square().sum()) for name in names)
            norm = sum(float(start[name].double().square().sum()) for name in names)
            assert callback.study.movement.sel(step=3, layer=layer) == pytest.approx((moved / norm) ** 0.5, rel=1e-4)
        assert (callback.study.movement.sel(step=0) == 0).all()


def test_movement_is_not_known_where_one_pair_of_factors_serves_several_experts() -> None:
    model = build("mixtral", torch.float32)
    layout = find_heads(model)
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"])
    assert np.isnan(Movement(get_peft_model(model, config), layout).measure()).all()


def test_an_interrupted_training_resumes_with_the_same_weights_and_study(tmp_path: Path) -> None:
    arguments = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}

    def run(folder: Path, stop: int, resume: bool) -> tuple[Any, headnb.HeadScoreCallback]:
        callback = headnb.HeadScoreCallback(SUMS, every=2, online=True)
        trainer = sft_trainer(tiny_model(), folder, callback, Steps(stop), peft_config=lora(), **arguments)
        try:
            trainer.train(resume_from_checkpoint=resume)
        except KeyboardInterrupt:
            callback.close()
        return trainer.model.state_dict(), callback

    run(tmp_path / "b", stop=5, resume=False)
    interrupted = headnb.open_study(tmp_path / "b")
    assert interrupted.study.step.values.tolist() == [0, 2, 4]
    resumed, again = run(tmp_path / "b", stop=-1, resume=True)
    whole, once = run(tmp_path / "a", stop=-1, resume=False)
    assert equal(resumed, whole)
    assert again.study.drop_attrs().identical(once.study.drop_attrs())
    assert again.scores["sums"].score.identical(once.scores["sums"].score)
    assert again.online_scores.score.identical(once.online_scores.score)
    assert headnb.open_study(tmp_path / "b").study.drop_attrs().identical(once.study.drop_attrs())


def test_a_resumed_training_with_other_tracked_tasks_fails_before_its_first_update(tmp_path: Path) -> None:
    arguments = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3}

    def run(tasks: object, *, resume: bool, **options: Any) -> headnb.HeadScoreCallback:
        callback = headnb.HeadScoreCallback(tasks, **options)
        sft_trainer(tiny_model(), tmp_path, callback, **arguments).train(resume_from_checkpoint=resume)
        return callback

    def refused(message: str, tasks: object, **options: Any) -> None:
        before = (tmp_path / "head_scores" / "study.nc").read_bytes()
        with pytest.raises(headnb.HeadnbError, match=message):
            run(tasks, resume=True, **options)
        assert (tmp_path / "head_scores" / "study.nc").read_bytes() == before

    run(SUMS, resume=False, samples=4)
    (tmp_path / "checkpoint-3" / "trainer_state.json").rename(tmp_path / "state")  # as if stopped before step 3
    (tmp_path / "checkpoint-3").rename(tmp_path / "stopped")
    refused("tracked tasks 'sums', not 'sums', 'sure'", [SUMS, SURE])
    refused("tracked tasks 'sums', not none", ())
    refused("4 samples of 'sums', not 3", SUMS, samples=3)
    refused("other samples of 'sums'", {"sums": PAIRS[-6:]}, samples=4)
    refused("method 'activation', not 'output-norm'", SUMS, method="output-norm")
    kept = run(SUMS, resume=True, every=1).scores["sums"]
    assert kept.sizes["sample"] == 4
    assert not np.isnan(kept.score).any()


def test_a_new_training_replaces_an_earlier_study_with_a_warning(tmp_path: Path, recwarn: Any) -> None:
    def replaced() -> list[str]:
        said = [str(warning.message) for warning in recwarn if "replaced" in str(warning.message)]
        recwarn.clear()
        return said

    for every, steps in ((1, [0, 1, 2]), (2, [0, 2])):
        sft_trainer(tiny_model(), tmp_path, headnb.HeadScoreCallback(SUMS, every=every), max_steps=2).train()
        assert headnb.open_study(tmp_path).study.step.values.tolist() == steps
        said = [f"{tmp_path / 'head_scores'} has the study of an earlier training, which is replaced"]
        assert replaced() == (said if every == 2 else [])


def test_a_resumed_training_without_its_study_deletes_no_scores_of_earlier_steps(tmp_path: Path) -> None:
    arguments = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    sft_trainer(tiny_model(), tmp_path, headnb.HeadScoreCallback(SUMS, every=1), **arguments).train()
    (tmp_path / "head_scores" / "study.nc").unlink()
    files = {path: path.read_bytes() for path in tmp_path.glob("head_scores/scores/sums/*.nc")}
    callback = headnb.HeadScoreCallback(SUMS, every=1)
    sft_trainer(tiny_model(), tmp_path, callback, **arguments | {"max_steps": 3}).train(resume_from_checkpoint=True)
    assert {path.name for path in files} == {"step-0.nc", "step-1.nc", "step-2.nc"}
    assert {path: path.read_bytes() for path in files if path.exists()} == files
    assert headnb.open_study(tmp_path).study.step.values.tolist() == [3]


def test_named_steps_are_tracked_and_the_last_one_always(tmp_path: Path) -> None:
    callback = headnb.HeadScoreCallback(SUMS, every=[0, 1, 2, 50])
    sft_trainer(tiny_model(), tmp_path, callback, max_steps=5).train()
    assert callback.study.step.values.tolist() == [0, 1, 2, 5]
    assert callback.study.train_loss["update"].values.tolist() == [1, 2, 3, 4, 5]


def test_numbers_are_logged_by_the_trainer_without_replacing_its_own_log(tmp_path: Path) -> None:
    callback = headnb.HeadScoreCallback(SUMS, every=2)
    trainer = sft_trainer(tiny_model(), tmp_path, max_steps=4)
    trainer.add_callback(callback)
    callback.log = trainer.log
    trainer.train()
    history = trainer.state.log_history
    assert [log["step"] for log in history if "headnb/sums/loss" in log] == [0, 2, 4]
    assert [log["step"] for log in history if "loss" in log] == [1, 2, 3, 4]
    logged = [log["headnb/sums/loss"] for log in history if "headnb/sums/loss" in log]
    np.testing.assert_allclose(logged, callback.study.eval_loss.sel(task="sums"))


def test_tasks_with_long_names_have_folders_of_their_own(tmp_path: Path) -> None:
    names = ["算" * 60 + end for end in ("甲", "乙")]
    callback = headnb.HeadScoreCallback(dict.fromkeys(names, SUMS), every=3)
    sft_trainer(tiny_model(), tmp_path, callback, max_steps=1).train()
    opened = headnb.open_study(tmp_path)
    assert list(opened.scores) == names
    assert len(list((tmp_path / "head_scores" / "scores").iterdir())) == 2


def test_steps_can_be_numpy_integers() -> None:
    assert [step for step in range(5) if schedule(np.int64(2))(step)] == [0, 2, 4]  # type: ignore[arg-type]
    assert [step for step in range(5) if schedule(np.array([0, 3]))(step)] == [0, 3]
    assert defaults(tiny_model(), np.int64(2), 8, {}, keep=True)["save_steps"] == 2


@pytest.mark.parametrize("every", [0, -1, True, "x", [1, -2], 2.5])
def test_invalid_steps_are_refused(every: Any) -> None:
    with pytest.raises(HeadnbError, match="every must be a number of steps"):
        schedule(every)


def test_tasks_of_one_name_and_unknown_methods_are_refused() -> None:
    with pytest.raises(HeadnbError, match="two tracked tasks have the name 'sums'"):
        headnb.HeadScoreCallback([SUMS, SUMS])
    with pytest.raises(HeadnbError, match="activation"):
        headnb.HeadScoreCallback(SUMS, method="activatoin")
    with pytest.raises(HeadnbError, match="tokenizer"):
        headnb.HeadScoreCallback(SUMS, tokeniser=None)


def test_weights_helper_is_before_the_update(tmp_path: Path) -> None:
    weights, steps = Weights(), Steps()
    sft_trainer(tiny_model(), tmp_path, weights, steps, max_steps=2).train()
    assert equal(weights.before[2], steps.after[1])
