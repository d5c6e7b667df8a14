"""A model that goes to another process is the same there, and is not copied here."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from headnb.scoring.sent_model import SentModel

from tiny import tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_travel_beside_the_pickle_from_where_they_lie(dtype):
    model = tiny_model(dtype=dtype, tie_word_embeddings=True)
    beside: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(SentModel(model), protocol=5, buffer_callback=beside.append)
    weights = list(model.parameters())
    memory = [np.frombuffer(buffer, np.uint8) for buffer in beside]
    assert len(rest) < 0.2 * sum(weight.nbytes for weight in weights)
    for weight in weights:
        assert any(np.may_share_memory(weight.detach().view(torch.uint8).numpy(), part) for part in memory)
    received = pickle.loads(rest, buffers=[bytes(buffer) for buffer in beside]).model
    assert received.lm_head.weight is received.model.embed_tokens.weight
    for name, weight in model.state_dict().items():
        assert torch.equal(received.state_dict()[name], weight)
        assert received.state_dict()[name].data_ptr() % 16 == 0
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(received(ids).logits, model(ids).logits)
        received.lm_head.weight.zero_()  # what came from elsewhere can be written to, and is its own
    assert model.lm_head.weight.any()


def test_a_class_of_the_notebook_goes_along():
    class Mine(type(tiny_model())):
        """Not importable by name, as a class of a notebook in a worker."""

    model = Mine(tiny_model().config)
    received = pickle.loads(pickle.dumps(SentModel(model))).model
    assert type(received).__name__ == "Mine"
    assert torch.equal(received.lm_head.weight, model.lm_head.weight)
