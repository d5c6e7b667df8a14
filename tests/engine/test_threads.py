"""Another thread runs the model at the same time as headnb; neither changes the results of the other."""

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
from headnb.engine.hooks import find_heads, head_outputs
from headnb.engine.interventions import scale_heads
from headnb.engine.model_contexts import checkpointed
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
    """Run the model in another thread all the time; its logits must equal those without headnb."""
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


def scored(method, **arguments):
    return lambda model: headnb.score_heads(model, None, TASK, method=method, **arguments).score


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
def test_passes_of_two_threads_do_not_affect_each_other(name):
    model = model_named("tiny")
    expected = np.asarray(CALLS[name](model))
    with run_elsewhere(model):
        for _ in range(2):
            np.testing.assert_array_equal(np.asarray(CALLS[name](model)), expected)


@pytest.mark.parametrize("method", ["activation", "ablate-zero", "head_attention"])
@pytest.mark.parametrize("name", ["gptj", "mixtral"])
def test_passes_of_two_threads_do_not_affect_each_other_with_other_hooks(name, method):
    model, call = model_named(name), CALLS[method]
    eager = build(name, torch.float32, attn_implementation="eager") if method == "head_attention" else model
    expected = np.asarray(call(eager))
    with run_elsewhere(eager):
        np.testing.assert_array_equal(np.asarray(call(eager)), expected)


def in_another_thread(work):
    """Run a function in another thread and wait for its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_every_kind_of_hook_leaves_other_threads_alone():
    """The passes run one after the other, so that the result does not depend on timing."""
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


def test_layers_recomputed_in_the_backward_pass_belong_to_the_thread_that_started_it():
    """Two threads at once, each scoring its own model with gradient checkpointing."""
    models = [tiny_model(layers=3, seed=seed) for seed in range(2)]
    batch = collate(random_samples((20, 12)))
    scorers = [gradient_scorer(model, activation) for model in models]
    expected = [scorer(batch, budget=1)[0] for scorer in scorers]
    found = {}

    def work(index):
        found[index] = [scorers[index](batch, budget=1)[0] for _ in range(5)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(scores, expected[index]) for index in range(2) for scores in found[index])


def test_scaling_heads_while_only_another_thread_runs_is_an_error():
    model = tiny_model(layers=3)
    with pytest.raises(HeadnbError, match="ran in another thread"), scale_heads(model, {"L1H2": 0.0}):
        in_another_thread(lambda: logits(model))
    with scale_heads(model, {"L1H2": 0.0}):
        changed = logits(model)
        assert torch.equal(in_another_thread(lambda: logits(model)), logits(tiny_model(layers=3)))
    assert not torch.equal(changed, logits(model))
