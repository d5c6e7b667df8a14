"""Losses at answer tokens only: the same training, and no work for prompts and padding."""

from __future__ import annotations

import contextlib

import headnb
import numpy as np
import pytest
import torch
from headnb.tuning import training
from headnb.tuning.answer_losses import answer_losses_only
from trl.trainer import utils

from tiny import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"what follows {i} and what comes before it ? ", "completion": f"{i + 1}"} for i in range(12)]


@pytest.fixture
def positions(monkeypatch) -> list[int]:
    """Number of positions of every call of TRL's loss."""
    seen = []
    function = utils._ChunkedLogProbFunction

    class Counted:
        @staticmethod
        def apply(hidden, *rest):
            seen.append(len(hidden))
            return function.apply(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counted)
    return seen


def trained() -> tuple[list[float], dict[str, torch.Tensor]]:
    model = tiny_model()
    settings = {
        "steps": 3,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "track": [],
        "inplace": True,
        "logging_steps": 1,
    }
    tuned = headnb.finetune(model, tiny_tokenizer(), ROWS, **settings)
    return tuned.study["train_loss"].to_numpy().tolist(), {k: v.clone() for k, v in model.state_dict().items()}


def test_training_is_that_of_all_positions(positions, monkeypatch):
    losses, weights = trained()
    encoded = headnb.engine.tokenization.encode_task(headnb.load_task(ROWS), tiny_tokenizer())
    answers = sorted(int((sample.labels[1:] != -100).sum()) for sample in encoded.samples)
    assert sum(positions) == sum(answers)  # three updates of four samples: every sample once

    positions.clear()
    monkeypatch.setattr(training, "answer_losses_only", contextlib.nullcontext)
    of_all_positions, weights_of_all = trained()
    assert sum(positions) > 2 * sum(answers)
    np.testing.assert_allclose(losses, of_all_positions, rtol=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, weights_of_all[name], rtol=1e-4, atol=1e-6)


def test_the_budget_of_tracking_measures_the_loss_that_the_training_computes(positions):
    """The model's own loss at all positions would make a step seem slower than it is, and tracking too cheap."""
    headnb.finetune(tiny_model(), tiny_tokenizer(), ROWS, steps=1, batch_size=4)
    assert len(positions) == 2  # the measured batch of two samples, and the update
    assert positions[0] <= positions[1]


def test_other_trainings_in_the_process_are_left_as_they_are():
    device = torch.device("cpu")
    with answer_losses_only():
        assert utils._use_triton(device)
        assert not utils._use_triton(torch.device("xla"))
    assert not utils._use_triton(device)
