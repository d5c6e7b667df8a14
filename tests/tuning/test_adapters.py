"""`compare_adapter` equals the comparison of the base model with a model that has the adapter merged."""

from __future__ import annotations

import copy

import headnb
import numpy as np
import peft
import pytest
import torch
import xarray as xr
from headnb.errors import HeadnbError
from headnb.tuning.adapters import compare_adapter

from adapter_models import PAIRS, TOKENIZER, with_adapter
from model_state import state
from tiny import tiny_model


def adapter_state(model):
    layers = [module for module in model.modules() if hasattr(module, "disable_adapters") and hasattr(module, "merged")]
    return [(layer.active_adapters, layer.disable_adapters, layer.merged) for layer in layers]


def test_equals_the_comparison_of_the_base_and_the_merged_model():
    found = compare_adapter(with_adapter(tiny_model(), 10), TOKENIZER, PAIRS)
    before = headnb.score_heads(tiny_model(), TOKENIZER, PAIRS)
    after = headnb.score_heads(with_adapter(tiny_model(), 10).merge_and_unload(), TOKENIZER, PAIRS)
    expected = headnb.compare(before, after)
    for name in ("difference", "low", "high"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-6)
    assert abs(found["difference"]).max() > 0.01
    assert found.attrs["model"] == found.attrs["model_before"] + " + default"


def test_equals_the_comparison_of_the_same_call_in_peft():
    model = with_adapter(tiny_model(), 10)
    found = compare_adapter(model, TOKENIZER, PAIRS, method="taylor-token", scale_free=True, alpha=0.2)
    with model.disable_adapter():
        before = headnb.score_heads(model, TOKENIZER, PAIRS, method="taylor-token")
    after = headnb.score_heads(model, TOKENIZER, PAIRS, method="taylor-token")
    xr.testing.assert_equal(found, headnb.compare(before, after, alpha=0.2, scale_free=True))


@pytest.mark.parametrize("trainable", [True, False])
def test_model_is_as_before_after_success_and_when_stopped(trainable):
    model = with_adapter(tiny_model(), 10)
    for name, weight in model.named_parameters():
        weight.requires_grad_(trainable and "lora" in name)
    before, adapters = state(model), adapter_state(model)
    compare_adapter(model, TOKENIZER, PAIRS)
    assert (state(model), adapter_state(model)) == (before, adapters)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_adapter(model, TOKENIZER, PAIRS, on_progress=stop)
    assert (state(model), adapter_state(model)) == (before, adapters)


def test_adapters_that_transformers_added_are_left_out_too():
    wrapped = with_adapter(tiny_model(), 10)
    model = tiny_model()
    model.add_adapter(copy.deepcopy(wrapped.peft_config["default"]))
    trained = {name.removeprefix("base_model.model."): weight for name, weight in wrapped.state_dict().items()}
    model.load_state_dict(trained)
    before, adapters = state(model), adapter_state(model)
    found = compare_adapter(model, TOKENIZER, PAIRS)
    assert (state(model), adapter_state(model)) == (before, adapters)
    expected = compare_adapter(wrapped, TOKENIZER, PAIRS)
    np.testing.assert_allclose(found["difference"], expected["difference"], rtol=1e-5, atol=1e-6)


def test_a_model_without_an_adapter_to_leave_out_is_refused():
    with pytest.raises(HeadnbError, match="no adapter to compare"):
        compare_adapter(tiny_model(), TOKENIZER, PAIRS)
    model = with_adapter(tiny_model(), 10)
    model.merge_adapter()
    with pytest.raises(HeadnbError, match=r"merged into the weights; undo this with model.unmerge_adapter\(\)"):
        compare_adapter(model, TOKENIZER, PAIRS)
    model.unmerge_adapter()
    model.base_model.disable_adapter_layers()
    with pytest.raises(HeadnbError, match="the adapters are disabled"):
        compare_adapter(model, TOKENIZER, PAIRS)


def peft_model(config):
    """A model with an adapter of random weights that changes its logits."""
    model = peft.get_peft_model(tiny_model(), config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape))
    return model


TARGETS = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
KINDS = {
    "lora": peft.LoraConfig(**TARGETS),
    "dora": peft.LoraConfig(use_dora=True, **TARGETS),
    "adalora": peft.AdaLoraConfig(total_step=10, **TARGETS),
    "loha": peft.LoHaConfig(**TARGETS),
    "lokr": peft.LoKrConfig(**TARGETS),
    "ia3": peft.IA3Config(feedforward_modules=[], **TARGETS),
    "oft": peft.OFTConfig(**TARGETS),
    "vera": peft.VeraConfig(**TARGETS),
    "layer norms": peft.LNTuningConfig(task_type="CAUSAL_LM"),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "projected prefix": peft.PrefixTuningConfig(num_virtual_tokens=4, prefix_projection=True, task_type="CAUSAL_LM"),
    "llama adapter": peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_is_compared_with_the_base(kind):
    model = peft_model(copy.deepcopy(KINDS[kind]))
    before, after = headnb.score_heads(tiny_model(), TOKENIZER, PAIRS), headnb.score_heads(model, TOKENIZER, PAIRS)
    assert abs(after.score - before.score).max() > 0.01
    expected = headnb.compare(before, after)
    found = compare_adapter(model, TOKENIZER, PAIRS)
    np.testing.assert_allclose(found["difference"], expected["difference"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(headnb.score_heads(model, TOKENIZER, PAIRS).score, after.score)
    assert found.attrs["model"] == found.attrs["model_before"] + " + default"


def test_scores_with_a_prefix_are_those_of_the_attention_matrix():
    """Sum over queries and keys (prefix included) of A * dL/dA, from the matrices of eager attention."""
    model = peft_model(KINDS["prefix"])
    ids = torch.arange(5, 17)
    labels = torch.where(torch.arange(12) < 6, -100, ids)
    rows = [{"input_ids": ids.tolist(), "labels": labels.tolist()}]
    found = headnb.score_heads(model, None, rows).score.values[0]
    model.set_attn_implementation("eager")
    output = model(input_ids=ids[None], output_attentions=True)
    loss = torch.nn.functional.cross_entropy(output.logits[0, :-1], labels[1:], ignore_index=-100)
    gradients = torch.autograd.grad(loss, output.attentions)
    expected = torch.cat([(A * dA).sum((2, 3)) for A, dA in zip(output.attentions, gradients, strict=True)])
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
        peft.PromptEncoderConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    ],
    ids=["prompt tuning", "p-tuning"],
)
def test_adapters_that_add_tokens_are_refused_before_any_scoring(config):
    calls = []
    with pytest.raises(HeadnbError, match="adds tokens to every sample"):
        compare_adapter(peft_model(config), TOKENIZER, PAIRS, on_progress=calls.append)
    assert not calls


@pytest.mark.parametrize("kind", ["prefix", "lora"])
def test_a_disabled_adapter_is_refused(kind):
    model = peft_model(copy.deepcopy(KINDS[kind]))
    with model.disable_adapter(), pytest.raises(HeadnbError, match="disabled; enable"):
        compare_adapter(model, TOKENIZER, PAIRS)


def test_an_adapter_that_wants_more_than_tokens_is_refused_in_one_line():
    model = peft_model(peft.PolyConfig(n_tasks=2, **TARGETS))
    with pytest.raises(HeadnbError, match="does not run on token ids alone: task_ids should not be None"):
        headnb.score_heads(model, TOKENIZER, PAIRS)
