"""A model that goes to another process is the same there, and is not copied here."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from headnb.scoring.model_transfer import SerializedModel

from tiny import tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_travel_beside_the_pickle_from_where_they_lie(dtype):
    model = tiny_model(dtype=dtype, tie_word_embeddings=True)
    beside: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(SerializedModel.of(model), protocol=5, buffer_callback=beside.append)
    weights = list(model.parameters())
    memory = [np.frombuffer(buffer, np.uint8) for buffer in beside]
    assert len(rest) < 0.2 * sum(weight.nbytes for weight in weights)
    for weight in weights:
        assert any(np.may_share_memory(weight.detach().view(torch.uint8).numpy(), part) for part in memory)
    came = [memoryview(bytearray(b"x" + bytes(buffer)))[1:] for buffer in beside]  # as out of a message: anywhere
    received = pickle.loads(rest, buffers=came).model
    assert received.lm_head.weight is received.model.embed_tokens.weight
    for name, weight in model.state_dict().items():
        assert torch.equal(received.state_dict()[name], weight)
        assert received.state_dict()[name].data_ptr() % 64 == 0
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(received(ids).logits, model(ids).logits)
        for weight in received.parameters():
            weight.zero_()  # its own memory, not the message's
    assert [bytes(part) for part in came] == [bytes(buffer) for buffer in beside]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16])
def test_weights_of_every_type_go_along(dtype):
    model = tiny_model()
    model.register_buffer("scale", torch.arange(6, dtype=torch.uint8).view(dtype))
    beside: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(SerializedModel.of(model), protocol=5, buffer_callback=beside.append)
    scale = pickle.loads(rest, buffers=beside).model.scale
    assert scale.dtype == dtype
    assert torch.equal(scale.view(torch.uint8), torch.arange(6, dtype=torch.uint8))


def test_it_is_passed_on_as_it_was_sent():
    model = tiny_model()
    sent = pickle.loads(pickle.dumps(SerializedModel.of(model)))
    sent.model.lm_head.register_forward_hook(lambda *_: None)  # of a run that a worker is in the middle of
    sent.model.requires_grad_(requires_grad=False)
    passed_on = pickle.loads(pickle.dumps(sent)).model
    assert not passed_on.lm_head._forward_hooks
    assert all(weight.requires_grad for weight in passed_on.parameters())
    assert torch.equal(passed_on.lm_head.weight, model.lm_head.weight)


def test_a_class_of_the_notebook_goes_along():
    class Mine(type(tiny_model())):
        """Not importable by name, as a class of a notebook in a worker."""

    model = Mine(tiny_model().config)
    received = pickle.loads(pickle.dumps(SerializedModel.of(model))).model
    assert type(received).__name__ == "Mine"
    assert torch.equal(received.lm_head.weight, model.lm_head.weight)
