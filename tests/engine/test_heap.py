"""Memory is given back where it is worth its time, and comes back in large pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from headnb.engine import heap
from headnb.engine.batching import collate
from headnb.scoring import gradient
from headnb.scoring.gradient import activation, gradient_scorer

from architectures import build
from random_samples import random_samples


@pytest.fixture
def given_back(monkeypatch):
    """In which pass memory was given back, each time."""
    passes = []
    monkeypatch.setattr(
        heap, "return_free_memory", lambda: passes.append("forward" if torch.is_grad_enabled() else "backward")
    )
    return passes


def test_a_long_sample_gives_free_memory_back_on_its_way_and_a_short_one_does_not(monkeypatch, given_back):
    model = build("llama")
    scorer = gradient_scorer(model, activation)
    (sample,) = random_samples((13,))
    short, _ = scorer(collate([sample]))
    monkeypatch.setattr(gradient, "LONG", 13)
    scorer(collate([sample, sample]))
    assert given_back == []  # a batch of several can be made smaller
    long, _ = scorer(collate([sample]))
    assert given_back == ["forward", "forward", "forward", "backward"]  # at each third of three layers, and at half
    assert torch.equal(long, short)


@pytest.mark.parametrize(("layers", "turns"), [(1, [1, 2]), (2, [1, 2, 3]), (30, [10, 20, 30, 45])])
def test_memory_is_given_back_at_thirds_of_the_way_there_and_half_of_the_way_back(layers, turns, given_back):
    found = []
    with heap.HolesGivenBack(layers) as holes:
        for turn in range(1, 2 * layers + 1):
            before = len(given_back)
            holes.next_layer()
            found += [turn] * (len(given_back) - before)
    assert found == turns


def flags():
    """What Linux says of how the heap of this process is mapped."""
    mapped = re.findall(r"\[heap\]\n.*?VmFlags: (.*?)\n", Path("/proc/self/smaps").read_text(), re.DOTALL)
    return {flag for mapping in mapped for flag in mapping.split()}


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell how memory is mapped")
def test_memory_comes_back_in_large_pages_until_the_pass_is_over():
    large_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    who_asks = large_pages.exists() and "[madvise]" in large_pages.read_text() and bool(flags())
    with heap.HolesGivenBack(1) as holes:
        holes.next_layer()
        assert ("hg" in flags()) == who_asks
    assert "hg" not in flags()
