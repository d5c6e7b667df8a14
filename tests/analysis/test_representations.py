"""Inner products of representations against the hidden states of single-sample forward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb.analysis.representations import UnknownLayersError, layer_grams
from headnb.engine.tokenization import encode_task
from headnb.tasks.loading import load_task

from architectures import build
from model_state import state
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS

TOKENIZER = tiny_tokenizer()
TASK = load_task(PAIRS[:7], name="sums")


def by_hand(model, encoded):
    """(layers, n, n): inner products of hidden states from one forward pass per sample."""
    vectors = []
    for sample in encoded.samples:
        kept = []
        hooks = [
            layer.register_forward_hook(lambda *call, kept=kept: kept.append(call[-1])) for layer in model.model.layers
        ]
        model(torch.tensor(sample.input_ids)[None], use_cache=False)
        for hook in hooks:
            hook.remove()
        at = np.flatnonzero(sample.labels != -100) - 1
        vectors.append([layer[0, at].mean(0).double().numpy() for layer in kept])
    stacked = np.swapaxes(np.array(vectors), 0, 1)
    stacked = stacked - stacked.mean(axis=1, keepdims=True)
    return np.einsum("lic,ljc->lij", stacked, stacked)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])  # packed, and padded
@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_inner_products_are_those_of_mean_hidden_states_at_answers(attention, batch_tokens):
    model = tiny_model(layers=3, attn_implementation=attention)
    before = state(model)
    found = layer_grams(model, TOKENIZER, TASK, batch_tokens=batch_tokens)
    with torch.no_grad():
        expected = by_hand(model, encode_task(TASK, TOKENIZER))
    np.testing.assert_allclose(found["gram"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert found["gram"].dims == ("layer", "sample", "other_sample")
    assert found["sample"].values.tolist() == list(TASK.ids)
    assert state(model) == before


def test_layers_of_another_architecture_are_found():
    ids = np.random.default_rng(0).integers(3, 30, (6, 5)).tolist()
    samples = [{"input_ids": row, "labels": [-100, -100, *row[2:]]} for row in ids]
    model = build("gpt2", torch.float32)
    assert layer_grams(model, None, samples).sizes["layer"] == model.config.num_hidden_layers


def test_a_model_with_unknown_layers_is_refused(monkeypatch):
    monkeypatch.setattr("headnb.analysis.representations.decoder_layers", lambda *_: ())
    with pytest.raises(UnknownLayersError, match="cannot identify the decoder layers of LlamaForCausalLM"):
        layer_grams(tiny_model(), TOKENIZER, TASK)
