"""A model's fingerprint changes with every weight, the adapters and relevant config entries, and with nothing else."""

from __future__ import annotations

import shutil

import accelerate
import pytest
import torch
from headnb import HeadnbError
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.loading import load_model

from tiny import tiny_model


def test_fingerprint_changes_with_any_weight_and_with_nothing_else(model, folder):
    first = weights_fingerprint(model)
    assert first == weights_fingerprint(tiny_model())
    assert first == weights_fingerprint(load_model(folder)[0])
    assert first == weights_fingerprint(torch.compile(model))
    weight = model.get_parameter("model.layers.0.self_attn.k_proj.weight").data
    seen = {first}
    weight[7, 3] = torch.nextafter(weight[7, 3], torch.tensor(9.0))
    seen.add(weights_fingerprint(model))
    weight[:] = weight.flip(0)
    seen.add(weights_fingerprint(model))
    seen.add(weights_fingerprint(model.to(torch.bfloat16)))
    assert len(seen) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [256, 255])
@pytest.mark.parametrize("other", [1, 2, 3, 4, 5, 8, 31, 127, 4096, 8192, 16384, 32768, 40000])
def test_fingerprint_sees_two_weights_exchanged(dtype, columns, other):
    layer = torch.nn.Linear(columns, 256, dtype=dtype)
    weight = layer.weight.data.view(-1)
    for first_value, second_value in ((1.0, -1.0), (1.0, 2.0), (0.1, 0.3)):  # differ in one bit, a few, many
        weight[5], weight[5 + other] = first_value, second_value
        first = weights_fingerprint(layer)
        weight[5], weight[5 + other] = second_value, first_value
        assert weights_fingerprint(layer) != first
        weight[5], weight[5 + other] = first_value, second_value
        assert weights_fingerprint(layer) == first


def test_fingerprint_covers_what_the_config_says_of_the_computation(model):
    first = weights_fingerprint(model)
    notes = {"use_cache": False, "architectures": ["X"], "pad_token_id": 3, "_name_or_path": "elsewhere"}
    for name, value in notes.items():
        setattr(model.config, name, value)
    model.set_attn_implementation("eager")
    assert weights_fingerprint(model) == first
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 77.0}
    changed = weights_fingerprint(model)
    model.config.rms_norm_eps *= 2
    assert len({first, changed, weights_fingerprint(model)}) == 3


def test_fingerprint_reads_offloaded_weights(model, tmp_path):
    first = weights_fingerprint(model)
    on_disk = accelerate.disk_offload(tiny_model(), tmp_path / "disk", execution_device="cpu")
    in_memory = accelerate.cpu_offload(tiny_model(), execution_device="cpu")
    for offloaded in (on_disk, in_memory):
        assert any(weight.is_meta for weight in offloaded.state_dict().values())
        assert weights_fingerprint(offloaded) == first


def test_a_fingerprint_does_not_stand_for_weights_that_cannot_be_read(model, tmp_path):
    offloaded = accelerate.disk_offload(tiny_model(), tmp_path / "disk", execution_device="cpu")
    shutil.rmtree(tmp_path / "disk")
    for gone in (offloaded, model.to("meta")):
        with pytest.raises(HeadnbError, match=r"weight lm_head\.weight is on the meta device, and no offload folder"):
            weights_fingerprint(gone)


def test_fingerprint_knows_whether_an_adapter_is_in_use(adapter):
    loaded, _ = load_model(adapter[0])
    used = weights_fingerprint(loaded)
    with loaded.disable_adapter():
        assert weights_fingerprint(loaded) != used
    assert weights_fingerprint(loaded) == used
    loaded.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").scaling["default"] *= 2
    assert weights_fingerprint(loaded) != used
