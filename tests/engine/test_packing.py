"""Models that may and may not be trained on packed rows."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from headnb.engine.packing import check_packed_training
from headnb.errors import HeadnbError

from architectures import build


def refusal(model):
    """The error message of the check; empty if the model passes."""
    try:
        check_packed_training(model)
    except HeadnbError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_models_that_separate_samples_by_positions_are_accepted(name, dtype):
    assert refusal(build(name, dtype)) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["opt", "bloom", "gpt_oss"])
def test_models_that_do_not_separate_samples_are_refused(name, dtype):
    message = refusal(build(name, dtype))
    assert message.endswith("train without packing") or "does not support packed samples" in message


def test_layers_that_receive_the_boundaries_of_samples_are_accepted():
    """For example convolutions and linear attention, with their training kernels."""
    model = build("llama", torch.float32)
    layer = model.model.layers[1]
    plain = layer.forward

    def convolved(hidden, *args, separate=True, **kwargs):
        before = torch.nn.functional.pad(hidden, (0, 0, 1, -1))
        first = torch.nn.functional.pad(kwargs["seq_idx"], (1, -1), value=-1) != kwargs["seq_idx"]
        return plain(hidden + before.masked_fill(first[..., None] & separate, 0), *args, **kwargs)

    layer.forward = convolved
    assert refusal(model) == ""
    layer.forward = partial(convolved, separate=False)
    assert refusal(model).endswith("train without packing")
