"""A run leaves the model unchanged, however it ends, and many runs leak neither hooks nor memory."""

from __future__ import annotations

import ctypes
import gc
import random
import threading
from collections import Counter

import psutil
import pytest
import torch
from headnb import score_heads

from model_state import state
from scoring_samples import BUDGET, TASK
from tiny import tiny_model


def found_as(model):
    """State that a run could leave changed: hooks, flags, attributes, configs, dtypes and devices."""
    return state(model) | {
        "config": model.config.to_dict(),
        "tensors": [(tensor.dtype, tensor.device, tensor._version) for tensor in model.state_dict().values()],
        "gradients on": torch.is_grad_enabled(),
    }


class Killed(BaseException):
    """Raised in the background thread from outside."""


def run_and_end(model, ending, moments):
    """Score in a thread; succeed, fail, interrupt or kill it at a random layer of a random batch."""
    calls, last = 0, moments.randrange(1, 11)

    def at_a_layer(*_):
        nonlocal calls
        calls += 1
        if calls == last and ending == "error":
            raise RuntimeError("broken")
        if calls == last and ending == "interrupt":
            raise KeyboardInterrupt
        if calls == last and ending == "kill":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Killed))

    ended = []

    def work():
        try:
            score_heads(model, None, TASK, batch_tokens=BUDGET)
            ended.append("success")
        except RuntimeError:
            ended.append("error")
        except KeyboardInterrupt:  # ScoringInterrupted, if a sample was scored
            ended.append("interrupt")
        except Killed:
            ended.append("kill")

    hooks = [layer.mlp.register_forward_pre_hook(at_a_layer) for layer in model.model.layers]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for hook in hooks:
        hook.remove()
    return ended[0]


@pytest.mark.parametrize("cases", [6, pytest.param(400, marks=pytest.mark.slow)])
def test_however_a_run_ends_the_model_is_left_as_it_was(cases):
    moments, endings = random.Random(cases), Counter()
    model = tiny_model().train()
    model.model.layers[1].mlp.eval()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    before = found_as(model)
    for case in range(cases):
        ending = ("success", "error", "interrupt", "kill")[case % 4]
        endings[run_and_end(model, ending, moments)] += 1
        assert found_as(model) == before, ending
    print(f"endings of runs: {cases} tried, {dict(endings)}; each leaves the model unchanged")
    assert len(endings) == 4


@pytest.mark.parametrize("runs", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_runs_leak_neither_hooks_nor_memory(runs, model):
    before = found_as(model)

    def score(times):
        for _ in range(times):
            score_heads(model, None, TASK[:4])
        gc.collect()
        tensors = sum(isinstance(item, torch.Tensor) for item in gc.get_objects())
        return tensors, psutil.Process().memory_info().rss

    tensors, memory = score(runs // 3)  # fills caches
    tensors_after, memory_after = score(runs - runs // 3)
    assert found_as(model) == before
    assert tensors_after <= tensors
    grown = (memory_after - memory) / 2**20
    print(f"runs in a loop: {runs} tried, no additional hook or tensor; memory grew by {grown:.1f} MB")
    assert grown < 20
