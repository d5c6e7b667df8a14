"""Passes that start at a later layer give the logits of whole passes, and are not used in models where they differ."""

from __future__ import annotations

import pytest
import torch
from headnb.engine.hooks import find_heads, head_outputs
from headnb.engine.partial_forward import find_partial_forward

from architectures import ARCHITECTURES, build
from model_state import state
from tiny import tiny_model

IDS = torch.tensor([[5, 9, 2, 7, 1, 3], [4, 4, 8, 1, 6, 2]])


def doubled(model, layout, layer):
    """Logits with the outputs of one layer's heads doubled."""
    with torch.no_grad(), head_outputs(model, lambda at, O: O * 2 if at == layer else O, layout, [layer]):
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_pass_from_the_changed_layer_upwards_equals_a_whole_one(name):
    model = build(name, torch.float32)
    layout = find_heads(model)
    later = find_partial_forward(model, layout)
    with torch.no_grad(), later.record_outputs() as hidden:
        model(input_ids=IDS, use_cache=False)
    for layer in range(len(layout.heads)):
        expected = doubled(model, layout, layer)
        with later.start_at(layer, hidden):
            found = doubled(model, layout, layer)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_layers_below_do_not_run_and_rows_can_be_repeated():
    model = tiny_model(layers=4)
    later = find_partial_forward(model, find_heads(model))
    ran = []
    with torch.no_grad(), later.record_outputs() as hidden:
        expected = model(input_ids=IDS, use_cache=False).logits
    hooks = [layer.mlp.register_forward_hook(lambda *_, at=at: ran.append(at)) for at, layer in enumerate(later.layers)]
    with torch.no_grad(), later.start_at(2, hidden, lambda states: states.repeat(3, 1, 1)):
        found = model(input_ids=IDS.repeat(3, 1), use_cache=False).logits
    assert ran == [2, 3]
    assert torch.allclose(found, expected.repeat(3, 1, 1), rtol=1e-5, atol=1e-6)
    for hook in hooks:
        hook.remove()


def test_the_model_is_unchanged_also_after_an_error():
    model = tiny_model(layers=3)
    before, forwards = state(model), [vars(layer).get("forward") for layer in model.model.layers]
    later = find_partial_forward(model, find_heads(model))
    with later.record_outputs() as hidden:
        model(input_ids=IDS)
    with pytest.raises(InterruptedError), later.start_at(2, hidden):
        raise InterruptedError
    assert state(model) == before
    assert [vars(layer).get("forward") for layer in model.model.layers] == forwards


def test_a_model_whose_layers_need_more_than_hidden_states_runs_whole():
    """For example shared keys and values. Here the last layer's output depends on the first layer's input."""
    model = tiny_model(layers=3)
    first, _, last = model.model.layers
    remembered = []
    first.register_forward_pre_hook(lambda _, args: remembered.append(args[0]))
    inner = first.self_attn.register_forward_pre_hook(lambda *_: remembered.append(None))
    last.register_forward_hook(lambda _, __, output: output + (remembered[-1] is None))
    assert find_partial_forward(model, find_heads(model)).layers == ()
    inner.remove()
