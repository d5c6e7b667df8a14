"""Mean head outputs, and losses with heads replaced by them, equal a reference with hooks on the output projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb.engine.hooks import find_heads, head_outputs, input_device
from headnb.engine.interventions import mean_outputs, replace_heads
from headnb.engine.losses import find_loss_computer
from headnb.engine.model_contexts import frozen
from headnb.engine.tokenization import EncodedSample, encode_task
from headnb.scoring.ablation import Replacement, losses_with_heads_replaced
from headnb.tasks.loading import load_task

from architectures import build
from model_state import state
from reference_replacement import reference_loss, reference_means
from tiny import tiny_model, tiny_tokenizer

TEXT = [
    ("Question: What is 12 + 30?\nAnswer: ", "The answer is 42."),
    ("How many apples? ", "There are 3."),
    ("def square(n):\n", "    return n * n"),
]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])  # sdpa is packed, eager is padded
@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
def test_mean_outputs_and_losses_equal_a_loop_of_hooks(batch_tokens, attention):
    model = tiny_model(layers=3, dtype=torch.float64, attn_implementation=attention)
    assert find_loss_computer(model, find_heads(model)).supports_packing == (attention == "sdpa")
    encoded = encode_task(load_task(TEXT), tiny_tokenizer())
    layout, loss_computer, device = find_heads(model), find_loss_computer(model), input_device(model)
    found = mean_outputs(
        model, encoded.samples, layout, lambda batch: loss_computer.losses(batch, device), batch_tokens
    )
    expected = reference_means(model, encoded.samples)
    for layer, means in found.items():
        torch.testing.assert_close(means.flatten(), expected[layer], rtol=1e-12, atol=1e-14)
    sets = [Replacement(()), Replacement(("L0H1", "L0H2", "L2H3"), 0.0, found), Replacement(("L0H1",), 0.0)]
    losses = losses_with_heads_replaced(model, encoded, sets, layout, batch_tokens, 0, None)
    size = model.config.head_dim
    means = [expected[layer].view(-1, size) for layer in range(3)]
    by_mean = {0: {1: means[0][1], 2: means[0][2]}, 2: {3: means[2][3]}}
    for row, values in enumerate(({}, by_mean, {0: {1: torch.zeros(size, dtype=torch.float64)}})):
        direct = [reference_loss(model, sample, values) for sample in encoded.samples]
        np.testing.assert_allclose(losses[row], direct, rtol=1e-10)
    assert np.abs(losses[1] - losses[2]).min() > 1e-3


def test_layers_below_the_lowest_replaced_head_run_once_for_all_sets():
    model = tiny_model(layers=3)
    encoded = encode_task(load_task(TEXT), tiny_tokenizer())
    sets = [Replacement(()), *(Replacement((f"L{layer}H0",)) for layer in (2, 1, 2))]
    layout, ran = find_heads(model), []
    hooks = [
        layer.mlp.register_forward_hook(lambda _, args, __, at=at: ran.append((at, args[0].shape[1])))
        for at, layer in enumerate(model.model.layers)
    ]
    losses_with_heads_replaced(model, encoded, sets, layout, 4096, 0, None)
    tokens = sum(encoded.lengths)
    assert [at for at, n in ran if n == tokens] == [
        0,
        1,
        2,
        2,
        1,
        2,
        2,
    ]  # one batch: the whole pass, then L2H0, L1H0, L2H0
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "deepseek_v3"])
def test_a_replaced_head_gives_its_mean_at_every_token_and_the_model_is_as_before(name):
    model = build(name)
    samples = [EncodedSample(np.array([1, 2, 3, 4, 5]), np.array([-100, -100, 3, 4, 5]))] * 2
    layout, loss_computer, device = find_heads(model), find_loss_computer(model), input_device(model)
    model.train()
    before = state(model)
    means = mean_outputs(model, samples, layout, lambda batch: loss_computer.losses(batch, device))
    last, seen = max(means), {}

    def see(layer, outputs):
        seen[layer] = outputs
        return outputs

    with frozen(model), replace_heads(model, {f"L{last}H1": 0.0}, layout, means), head_outputs(model, see, layout):
        model(torch.tensor([[3, 1, 4, 1, 5]]), use_cache=False)
    torch.testing.assert_close(seen[last][0, :, 1], means[last][1].expand(5, -1).to(seen[last]))
    assert (seen[last][0, :, 0] - seen[last][0, :1, 0]).abs().max() > 1e-3
    assert state(model) == before
