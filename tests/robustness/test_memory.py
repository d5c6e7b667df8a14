"""Out of memory: smaller batches give the same scores; work that cannot fit is refused with advice before it starts."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from headnb import HeadnbError, load_model, score_heads
from headnb.scoring import one_pass

from scoring_samples import BUDGET, TASK

SCORE = one_pass.run_pass


def failing(monkeypatch, moments, failures):
    """Raise out-of-memory errors in `failures` random batches, except for a single sample with recomputation."""
    left = sorted(moments.sample(range(4), failures))
    batches = []

    def scarce(self, batch, *, budget):
        batches.append(batch)
        if left and len(batches) > left[0] and (len(batch) > 1 or batch.longest_sample <= budget):
            left.pop(0)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return SCORE(self, batch, budget=budget)

    monkeypatch.setattr(one_pass, "run_pass", scarce)
    return left


@pytest.mark.parametrize("cases", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_memory_that_runs_out_in_random_batches_changes_no_score(cases, model, monkeypatch):
    moments = random.Random(cases)
    expected = score_heads(model, None, TASK, batch_tokens=BUDGET)
    worst = 0.0
    for _ in range(cases):
        left = failing(monkeypatch, moments, moments.randint(1, 3))
        seen = []
        found = score_heads(
            model,
            None,
            TASK,
            batch_tokens=BUDGET,
            on_progress=seen.append,
            packed=moments.random() < 0.5,
            padding_side=moments.choice(["right", "right"]),
        )
        assert left == []
        assert "out of memory" in seen[-1].message
        assert found.sample.equals(expected.sample)
        worst = max(worst, float(np.abs(found.score - expected.score).max() / np.abs(expected.score).max()))
    print(f"out of memory at random batches: {cases} tried, all end with the same scores, largest error {worst:.0e}")
    assert worst < 1e-5


@pytest.fixture
def little_memory(monkeypatch):
    free = SimpleNamespace(available=100, total=200)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)


def test_scores_that_cannot_fit_are_refused_before_any_is_made_and_go_to_disk(
    model, monkeypatch, little_memory, tmp_path
):
    with monkeypatch.context() as patched:
        patched.setattr(one_pass, "run_pass", lambda *_, **__: pytest.fail("scored"))
        with pytest.raises(HeadnbError, match=r"scores of 30 samples need .* are free; out= writes them to disk"):
            score_heads(model, None, TASK)
    assert score_heads(model, None, TASK, out=tmp_path / "a.zarr").sizes["sample"] == 30


def test_weights_that_cannot_fit_are_refused_before_they_are_read(folder, monkeypatch, little_memory):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(HeadnbError, match=r"the weights of .* need .* are free; dtype='bfloat16' takes two bytes"):
        load_model(folder)
