"""Another thread runs the model while headnb does: neither changes what the other computes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import headnb
import numpy as np
import pytest
import torch
from headnb.analysis.representations import layer_grams
from headnb.engine.batching import collate
from headnb.engine.hooks import checkpointed, find_heads, head_outputs, scale_heads
from headnb.engine.partial_forward import find_partial_forward
from headnb.errors import HeadnbError
from headnb.scoring.gradient import activation, gradient_scorer

from architectures import build
from random_samples import random_samples, token_task
from tiny import tiny_model

TOKENS = torch.arange(1, 11)[None]
TASK = token_task(random_samples((12, 20, 9, 14)))


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS, use_cache=False).logits


@contextmanager
def run_elsewhere(model):
    """Another thread runs the model all the time; its logits must always be those of the model alone."""
    expected, stop = logits(model), threading.Event()

    def work():
        differences = []
        while not stop.is_set():
            differences.append(float((logits(model) - expected).abs().max()))
        return differences

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(work)
        try:
            yield
        finally:
            stop.set()
    assert running.result()
    assert max(running.result()) == 0


@cache
def model_named(name):
    return tiny_model(layers=3) if name == "tiny" else build(name, torch.float32)


def scored(method, **how):
    return lambda model: headnb.score_heads(model, None, TASK, method=method, **how).score


CALLS = {
    **{method: scored(method) for method in ("activation", "output-norm", "entropy", "ablate-zero", "ablate-mean")},
    "attattr": scored("attattr", options={"steps": 3}),
    "gates": scored("gates", options={"steps": 3, "samples": 3}),
    "recomputed": scored("activation", batch_tokens=4),
    "packed": scored("activation", packed=True),
    "attattr recomputed": scored("attattr", options={"steps": 3}, batch_tokens=4),
    "ablate": lambda model: headnb.ablate(model, None, TASK, "L1H2", controls=2).control_change,
    "evaluate": lambda model: headnb.evaluate(model, None, TASK).loss,
    "head_attention": lambda model: headnb.head_attention(model, None, TASK, "L1H2").products,
    "layer_grams": lambda model: layer_grams(model, None, TASK).gram,
}


@pytest.mark.parametrize("name", CALLS)
def test_passes_of_another_thread_and_ours_do_not_meet(name):
    model = model_named("tiny")
    expected = np.asarray(CALLS[name](model))
    with run_elsewhere(model):
        for _ in range(2):
            np.testing.assert_array_equal(np.asarray(CALLS[name](model)), expected)


@pytest.mark.parametrize("method", ["activation", "ablate-zero", "head_attention"])
@pytest.mark.parametrize("name", ["gptj", "mixtral"])
def test_nor_in_other_ways_of_capture(name, method):
    model, call = model_named(name), CALLS[method]
    eager = build(name, torch.float32, attn_implementation="eager") if method == "head_attention" else model
    expected = np.asarray(call(eager))
    with run_elsewhere(eager):
        np.testing.assert_array_equal(np.asarray(call(eager)), expected)


def in_another_thread(work):
    """What a function gives there, before this thread goes on."""
    given = []
    thread = threading.Thread(target=lambda: given.append(work()))
    thread.start()
    thread.join()
    return given[0]


def test_every_kind_of_hook_leaves_other_threads_alone():
    """One after the other, so that nothing depends on timing."""
    model = tiny_model(layers=3)
    layout = find_heads(model)
    expected = logits(model)
    later = find_partial_forward(model, layout)
    with later.record_outputs() as hidden:
        in_another_thread(lambda: logits(model))
        assert not hidden
        logits(model)
    with later.start_at(2, hidden):
        assert torch.equal(in_another_thread(lambda: logits(model)), expected)
    with checkpointed(model), head_outputs(model, lambda _, outputs: 0 * outputs, layout, ()):
        assert torch.equal(in_another_thread(lambda: logits(model)), expected)
        assert not torch.equal(logits(model), expected)


def test_layers_computed_again_in_the_backward_pass_are_of_the_thread_that_began_it():
    """With two threads at once, each scoring a model of its own with checkpointing."""
    models = [tiny_model(layers=3, seed=seed) for seed in range(2)]
    batch = collate(random_samples((20, 12)))
    scorers = [gradient_scorer(model, activation) for model in models]
    expected = [scorer(batch, budget=1)[0] for scorer in scorers]
    found = {}

    def work(place):
        found[place] = [scorers[place](batch, budget=1)[0] for _ in range(5)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, expected[place]) for place in range(2) for one in found[place])


def test_heads_scaled_for_another_thread_only_are_an_error():
    model = tiny_model(layers=3)
    with pytest.raises(HeadnbError, match="ran in another thread"), scale_heads(model, {"L1H2": 0.0}):
        in_another_thread(lambda: logits(model))
    with scale_heads(model, {"L1H2": 0.0}):
        changed = logits(model)
        assert torch.equal(in_another_thread(lambda: logits(model)), logits(tiny_model(layers=3)))
    assert not torch.equal(changed, logits(model))
