"""A model is left as it was found, however a run ends, and a thousand runs leave nothing behind."""

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
    """All that a run could leave changed: hooks, flags, attributes, configs, dtypes and devices."""
    return state(model) | {
        "config": model.config.to_dict(),
        "tensors": [(tensor.dtype, tensor.device, tensor._version) for tensor in model.state_dict().values()],
        "gradients on": torch.is_grad_enabled(),
    }


class Killed(BaseException):
    """As the background thread is ended from outside."""


def run_and_end(model, ending, moments):
    """A run that succeeds, fails, is interrupted or is killed in its thread, at a random layer of a random batch."""
    looked, last = 0, moments.randrange(1, 11)

    def at_a_layer(*_):
        nonlocal looked
        looked += 1
        if looked == last and ending == "error":
            raise RuntimeError("broken")
        if looked == last and ending == "interrupt":
            raise KeyboardInterrupt
        if looked == last and ending == "kill":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Killed))

    ended = []

    def work():
        try:
            score_heads(model, None, TASK, batch_tokens=BUDGET)
            ended.append("success")
        except RuntimeError:
            ended.append("error")
        except KeyboardInterrupt:  # with what was scored, once something could be
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
    print(f"runs that end: {cases} tried, {dict(endings)}; each leaves the model as it was")
    assert len(endings) == 4


@pytest.mark.parametrize("runs", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_runs_leak_neither_hooks_nor_memory(runs, model):
    before = found_as(model)

    def score(times):
        for _ in range(times):
            score_heads(model, None, TASK[:4])
        gc.collect()
        tensors = sum(isinstance(held, torch.Tensor) for held in gc.get_objects())
        return tensors, psutil.Process().memory_info().rss

    tensors, memory = score(runs // 3)  # caches fill
    tensors_after, memory_after = score(runs - runs // 3)
    assert found_as(model) == before
    assert tensors_after <= tensors
    grown = (memory_after - memory) / 2**20
    print(f"runs in a loop: {runs} tried, no hook and no tensor more; memory grew by {grown:.1f} MB")
    assert grown < 20
