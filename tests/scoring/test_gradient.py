"""Gradient scores equal finite differences, the official formula and direct slow implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb import score_heads
from headnb.engine.batching import collate
from headnb.engine.hooks import head_outputs
from headnb.engine.interventions import scale_heads
from headnb.errors import HeadnbError
from headnb.models.locks import model_lock
from headnb.scoring.gradient import activation, gradient_scorer, taylor_token, token_products
from headnb.tasks.row_values import IGNORED
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertLMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from architectures import build, hybrid_model
from random_samples import mean_loss, random_samples, token_task
from tiny import tiny_model


def test_activation_score_equals_finite_difference_of_a_gate_on_the_head():
    """s is the derivative of the loss with respect to a factor on the head's output, at factor 1."""
    model = build("gpt2")  # its code stays in float64; RMS norms of other models round to float32
    sample = random_samples()[3]
    scores, _ = gradient_scorer(model, activation)(collate([sample]))
    step = 1e-4
    for layer, head in ((0, 0), (1, 3), (2, 2)):
        losses = []
        for factor in (1 + step, 1 - step):
            with scale_heads(model, {f"L{layer}H{head}": factor}):
                losses.append(mean_loss(model, sample))
        difference = float(losses[0] - losses[1]) / (2 * step)
        assert scores[0, layer, head].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_taylor_token_equals_a_loop_over_tokens_and_heads():
    model = build("llama")
    (sample,) = random_samples((12,))
    head_outputs_of_layer = {}

    def record(layer, outputs):
        outputs.retain_grad()
        head_outputs_of_layer[layer] = outputs
        return outputs

    with head_outputs(model, record):
        logits = model(torch.tensor(sample.input_ids)[None]).logits[0, :-1]
        functional.cross_entropy(logits, torch.tensor(sample.labels)[1:], ignore_index=IGNORED).backward()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for layer, outputs in head_outputs_of_layer.items():
        for head in range(4):
            for token in range(12):
                product = sum(
                    (outputs[0, token, head, d] * outputs.grad[0, token, head, d]).item()
                    for d in range(outputs.shape[-1])
                )
                expected[layer, head] += abs(product)
    found, _ = gradient_scorer(build("llama"), taylor_token)(collate([sample]))
    assert torch.allclose(found[0], expected, rtol=1e-10, atol=0)


def test_losses_are_each_samples_mean_cross_entropy():
    model = build("llama")
    samples = random_samples()
    _, losses = gradient_scorer(model, activation)(collate(samples))
    expected = [mean_loss(model, sample).item() for sample in samples]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("batch_tokens", [1, 20, 60, 10_000])
def test_scores_do_not_depend_on_the_token_budget_the_order_or_packing(batch_tokens, packed):
    model = tiny_model(layers=3)
    samples = random_samples((6, 11, 8, 13, 7, 9, 30, 5))
    expected = score_heads(model, None, token_task(samples), packed=False).score
    options = {"batch_tokens": batch_tokens, "seed": 7, "packed": packed}
    reordered = score_heads(model, None, token_task(samples[::-1]), **options).score
    assert float(abs(reordered.values[::-1] - expected.values).max()) < 1e-5 * float(abs(expected).max())


def official_scores(model, samples, batch_size=4):
    """Scores as the paper's script computes them: eager attention, batches in task order, one mean per batch."""
    found = []
    for start in range(0, len(samples), batch_size):
        batch = collate(samples[start : start + batch_size])
        mask = (batch.input_ids > 0).long()
        output = model(batch.input_ids, attention_mask=mask, output_attentions=True, use_cache=False)
        logits, labels = output.logits[:, :-1].reshape(-1, output.logits.shape[-1]), batch.labels[:, 1:].reshape(-1)
        loss = functional.cross_entropy(logits, labels, ignore_index=IGNORED)
        gradients = torch.autograd.grad(loss, output.attentions)
        maps = zip(output.attentions, gradients, strict=True)
        found.append(torch.stack([(A * dA).sum((2, 3)) for A, dA in maps], dim=1))
    return torch.cat(found).detach()


def test_a_sample_without_a_prompt_scores_the_same_with_padding_on_either_side():
    """The first token is not predicted from the padding before it."""
    scorer = gradient_scorer(tiny_model(layers=3), activation)
    samples = random_samples((6, 11, 8), answer=1)
    assert all(sample.labels[0] != IGNORED for sample in samples)
    (right, losses), (left, same) = (scorer(collate(samples, side=side)) for side in ("right", "left"))
    assert torch.allclose(losses, same, rtol=1e-5)
    assert (left - right).abs().max() < 1e-5 * right.abs().max()


def test_batch_mean_equals_the_official_formula_on_the_same_batches():
    samples = random_samples((6, 11, 8, 13, 7, 9, 12, 5, 10, 6))
    model = tiny_model(layers=3)
    expected = official_scores(tiny_model(layers=3, attn_implementation="eager"), samples).numpy()
    found = score_heads(model, None, token_task(samples), loss="batch-mean")
    derived = score_heads(model, None, token_task(samples)).heads.with_loss("batch-mean", batch_size=4)
    for scores in (found, derived):
        assert abs(scores.score.values - expected).max() < 1e-5 * abs(expected).max()


def test_sum_is_the_gradient_of_the_summed_loss():
    samples = random_samples()
    mean = score_heads(tiny_model(), None, token_task(samples))
    total = score_heads(tiny_model(), None, token_task(samples), loss="sum")
    expected = mean.score * mean.answer_tokens
    assert np.allclose(total.score, expected.transpose(*total.score.dims), rtol=1e-6)


def test_bfloat16_scores_are_summed_in_float32():
    """A bfloat16 sum of this many products would be wrong by several per cent of the largest product."""
    random = torch.Generator().manual_seed(0)
    O, dO = (torch.randn(1, 4096, 2, 64, generator=random).bfloat16() for _ in range(2))
    expected = (O.double() * dO.double()).sum((1, 3))
    assert torch.allclose(activation(token_products(O, dO)).double(), expected, rtol=1e-4, atol=1e-2)


def test_bfloat16_model_scores_close_to_float32():
    samples = random_samples((20, 30, 25), vocabulary=300)
    model = tiny_model(layers=3, hidden=64)
    exact = score_heads(model, None, token_task(samples)).score.values
    rough = score_heads(tiny_model(layers=3, hidden=64).bfloat16(), None, token_task(samples)).score.values
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.99


def test_a_compiled_model_shares_the_lock_of_the_model_that_it_wraps():
    model = tiny_model(layers=2)
    assert model_lock(torch.compile(model)) is model_lock(model)
    assert model_lock(tiny_model(layers=2)) is not model_lock(model)


@pytest.mark.long
def test_compiled_models_score_as_uncompiled_ones():
    samples = random_samples()
    expected = score_heads(tiny_model(layers=2), None, token_task(samples)).score.values
    whole = torch.compile(tiny_model(layers=2), backend="aot_eager")
    in_place = tiny_model(layers=2)
    in_place.compile(backend="aot_eager")
    by_layer = tiny_model(layers=2)
    for layer in by_layer.model.layers:
        layer.compile(backend="aot_eager")
    by_layer(torch.arange(1, 9)[None])  # traced before the hooks exist, so scoring must not use this trace
    for model in (whole, in_place, by_layer):
        found = score_heads(model, None, token_task(samples)).score.values
        assert abs(found - expected).max() < 1e-6 * abs(expected).max()


def test_adapted_model_scores_as_the_merged_one():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "o_proj", "gate_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(tiny_model(), config).eval()
    samples = random_samples()
    found = score_heads(adapted, None, token_task(samples)).score.values
    assert any(parameter.requires_grad for parameter in adapted.parameters())
    merged = score_heads(adapted.merge_and_unload(), None, token_task(samples)).score.values
    bare = score_heads(tiny_model(), None, token_task(samples)).score.values
    assert abs(found - merged).max() < 1e-4 * abs(merged).max()
    assert abs(found - bare).max() > 1e-2 * abs(merged).max()


def test_layers_without_softmax_heads_are_nan():
    scores = score_heads(hybrid_model(), None, token_task(random_samples()))
    assert scores.score.isnull().all(("sample", "head")).values.tolist() == [True, False, True, False]
    assert np.isfinite(scores.heads.pattern().heads.gini())


def test_encoders_and_encoder_decoders_are_refused():
    bert = BertLMHeadModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64))
    small = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 4, "vocab_size": 64}
    with pytest.raises(HeadnbError, match="is an encoder"):
        gradient_scorer(bert, activation)
    with pytest.raises(HeadnbError, match="encoder-decoder"):
        gradient_scorer(T5ForConditionalGeneration(T5Config(**small)), activation)


def test_model_without_a_head_is_refused():
    with pytest.raises(HeadnbError, match="no language-model head"):
        gradient_scorer(tiny_model().model, activation)


class HostSyncs(TorchDispatchMode):
    """Records the operations for which the host must wait for the device."""

    KINDS = ("nonzero", "masked_select", "bincount", "_local_scalar_dense", "equal", "is_nonzero", "_unique2")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ())
        )
        if name in self.KINDS or by_mask:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("reduce", [activation, taylor_token])
@pytest.mark.parametrize("lengths", [(9, 9, 9), (6, 11, 8)])
def test_between_a_batchs_tokens_and_its_scores_nothing_waits_for_the_device(reduce, lengths):
    scorer = gradient_scorer(tiny_model(layers=3), reduce)
    batch = collate(random_samples(lengths))
    expected, _ = scorer(batch)
    with HostSyncs() as waits:  # check that HostSyncs records these operations
        assert len(collate(random_samples(lengths)).answers.tokens) == (batch.labels[:, 1:] != IGNORED).sum()
    assert {"nonzero", "bincount"} <= set(waits.found)
    with HostSyncs() as own:  # transformers checks once whether the row is packed
        scorer.model(batch.input_ids, use_cache=False)
    with HostSyncs() as waits:
        found, _ = scorer(batch)
    assert waits.found == own.found
    assert torch.equal(found, expected)
