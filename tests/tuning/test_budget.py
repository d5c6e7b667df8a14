"""The budget of tracking: the plan keeps it, changes nothing else, and says what it costs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.errors import HeadnbError
from headnb.tuning.budget import MIN_SAMPLES, Costs, TrackingPlan, plan_tracking, schedule

from short_trainings import same_values, values_of
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS, sft_trainer

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"a": 64, "b": 20}


def plan(last: int, update: float = 1.0, sample: float = 0.1, **options: Any) -> TrackingPlan:
    return plan_tracking(last, Costs(update, {"a": sample, "b": 2 * sample}, 0.05, 0.3), SIZES, **options)


@pytest.mark.parametrize("budget", [0.05, 0.25, 1.0])
@pytest.mark.parametrize("update", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("last", [1, 2, 6, 7, 60, 1000])
def test_a_plan_keeps_the_budget_or_is_the_smallest_one_and_says_so(last: int, update: float, budget: float) -> None:
    chosen = plan(last, update, budget=budget)
    assert (chosen.steps[0], chosen.steps[-1]) == (0, last)
    assert chosen.samples >= MIN_SAMPLES
    # By hand: 0.3 s to measure; at each step 0.05 s, 0.1 s per sample of a, and 0.2 s per sample of b, which has 20.
    cost = 0.3 + len(chosen.steps) * (0.05 + 0.1 * chosen.samples + 0.2 * min(chosen.samples, 20))
    assert chosen.share == pytest.approx(cost / (last * update))
    if cost > budget * last * update:
        assert (chosen.steps, chosen.samples) == ((0, last), MIN_SAMPLES)
        assert f"more than the budget of {budget:.0%}" in chosen.line
    else:
        assert "more than the budget" not in chosen.line


def test_a_larger_budget_first_gives_samples_then_steps_then_samples_again() -> None:
    plans = [plan(1000, update, budget=0.25) for update in np.geomspace(0.01, 10, 40)]
    sizes = [(each.samples, len(each.steps)) for each in plans]
    assert sizes == sorted(sizes)
    assert list(dict.fromkeys(sizes)) == [
        *[(samples, 2) for samples in (8, 12, 16, 24, 32)],
        *[(32, steps) for steps in (3, 4, 6, 11)],
        *[(samples, 11) for samples in (48, 64)],
    ]


def test_what_is_given_is_kept_and_the_budget_chooses_the_rest() -> None:
    chosen = plan(100, 2.0, samples=20)
    assert chosen.samples == 20
    assert chosen.steps == (0, 20, 40, 60, 80, 100)
    chosen = plan(100, 1.0, steps=schedule([1, 5]))
    assert chosen.steps == (0, 1, 5, 100)
    assert chosen.samples == 16
    assert "fewer than 8 samples give no reliable pattern" in plan(100, samples=4).line


def test_the_line_names_steps_samples_and_cost() -> None:
    costs = Costs(update=0.5, samples={"a": 0.03}, tracked_step=0.04, measuring=1.0)
    assert plan_tracking(200, costs, {"a": 64}).line == (
        "Tracking 48 samples at every 20 steps: about 17 s, 17% of the training's 1 min 40 s"
    )
    assert plan_tracking(4, costs, {"a": 64}).line == (
        "Tracking 8 samples at steps 0, 4: about 1.6 s, 78% of the training's 2.0 s, more than the budget of 25%: "
        "step 0 and the last step are always tracked; fewer than 8 samples would give no reliable pattern; samples=32 "
        "gives a better one"
    )


class SimulatedClock:
    """Replaces `time.perf_counter`: it advances only in forward passes, by so many hours for each token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Any, training: float, scoring: float) -> None:
        self.now, self.spent = time.perf_counter(), {True: 0.0, False: 0.0}
        rates = {True: 3600 * training, False: 3600 * scoring}

        def advance(layer: Any, given: Any) -> None:
            seconds = rates[layer.training] * given[0].shape[:2].numel()
            self.now += seconds
            self.spent[layer.training] += seconds

        model.model.layers[0].register_forward_pre_hook(advance)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_tracking_takes_at_most_a_quarter_of_the_training_on_a_simulated_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate, steps in ((5.0, [0, 7, 14, 20]), (30.0, list(range(0, 21, 2)))):
        model = tiny_model()
        clock = SimulatedClock(monkeypatch, model, training=rate, scoring=1.0)
        result = headnb.finetune(model, tiny_tokenizer(), PAIRS, steps=20, batch_size=4)
        said = capsys.readouterr().out
        assert said == result.study.attrs["tracking"] + "\n"
        assert "more than the budget" not in said
        assert 0.05 * clock.spent[True] < clock.spent[False] < 0.25 * clock.spent[True]
        assert result.scores["samples"].sizes["sample"] == len(PAIRS)
        assert result.study["step"].values.tolist() == steps


def test_a_training_shorter_than_one_scoring_is_tracked_before_and_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    SimulatedClock(monkeypatch, model, training=0.1, scoring=1.0)
    result = headnb.finetune(model, tiny_tokenizer(), PAIRS, steps=3, batch_size=2)
    assert result.study["step"].values.tolist() == [0, 3]
    assert result.scores["samples"].sizes["sample"] == MIN_SAMPLES
    assert np.isfinite(result.study["change_q_value"].sel(step=3)).all()  # the samples are paired
    assert "more than the budget of 25%: step 0 and the last step are always tracked" in capsys.readouterr().out


def test_a_budget_changes_no_bit_of_the_training_and_scores_are_those_of_fixed_counts() -> None:
    """Dropout would reveal a changed random state, and a second epoch a sampler that was used."""
    how: dict[str, Any] = {"steps": 8, "batch_size": 4, "seed": 3, "learning_rate": 1e-2, "online": True}
    tuned = []
    for options in ({"budget": 1e-9}, {"every": [0, 8], "samples": 8}, {"track": []}):
        model = tiny_model(attention_dropout=0.2)
        before = values_of(model)
        tuned.append(headnb.finetune(model, tiny_tokenizer(), PAIRS, **how, **options))
        assert same_values(before, model)
    planned, fixed, untracked = (each.study.drop_attrs() for each in tuned)
    assert planned.identical(fixed)
    assert planned.sizes["step"] == 2
    assert tuned[0].scores["samples"].score.identical(tuned[1].scores["samples"].score)
    assert planned["train_loss"].identical(untracked["train_loss"])
    for name in ("tokens_seen", "samples_seen", "movement"):
        xr.testing.assert_equal(planned[name].sel(step=8), untracked[name].sel(step=8))


def test_a_resumed_training_keeps_its_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    how: dict[str, Any] = {"steps": 20, "batch_size": 4, "output_dir": tmp_path, "save_steps": 5}

    def stop(progress: Any) -> None:
        if progress.step == 12:
            raise KeyboardInterrupt

    model = tiny_model()
    SimulatedClock(monkeypatch, model, training=9.0, scoring=1.0)
    with pytest.raises(KeyboardInterrupt):
        headnb.finetune(model, tiny_tokenizer(), PAIRS, on_progress=stop, **how)
    first = headnb.open_study(tmp_path).study
    model = tiny_model()
    SimulatedClock(monkeypatch, model, training=0.01, scoring=1.0)  # a new plan would be a smaller one
    resumed = headnb.finetune(model, tiny_tokenizer(), PAIRS, resume=True, **how).study
    assert resumed.attrs["tracking"] == first.attrs["tracking"]
    assert resumed["step"].values.tolist() == json.loads(first.attrs["tracked_steps"])
    assert resumed.sizes["step"] > 2


def test_a_callback_in_any_trainer_keeps_a_budget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from datasets import IterableDataset

    for streamed in (False, True):
        model = tiny_model()
        clock = SimulatedClock(monkeypatch, model, training=20.0, scoring=1.0)
        callback = headnb.HeadScoreCallback({"sums": PAIRS}, budget=0.25, tokenizer=tiny_tokenizer())
        trainer = sft_trainer(model, tmp_path / str(streamed), callback, max_steps=10, gradient_accumulation_steps=2)
        if streamed:  # no training step can be measured without taking samples away
            rows = list(trainer.train_dataset)
            trainer.train_dataset = IterableDataset.from_generator(lambda rows=rows: iter(rows * 20))
        trainer.train()
        assert clock.spent[False] < 0.25 * clock.spent[True]
        assert callback.study["step"].values.tolist() == list(callback.plan.steps)
        assert (len(callback.plan.steps) > 2) == (not streamed)


def test_progress_has_the_remaining_time_from_the_plan_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(), []
    clock = SimulatedClock(monkeypatch, model, training=9.0, scoring=1.0)
    headnb.finetune(
        model, tiny_tokenizer(), PAIRS, steps=20, batch_size=4,
        on_progress=lambda progress: seen.append((progress, clock.now)),
    )  # fmt: skip
    assert seen[0][0].activity == "measuring the cost of tracking"
    assert seen[0][0].seconds_left is None
    end, whole = clock.now, clock.now - seen[1][1]
    for progress, now in seen[1:]:
        assert progress.seconds_left == pytest.approx(end - now, abs=0.25 * whole)  # lengths of batches vary
        assert progress.tracking.startswith("Tracking 24 samples at steps 0, ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 0.25, "every": 5, "samples": 8}, "omit one of them, or budget"),
        ({"budget": 0}, "budget must be a positive share of the training time, such as 0.25, not 0"),
        ({"samples": 0}, "samples must be a whole number of at least 1, not 0"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(HeadnbError, match=said):
        headnb.HeadScoreCallback({"sums": PAIRS}, **options)
    with pytest.raises(HeadnbError, match=said):
        headnb.finetune(tiny_model(), tiny_tokenizer(), PAIRS, steps=1, **options)
