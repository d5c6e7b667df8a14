"""`score_tasks`: equal to one call per task, with stores, progress and interrupts."""

from __future__ import annotations

import datasets
import headnb
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from headnb.display.live_tasks import tasks_state
from headnb.display.payload import payload
from headnb.errors import HeadnbError
from headnb.scoring import one_pass, run
from headnb.scoring.several_tasks import TasksInterrupted

from ipython_shells import PAIRS

TASKS = {"long": PAIRS, "short": PAIRS[:3]}


def alone(model, tokenizer, name, **options):
    return headnb.score_heads(model, tokenizer, headnb.load_task(TASKS[name], name=name), **options)


@pytest.mark.parametrize("method", ["activation", "attattr"])
def test_the_study_has_what_each_task_has_alone(model, tokenizer, method):
    study = headnb.score_tasks(model, tokenizer, TASKS, method=method)
    assert list(study["task"].values) == ["long", "short"]
    for name in TASKS:
        scores = alone(model, tokenizer, name, method=method)
        one, interval = study.sel(task=name), scores.heads.interval()
        np.testing.assert_array_equal(one["level"], scores.heads.pattern())
        np.testing.assert_array_equal(one["low"], interval["low"])
        np.testing.assert_array_equal(one["high"], interval["high"])
        assert one["samples"] == scores.sizes["sample"]
        np.testing.assert_array_equal(one["reliability"], scores.heads.reliability())


def test_one_task_is_a_list_of_one(model, tokenizer):
    task = headnb.load_task(PAIRS, name="mine")
    xr.testing.assert_equal(
        headnb.score_tasks(model, tokenizer, task)["level"], headnb.score_tasks(model, tokenizer, [task])["level"]
    )
    with pytest.raises(HeadnbError, match="did you mean 'gsm_symbolic'"):
        headnb.score_tasks(model, tokenizer, "gsm_symbolc")


def test_the_picture_of_a_study_has_the_panels_of_its_scores_on_one_scale(model, tokenizer):
    study = headnb.score_tasks(model, tokenizer, TASKS)
    expected = headnb.grid({name: alone(model, tokenizer, name) for name in TASKS}).payload
    found = study.heads.grid().payload
    assert found["panels"] == expected["panels"]
    assert found["scale"] == expected["scale"]
    assert found["quantity"] == "activation level"
    selected = study.sel(task="short").heads.grid().payload["panels"][0]
    assert selected["values"] == expected["panels"][1]["values"]


def test_computed_numbers_of_a_study_claim_no_reliability(model, tokenizer):
    study = headnb.score_tasks(model, tokenizer, TASKS)
    panel = headnb.grid(study["level"] * 2).payload["panels"][0]
    assert (panel["reliability"], panel["samples"], panel["statistics"]) == (None, None, {})


def test_every_task_has_a_store_of_its_own_and_the_same_call_resumes(model, tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    study = headnb.score_tasks(model, tokenizer, TASKS, out=folder)
    for name in TASKS:
        stored = headnb.open_scores(folder / f"{name}.zarr")
        xr.testing.assert_equal(stored, alone(model, tokenizer, name))
    monkeypatch.setattr(one_pass, "run_pass", lambda *_: pytest.fail("scored again"))
    xr.testing.assert_identical(headnb.score_tasks(model, tokenizer, TASKS, out=folder), study)


def test_a_folder_that_is_a_store_is_refused(model, tokenizer, tmp_path):
    alone(model, tokenizer, "long", out=tmp_path / "scores")
    for out in (tmp_path / "scores", tmp_path / "x.zarr"):
        with pytest.raises(HeadnbError, match="a folder with one store for each task"):
            headnb.score_tasks(model, tokenizer, TASKS, out=out)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([PAIRS, "gsm_symbolc"], "did you mean 'gsm_symbolic'"),
        ([PAIRS, PAIRS], "two tasks are called 'samples'"),
        ([], "at least one task"),
        (
            {"fits": PAIRS, "no": [{"input_ids": [1, 999], "labels": [-100, 999]}]},
            "token id 999, but the model's vocabulary",
        ),
        ({"fits": PAIRS, "long": [("a " * 600, "b")]}, "of long has .* more than the model's context of 512"),
        (PAIRS, r"the samples of one task: use score_heads\(model, tokenizer, samples\), or tasks=\{'name': samples\}"),
        ([{"prompt": "a", "completion": "b"}], "the samples of one task"),
        (pd.DataFrame(PAIRS, columns=["prompt", "completion"]), "the samples of one task"),
        (datasets.Dataset.from_list([{"prompt": "a", "completion": "b"}]), "the samples of one task"),
    ],
)
def test_a_wrong_task_is_found_before_anything_is_scored(model, tokenizer, tasks, said, monkeypatch):
    monkeypatch.setattr(one_pass, "run_pass", lambda *_: pytest.fail("scored"))
    with pytest.raises(HeadnbError, match=said):
        headnb.score_tasks(model, tokenizer, tasks)


def test_progress_counts_all_tasks_and_draws_a_grid_for_each(model, tokenizer):
    seen = []
    headnb.score_tasks(
        model,
        tokenizer,
        TASKS,
        batch_tokens=16,
        packed=False,
        on_progress=lambda progress: seen.append((tasks_state(progress), tasks_state(progress).sketch())),
    )
    states = [state for state, _ in seen]
    assert [state.done for state in states] == sorted(state.done for state in states)
    assert (states[0].done, states[-1].done, states[-1].total) == (0, 7, 7)
    assert states[0].line.startswith("long (task 1 of 2): 0 of 4 samples")
    assert states[-1].line.startswith("short (task 2 of 2): 3 of 3 samples")
    drawn = [payload(sketch)["panels"] for _, sketch in seen if sketch is not None]
    assert all([panel["title"] for panel in panels] == ["long", "short"] for panels in drawn)
    assert all(value is None for row in drawn[0][1]["values"] for value in row)
    assert all(value is not None for row in drawn[-1][1]["values"] for value in row)


def test_an_interrupt_keeps_the_tasks_and_samples_that_are_scored(model, tokenizer):
    def stop(progress):
        if progress.task.name == "short" and progress.current.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(TasksInterrupted) as stopped:
        headnb.score_tasks(model, tokenizer, {**TASKS, "last": PAIRS}, batch_tokens=16, packed=False, on_progress=stop)
    assert stopped.value.words == "short: 1 of 3 samples are scored; not started: last"
    study = stopped.value.scores
    assert list(study["task"].values) == ["long", "short"]
    assert list(study["samples"].values) == [4, 1]
    assert "Stopped early: 1 of 3 samples" in study.heads.grid().payload["panels"][1]["notes"][0]


@pytest.mark.parametrize("where", ["weights_fingerprint", "make_scorers"])
def test_an_interrupt_between_the_passes_keeps_the_finished_tasks(model, tokenizer, monkeypatch, where):
    """Such as while the heads of the model are found, or while its weights are hashed."""
    original, calls = getattr(run, where), []

    def interrupted_in_the_second_task(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(run, where, interrupted_in_the_second_task)
    with pytest.raises(TasksInterrupted) as stopped:
        headnb.score_tasks(model, tokenizer, {**TASKS, "last": PAIRS})
    assert stopped.value.words == "not started: short, last"
    assert stopped.value.done == 4
    np.testing.assert_array_equal(stopped.value.scores["level"][0], alone(model, tokenizer, "long").heads.pattern())
    assert list(stopped.value.scores["task"].values) == ["long"]


@pytest.mark.parametrize("name", ["task", "tasks_", "metod"])
def test_an_unknown_argument_is_named(model, tokenizer, name):
    with pytest.raises(HeadnbError, match=f"unknown argument of score_tasks '{name}'"):
        headnb.score_tasks(model, tokenizer, TASKS, **{name: "x"})


def test_lists_of_results_are_labelled_by_what_tells_them_apart():
    from synthetic_results import random_pattern

    def titles(*given):
        return [panel["title"] for panel in headnb.grid(list(given)).payload["panels"]]

    one, other = random_pattern(2, 3, task="a", model="m"), random_pattern(2, 3, task="b", model="n")
    assert titles(one, other) == ["a", "b"]
    assert titles(one, other.assign_attrs(task="a")) == ["m", "n"]
    assert titles(one, one) == ["1", "2"]
