"""Losses of a trial equal those of a separately tuned model; the model is restored; stored results are reused."""

from __future__ import annotations

import copy

import headnb
import numpy as np
import pytest
import torch
from headnb.tasks.loading import Task
from headnb.tuning import tuning_trials
from headnb.tuning.tuning_trials import losses_after, losses_of

HOW = {"steps": 3, "batch_size": 2, "learning_rate": 1e-2, "seed": 0}


def sums(start: int, n: int) -> Task:
    return Task("sums", [(f"{i} + {i} =", f" {2 * i}") for i in range(start, start + n)], range(start, start + n), "")


TESTED = {"sums": sums(50, 4), "more": sums(70, 2)}


@pytest.mark.parametrize("kind", [{"inplace": True}, {}, {"inplace": True, "heads": ["L0H1", "L1H2"]}])
def test_losses_are_those_of_a_copy_that_was_tuned(model, tokenizer, tmp_path, kind) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = losses_after(model, tokenizer, sums(0, 6), TESTED, tmp_path / "kept.nc", **HOW, **kind)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    other = copy.deepcopy(model)
    tuned = headnb.finetune(other, tokenizer, sums(0, 6), track=[], **HOW, **kind)
    with tuned.applied(other) as tuned_model:
        expected = [headnb.evaluate(tuned_model, tokenizer, task, answer="none")["loss"] for task in TESTED.values()]
    np.testing.assert_allclose(found["loss"][0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found["loss"][1, :2], expected[1], rtol=1e-5)
    assert found["loss"][1, 2:].isnull().all()
    assert found.attrs["trained_parameters"] == tuned.trained_parameters
    assert (found["loss"] != losses_of(model, tokenizer, TESTED)).any()


def test_answers_are_those_of_the_tuned_model(model, tokenizer, tmp_path) -> None:
    found = losses_after(model, tokenizer, sums(0, 6), TESTED, tmp_path / "kept.nc", **HOW, max_new_tokens=3)
    with headnb.finetune(model, tokenizer, sums(0, 6), track=[], **HOW).applied(model) as tuned:
        expected = headnb.evaluate(tuned, tokenizer, TESTED["more"], max_new_tokens=3)["exact_match"]
    np.testing.assert_array_equal(found["exact_match"].sel(evaluated="more"), [*expected, np.nan, np.nan])


def test_a_stored_result_is_reused_only_with_the_same_settings(model, tokenizer, tmp_path, monkeypatch) -> None:
    keep = tmp_path / "folder" / "kept.nc"
    first = losses_after(model, tokenizer, sums(0, 6), TESTED, keep, **HOW)
    with monkeypatch.context() as patched:
        patched.setattr(tuning_trials, "finetune", lambda *_, **__: pytest.fail("trained again"))
        again = losses_after(model, tokenizer, sums(0, 6), TESTED, keep, **HOW)
    assert again.identical(first)
    assert not losses_after(model, tokenizer, sums(1, 6), TESTED, keep, **HOW).identical(first)


@pytest.mark.parametrize("change", ["weights", "dtype"])
def test_a_result_of_other_weights_under_the_same_name_is_not_reused(model, tokenizer, tmp_path, change) -> None:
    keep = tmp_path / "kept.nc"
    losses_after(model, tokenizer, sums(0, 6), TESTED, keep, **HOW)
    other = copy.deepcopy(model)
    if change == "dtype":
        other = other.double()
    else:
        with torch.no_grad():
            other.model.layers[0].self_attn.o_proj.weight.mul_(3)
    found = losses_after(other, tokenizer, sums(0, 6), TESTED, keep, **HOW)
    assert found.identical(losses_after(other, tokenizer, sums(0, 6), TESTED, tmp_path / "other.nc", **HOW))


def test_weights_are_restored_after_an_error_too(model, tokenizer, tmp_path, monkeypatch) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    monkeypatch.setattr(tuning_trials, "evaluations_of", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        losses_after(model, tokenizer, sums(0, 6), TESTED, tmp_path / "kept.nc", **HOW, inplace=True)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not (tmp_path / "kept.nc").exists()
