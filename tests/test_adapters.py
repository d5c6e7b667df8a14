"""A comparison with and without an adapter is that of the base and of a model with the adapter merged in."""

from __future__ import annotations

import copy

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.errors import HeadnbError
from headnb.tuning.adapters import compare_adapter

from test_capture import state
from test_checkpoints import PAIRS, TOKENIZER, adapted
from tiny import tiny_model


def adapter_state(model):
    layers = [module for module in model.modules() if hasattr(module, "disable_adapters") and hasattr(module, "merged")]
    return [(layer.active_adapters, layer.disable_adapters, layer.merged) for layer in layers]


def test_equals_the_comparison_of_the_base_and_the_merged_model():
    found = compare_adapter(adapted(tiny_model(), 10), TOKENIZER, PAIRS)
    before = headnb.score_heads(tiny_model(), TOKENIZER, PAIRS)
    after = headnb.score_heads(adapted(tiny_model(), 10).merge_and_unload(), TOKENIZER, PAIRS)
    expected = headnb.compare(before, after)
    for name in ("difference", "low", "high"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-6)
    assert abs(found["difference"]).max() > 0.01
    assert found.attrs["model"] == found.attrs["model_before"] + " + default"


def test_equals_the_comparison_of_the_same_call_in_peft():
    model = adapted(tiny_model(), 10)
    found = compare_adapter(model, TOKENIZER, PAIRS, method="taylor-token", scale_free=True, alpha=0.2)
    with model.disable_adapter():
        before = headnb.score_heads(model, TOKENIZER, PAIRS, method="taylor-token")
    after = headnb.score_heads(model, TOKENIZER, PAIRS, method="taylor-token")
    xr.testing.assert_equal(found, headnb.compare(before, after, alpha=0.2, scale_free=True))


@pytest.mark.parametrize("trainable", [True, False])
def test_model_is_as_before_after_success_and_when_stopped(trainable):
    model = adapted(tiny_model(), 10)
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
    wrapped = adapted(tiny_model(), 10)
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
    model = adapted(tiny_model(), 10)
    model.merge_adapter()
    with pytest.raises(HeadnbError, match=r"merged into the weights; model.unmerge_adapter\(\)"):
        compare_adapter(model, TOKENIZER, PAIRS)
    model.unmerge_adapter()
    model.base_model.disable_adapter_layers()
    with pytest.raises(HeadnbError, match="the adapters are disabled"):
        compare_adapter(model, TOKENIZER, PAIRS)
