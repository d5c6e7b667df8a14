"""Autograd saves less memory, and no number changes."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from headnb.engine import recompute
from headnb.engine.batching import pack
from headnb.engine.recompute import recompute_activations
from headnb.scoring import one_pass
from headnb.scoring.gradient import activation, gradient_scorer

from architectures import build
from random_samples import random_samples


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "phi"])
def test_scores_are_bitwise_equal_to_those_without_recomputation(name, monkeypatch):
    model = build(name)
    batch = pack(random_samples())
    scorer = gradient_scorer(model, activation)
    small, _ = scorer(batch)
    monkeypatch.setattr(one_pass, "recompute_activations", lambda _: nullcontext())
    whole, _ = scorer(batch)
    assert torch.equal(small, whole)


def test_an_activation_is_not_saved_in_addition_to_its_input(monkeypatch):
    mlp = build("llama").model.layers[0].mlp.requires_grad_(False)
    x = torch.randn(1, 64, mlp.gate_proj.in_features, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(mlp(x).sum(), x)
    saved = []
    pack_tensor = recompute._pack
    monkeypatch.setattr(recompute, "_pack", lambda tensor: saved.append(pack_tensor(tensor)) or saved[-1])
    with recompute_activations(mlp):
        y = mlp(x)
    tensors = [entry for entry in saved if isinstance(entry, torch.Tensor) and entry.requires_grad]
    assert len({tensor.data_ptr() for tensor in tensors}) == 2  # g and u
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
    assert not any(module._forward_hooks for module in mlp.modules())
