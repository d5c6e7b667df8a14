"""Checks of a model's weights before it is scored."""

from __future__ import annotations

import accelerate
import pytest
from headnb import HeadnbError
from headnb.models.checks import check_weights, is_offloaded

from tiny import tiny_model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_unsound_weights_are_named_with_their_layer(model, value):
    check_weights(model)
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 5] = value
    model.get_parameter("lm_head.weight").data[0, 0] = value
    with pytest.raises(HeadnbError, match=r"model\.layers\.1\.mlp\.up_proj\.weight \(layer 1\), lm_head\.weight$"):
        check_weights(model)


def test_huge_but_finite_weights_are_sound(model):
    model.get_parameter("lm_head.weight").data.fill_(3e38)
    assert model.lm_head.weight.sum().isinf()
    assert check_weights(model) is None


def test_a_model_is_offloaded_if_its_weights_are_elsewhere_until_they_are_needed(model, tmp_path):
    assert not is_offloaded(model)
    assert is_offloaded(accelerate.cpu_offload(tiny_model(), execution_device="cpu"))
    assert is_offloaded(accelerate.disk_offload(tiny_model(), tmp_path, execution_device="cpu"))
    assert not is_offloaded(tiny_model().to("meta"))


def test_hooks_that_only_move_inputs_between_devices_do_not_offload(model):
    accelerate.hooks.attach_align_device_hook(model, execution_device="cpu")  # as device_map="auto" on several devices
    accelerate.hooks.add_hook_to_module(model, accelerate.hooks.AlignDevicesHook(io_same_device=True))
    assert hasattr(model, "_hf_hook")
    assert not is_offloaded(model)
