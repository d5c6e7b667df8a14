"""Which models may be trained on several samples in a row."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from headnb.engine.packing import check_packed_training
from headnb.errors import HeadnbError

from architectures import build


def refusal(model):
    """What is said against it; empty if nothing is."""
    try:
        check_packed_training(model)
    except HeadnbError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_models_that_tell_samples_by_their_positions_may(name, dtype):
    assert refusal(build(name, dtype)) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["opt", "bloom", "gpt_oss"])
def test_others_are_refused(name, dtype):
    said = refusal(build(name, dtype))
    assert said.endswith("train without packing") or "does not support packed samples" in said


def test_layers_that_are_told_where_samples_begin_may():
    """As convolutions and linear attention do, with the kernels that they are trained with."""
    model = build("llama", torch.float32)
    layer = model.model.layers[1]
    plain = layer.forward

    def convolved(hidden, *args, told=True, **kwargs):
        before = torch.nn.functional.pad(hidden, (0, 0, 1, -1))
        first = torch.nn.functional.pad(kwargs["seq_idx"], (1, -1), value=-1) != kwargs["seq_idx"]
        return plain(hidden + before.masked_fill(first[..., None] & told, 0), *args, **kwargs)

    layer.forward = convolved
    assert refusal(model) == ""
    layer.forward = partial(convolved, told=False)
    assert refusal(model).endswith("train without packing")
