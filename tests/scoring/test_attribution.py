"""`attattr` equals its definition: explicit float64 attention matrices, scaled one layer at a time, differentiated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb import score_heads
from headnb.engine import attention_weights as blocks
from headnb.engine.batching import collate, pack
from headnb.engine.hooks import find_heads
from headnb.engine.tokenization import EncodedSample
from headnb.errors import HeadnbError
from headnb.scoring.attribution import attribution_scorer
from torch.nn import functional

from architectures import FLOAT32_INSIDE, build
from explicit_attention import attention_weights, matrices, with_explicit_attention
from model_state import state
from random_samples import random_samples, token_task
from tiny import tiny_model

LENGTHS = (6, 9, 7)
STEPS = 4


def probability(model, sample):
    """Probability of the answer: the geometric mean of its tokens' probabilities."""
    ids, labels = torch.tensor(sample.input_ids)[None], torch.tensor(sample.labels)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return torch.exp(-functional.cross_entropy(logits, labels[1:], ignore_index=-100))


def gradient_at(model, sample, layer, weights):
    """dF/dA (H, T, T) at these weights of a layer, with the attention matrix itself as the variable."""
    variable = weights.clone().requires_grad_()
    with attention_weights({layer: variable}):
        (gradient,) = torch.autograd.grad(probability(model, sample), variable)
    return gradient


def attributions(model, sample, layer, steps):
    """A / m * sum over k of dF(k A / m)/dA, (H, T, T), computed by a loop over k."""
    A = matrices(model, sample.input_ids)[layer].A
    return A / steps * sum(gradient_at(model, sample, layer, A * k / steps) for k in range(steps))


def by_definition(name, samples, steps=STEPS):
    """Scores (B, L, H)."""
    model = with_explicit_attention(build(name, torch.float64))
    layers = model.config.num_hidden_layers
    rows = [
        torch.stack([attributions(model, x, layer, steps).amax((1, 2)) for layer in range(layers)]) for x in samples
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mistral"])
def test_scores_are_the_largest_entries_of_attributions_by_a_direct_loop(name):
    samples = random_samples(LENGTHS)
    expected = by_definition(name, samples)
    assert (expected.amax((0, 2)) > 0).all()
    scorer = attribution_scorer(build(name, torch.float64), STEPS)
    batches = [collate(samples)] + [pack(samples)] * scorer.supports_packing
    if name not in FLOAT32_INSIDE:  # transformers' float64 masks overflow in a float32 softmax
        batches.append(collate(samples, side="left"))
    for batch in batches:
        found, _ = scorer(batch)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_attributions_of_a_layer_sum_to_what_its_attention_adds_to_the_probability(layer):
    """Completeness: the sum approaches F(A) - F(0), with an error that falls as 1 / m."""
    (sample,) = random_samples((9,), answer=0.2)
    assert sample.answer_tokens == 1
    model = with_explicit_attention(build("llama", torch.float64))
    A = matrices(model, sample.input_ids)[layer].A
    with torch.no_grad():
        whole = probability(model, sample)
        with attention_weights({layer: torch.zeros_like(A)}):
            added = float(whole - probability(model, sample))
    errors = [float(attributions(model, sample, layer, steps).sum()) - added for steps in (20, 80, 160)]
    assert abs(errors[2]) < 0.05 * abs(added)
    assert abs(errors[2]) < abs(errors[0]) / 7
    if layer:  # in layer 0 embeddings are small compared with attention's output, so F bends sharply from 0 to A
        assert errors[1] / errors[2] == pytest.approx(2, rel=0.01)


def test_the_score_approaches_what_a_head_adds_to_the_probability_where_one_weight_is_all_of_it():
    """One head and a prompt of one token: its single weight is 1, and its attribution is F(1) - F(0)."""
    model = tiny_model(layers=3, heads=1, kv_heads=1, dtype=torch.float64)
    samples = [EncodedSample(np.array([7, answer]), np.array([-100, answer])) for answer in range(20, 28)]
    added = torch.zeros(len(samples), 3, dtype=torch.float64)
    with torch.no_grad():
        for row, sample in enumerate(samples):
            whole = probability(model, sample)
            for layer, block in enumerate(model.model.layers):
                silent = block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (0 * args[0],))
                added[row, layer] = whole - probability(model, sample)
                silent.remove()
    assert (added > 0).any(0).all()
    assert (added < 0).any()
    expected = added.clamp(min=0)  # the weights that the mask forbids are 0 and count
    scores = [attribution_scorer(model, steps)(collate(samples))[0][..., 0] for steps in (40, 80)]
    errors = [(found - expected).abs().amax(0) for found in scores]  # (L)
    assert (errors[1] < 0.02 * expected.amax(0)).all()
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.05)


def test_scores_approach_the_largest_entry_of_the_integral_as_steps_grow():
    """The integral is computed by Gauss-Legendre quadrature, which shares no nodes with the steps."""
    (sample,) = random_samples((9,))
    model = with_explicit_attention(build("llama", torch.float64))
    nodes, weights = np.polynomial.legendre.leggauss(48)
    expected = torch.zeros(find_heads(model).shape, dtype=torch.float64)
    for layer, found in matrices(model, sample.input_ids).items():
        parts = [
            gradient_at(model, sample, layer, found.A * (node + 1) / 2) * weight / 2
            for node, weight in zip(nodes, weights, strict=True)
        ]
        expected[layer] = (found.A * sum(parts)).amax((1, 2))
    model = build("llama", torch.float64)
    errors = [
        (attribution_scorer(model, steps)(collate([sample]))[0][0] - expected).abs().amax(1) for steps in (40, 80)
    ]
    assert (errors[1] < 0.1 * expected.amax(1)).all()
    assert errors[0][0] / errors[1][0] > 1.8
    np.testing.assert_allclose(errors[0][1:] / errors[1][1:], 2, rtol=0.01)


def test_scores_depend_neither_on_the_budget_nor_on_the_block_of_queries(monkeypatch):
    model = build("llama", torch.float32)
    samples = random_samples(LENGTHS)
    scorer = attribution_scorer(model, STEPS)
    expected, _ = scorer(collate(samples))
    monkeypatch.setattr(blocks, "MAX_WEIGHT_ELEMENTS", 2 * 4 * 9 * 3)
    for batch in (collate(samples), pack(samples)):
        for budget in (5, 60, 1000):  # checkpointed; two scales per pass; all scales in one pass
            found, _ = scorer(batch, budget=budget)
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_pattern_is_the_mean_in_units_of_probability_and_steps_are_kept():
    model, task = tiny_model(), token_task(random_samples(LENGTHS))
    scores = score_heads(model, None, task, method="attattr", options={"steps": 3})
    pattern = scores.heads.pattern()
    assert (pattern.attrs["kind"], pattern.attrs["units"]) == ("level", "probability")
    assert scores.attrs["option_steps"] == 3
    assert (scores.score >= 0).all()
    np.testing.assert_allclose(pattern, scores.score.mean("sample"), rtol=1e-6)


def test_a_store_of_other_steps_is_refused(tmp_path):
    model, task = tiny_model(), token_task(random_samples(LENGTHS))
    score_heads(model, None, task, method="attattr", options={"steps": 2}, out=tmp_path / "a.zarr")
    with pytest.raises(HeadnbError, match="option_steps 2, not 3"):
        score_heads(model, None, task, method="attattr", options={"steps": 3}, out=tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepps": 3}, "did you mean 'steps'"),
        ({3: 3}, "unknown option of attattr '3'"),
        ({"steps": 0}, "steps must be above 0, not 0"),
        ({"steps": 1.5}, "steps must be a whole number, not 1.5"),
        ({"steps": True}, "steps must be a whole number, not True"),
        (["steps"], r"options must be a dict of names and values, such as \{'steps': 50\}, not \['steps'\]"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(HeadnbError, match=message):
        score_heads(tiny_model(), None, token_task(random_samples(LENGTHS)), method="attattr", options=options)


def test_the_model_is_left_as_it_was():
    model = tiny_model().train()
    before = state(model)
    score_heads(model, None, token_task(random_samples(LENGTHS)), method="attattr", options={"steps": 2})
    assert state(model) == before
