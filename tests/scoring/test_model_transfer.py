"""A model sent to another process is equal there, and is not copied in this process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from headnb.scoring.model_transfer import SerializedModel

from tiny import tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_sent_out_of_band_without_a_copy(dtype):
    model = tiny_model(dtype=dtype, tie_word_embeddings=True)
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(SerializedModel.of(model), protocol=5, buffer_callback=buffers.append)
    weights = list(model.parameters())
    memory = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
    assert len(rest) < 0.2 * sum(weight.nbytes for weight in weights)
    for weight in weights:
        assert any(np.may_share_memory(weight.detach().view(torch.uint8).numpy(), part) for part in memory)
    message = [memoryview(bytearray(b"x" + bytes(buffer)))[1:] for buffer in buffers]  # unaligned
    received = pickle.loads(rest, buffers=message).model
    assert received.lm_head.weight is received.model.embed_tokens.weight
    for name, weight in model.state_dict().items():
        assert torch.equal(received.state_dict()[name], weight)
        assert received.state_dict()[name].data_ptr() % 64 == 0
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(received(ids).logits, model(ids).logits)
        for weight in received.parameters():
            weight.zero_()  # its own memory, not the message's
    assert [bytes(part) for part in message] == [bytes(buffer) for buffer in buffers]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16])
def test_weights_of_every_type_go_along(dtype):
    model = tiny_model()
    model.register_buffer("scale", torch.arange(6, dtype=torch.uint8).view(dtype))
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(SerializedModel.of(model), protocol=5, buffer_callback=buffers.append)
    scale = pickle.loads(rest, buffers=buffers).model.scale
    assert scale.dtype == dtype
    assert torch.equal(scale.view(torch.uint8), torch.arange(6, dtype=torch.uint8))


def test_it_is_passed_on_as_it_was_sent():
    model = tiny_model()
    sent = pickle.loads(pickle.dumps(SerializedModel.of(model)))
    sent.model.lm_head.register_forward_hook(lambda *_: None)  # a hook of a worker's current run
    sent.model.requires_grad_(requires_grad=False)
    forwarded = pickle.loads(pickle.dumps(sent)).model
    assert not forwarded.lm_head._forward_hooks
    assert all(weight.requires_grad for weight in forwarded.parameters())
    assert torch.equal(forwarded.lm_head.weight, model.lm_head.weight)


def test_a_class_of_the_notebook_goes_along():
    class Mine(type(tiny_model())):
        """Cannot be imported by name, like a class defined in a notebook."""

    model = Mine(tiny_model().config)
    received = pickle.loads(pickle.dumps(SerializedModel.of(model))).model
    assert type(received).__name__ == "Mine"
    assert torch.equal(received.lm_head.weight, model.lm_head.weight)
