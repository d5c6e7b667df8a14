"""Memory is given back where it is worth its time, and comes back in large pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from headnb import heap
from headnb.batching import collate
from headnb.scoring import gradient
from headnb.scoring.gradient import activation, gradient_scorer

from architectures import build
from test_gradient import random_samples


def test_a_long_sample_gives_free_memory_back_on_its_way_and_a_short_one_does_not(monkeypatch):
    model = build("llama")
    given_back = []
    there_and_back = ["forward", "forward", "forward", "backward"]  # behind each third of three layers; behind a half
    monkeypatch.setattr(
        heap,
        "return_free_memory",
        lambda: given_back.append("forward" if torch.is_grad_enabled() else "backward"),
    )
    scorer = gradient_scorer(model, activation)
    (sample,) = random_samples((13,))
    for long, expected in ((14, []), (13, there_and_back)):
        monkeypatch.setattr(gradient, "LONG", long)
        given_back.clear()
        scores, _ = scorer(collate([sample]))
        assert given_back == expected
    scorer(collate([sample, sample]))
    assert given_back == there_and_back  # a batch of several can be made smaller
    monkeypatch.setattr(gradient, "LONG", 14)
    assert torch.equal(scores, scorer(collate([sample]))[0])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell how memory is mapped")
def test_the_heap_asks_for_large_pages():
    heap.use_large_pages()
    mapped = re.search(r"\[heap\]\n.*?VmFlags: (.*?)\n", Path("/proc/self/smaps").read_text(), re.DOTALL)
    if mapped is None:
        pytest.skip("this process has no heap of its own")
    known = Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()
    assert ("hg" in mapped[1].split()) == known
