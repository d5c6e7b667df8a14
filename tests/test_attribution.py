"""attattr is its definition: explicit attention matrices in float64, scaled one layer at a time, and differentiated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb import attention_weights, score_heads
from headnb.encoding import collate, pack
from headnb.errors import HeadnbError
from headnb.scoring.attribution import attribution_scorer
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from architectures import FLOAT32_INSIDE, build
from test_capture import state
from test_gradient import random_samples, token_task
from tiny import tiny_model

LENGTHS = (6, 9, 7)
STEPS = 4
GIVEN: dict[int, torch.Tensor] = {}  # layer -> attention weights (1, H, T, T) to use in place of the model's own
MADE: dict[int, torch.Tensor] = {}


def _explicit(module, query, key, value, attention_mask, scaling=None, softcap=None, s_aux=None, **_):
    """Attention of the textbook in the dtype of the model, whose weights can be looked at and replaced."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    logits = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = torch.softmax(logits, -1)
    MADE[module.layer_idx] = weights.detach()
    weights = GIVEN.get(module.layer_idx, weights)
    return (weights @ value).transpose(1, 2), weights


AttentionInterface.register("explicit", _explicit)
AttentionMaskInterface.register("explicit", eager_mask)


def probability(model, sample):
    """Of the answer: the geometric mean of its tokens' probabilities."""
    ids, labels = torch.tensor(sample.input_ids)[None], torch.tensor(sample.labels)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return torch.exp(-functional.cross_entropy(logits, labels[1:], ignore_index=-100))


def attributions(model, sample, layer, steps):
    """A / m * sum over k of dF(k A / m)/dA, (H, T, T), by a loop over k with the matrix itself as the variable."""
    GIVEN.clear()
    with torch.no_grad():
        probability(model, sample)
    A = MADE[layer]
    total = torch.zeros_like(A)
    for k in range(steps):
        GIVEN[layer] = (A * k / steps).requires_grad_()
        (gradient,) = torch.autograd.grad(probability(model, sample), GIVEN[layer])
        total += gradient
    GIVEN.clear()
    return (A / steps * total)[0]


def by_definition(name, samples, steps=STEPS):
    """(B, L, H)"""
    model = build(name, torch.float64)
    model.set_attn_implementation("explicit")
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
    batches = [collate(samples)] + [pack(samples)] * scorer.packs
    if name not in FLOAT32_INSIDE:  # transformers' masks in float64 overflow in a softmax in float32
        batches.append(collate(samples, side="left"))
    for batch in batches:
        found, _ = scorer(batch)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_one_answer_tokens_probability_is_what_is_attributed():
    """Completeness: the attributions of a layer sum to F with its attention minus F without it, as steps grow."""
    (sample,) = random_samples((9,), answer=0.2)
    assert sample.answer_tokens == 1
    model = build("llama", torch.float64)
    model.set_attn_implementation("explicit")
    with torch.no_grad():
        with_attention = probability(model, sample)
        GIVEN[1] = torch.zeros_like(MADE[1])
        without = probability(model, sample)
    twenty, forty = (float(attributions(model, sample, 1, steps).sum()) for steps in (20, 40))
    limit = 2 * forty - twenty  # the sum's error falls with 1 / steps
    assert limit == pytest.approx(float(with_attention - without), rel=0.01)


def test_scores_depend_neither_on_the_budget_nor_on_the_block_of_queries(monkeypatch):
    model = build("llama", torch.float32)
    samples = random_samples(LENGTHS)
    scorer = attribution_scorer(model, STEPS)
    expected, _ = scorer(collate(samples))
    monkeypatch.setattr(attention_weights, "WEIGHTS_AT_ONCE", 2 * 4 * 9 * 3)
    for batch in (collate(samples), pack(samples)):
        for budget in (5, 60, 1000):  # checkpointed; two scales a pass; all of them
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
    [({"stepps": 3}, "did you mean 'steps'"), ({"steps": 0}, "above 0"), ({"steps": 1.5}, "a whole number")],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(HeadnbError, match=message):
        score_heads(tiny_model(), None, token_task(random_samples(LENGTHS)), method="attattr", options=options)


def test_the_model_is_left_as_it_was():
    model = tiny_model().train()
    before = state(model)
    score_heads(model, None, token_task(random_samples(LENGTHS)), method="attattr", options={"steps": 2})
    assert state(model) == before
