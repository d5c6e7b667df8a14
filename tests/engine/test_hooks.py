"""Hooks receive the real head outputs and leave the model unchanged afterwards."""

from __future__ import annotations

import threading

import pytest
import torch
from headnb.engine import layout
from headnb.engine.hooks import find_heads, head_outputs
from headnb.engine.interventions import scale_heads
from headnb.engine.model_contexts import checkpointed, frozen
from headnb.errors import HeadnbError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from architectures import ARCHITECTURES, MOVED, build, hybrid_model
from model_state import state
from tiny import tiny_model

TOKENS = torch.arange(1, 11)[None]


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "gemma2", "bloom", "falcon parallel multi-query"])
def test_model_is_as_before_after_success_error_and_interrupt(name):
    model = build(name, torch.float32).train()
    before = state(model)

    with frozen(model), checkpointed(model), head_outputs(model, lambda _, outputs: outputs):
        model(TOKENS, use_cache=False)
    assert state(model) == before

    def fail(layer, outputs):
        raise error

    for error in (RuntimeError("broken"), KeyboardInterrupt()):
        with (
            pytest.raises(type(error)),
            frozen(model),
            checkpointed(model),
            head_outputs(model, fail, find_heads(model)),
        ):
            model(TOKENS, use_cache=False)
        assert state(model) == before


@pytest.mark.parametrize("name", ["llama", "bloom", "deepseek_v3"])
def test_transform_that_looks_only_changes_no_logit(name):
    model = build(name)
    expected = model(TOKENS).logits
    seen = {}

    def look(layer, outputs):
        seen[layer] = outputs.shape
        return outputs

    with head_outputs(model, look) as layout:
        found = model(TOKENS).logits
    assert torch.equal(found, expected)
    assert {shape[:3] for shape in seen.values()} == {(1, 10, 4)}
    assert sorted(seen) == list(range(layout.shape[0]))


@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_scaled_head_equals_scaled_slice_of_the_output_projection(name):
    """The output projection W_o is linear: scaling head h equals scaling its columns of W_o."""
    model = build(name)
    with scale_heads(model, {"L1H2": 0.25, "L2H0": 3.0}):
        found = model(TOKENS).logits
    by_hand = build(name)
    for layer, head, factor in ((1, 2, 0.25), (2, 0, 3.0)):
        projection = (
            by_hand.model.layers[layer].self_attn.o_proj
            if name == "llama"
            else by_hand.transformer.h[layer].attn.out_proj
        )
        with torch.no_grad():
            projection.weight[:, head * 8 : (head + 1) * 8] *= factor
    assert torch.allclose(found, by_hand(TOKENS).logits, rtol=0, atol=1e-7)
    assert not torch.allclose(found, model(TOKENS).logits, rtol=0, atol=1e-3)


def test_contexts_nest():
    """Nested scalings multiply; closing the inner context undoes only the inner scaling."""
    model = build("llama")
    with scale_heads(model, {"L0H1": 0.5}):
        half = model(TOKENS).logits
        with scale_heads(model, {"L0H1": 0.5}):
            quarter = model(TOKENS).logits
        assert torch.equal(model(TOKENS).logits, half)
    with scale_heads(model, {"L0H1": 0.25}):
        assert torch.allclose(model(TOKENS).logits, quarter, rtol=0, atol=1e-12)


def test_two_models_have_hooks_in_two_threads():
    models = [build("llama"), build("qwen2")]
    expected = []
    for model in models:
        with scale_heads(model, {"L1H1": 0.0}):
            expected.append(model(TOKENS).logits)
    found = {}

    def work(index):
        for _ in range(20):
            with scale_heads(models[index], {"L1H1": 0.0}):
                found[index] = models[index](TOKENS).logits
            if not torch.equal(found[index], expected[index]):
                break

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[index], expected[index]) for index in range(2))
    assert "get_interface" not in ALL_ATTENTION_FUNCTIONS.__dict__


def test_attention_functions_of_another_tool_run_and_stay(monkeypatch):
    model, asked = build("llama"), []

    def get_interface(name, eager):
        asked.append(name)
        return type(ALL_ATTENTION_FUNCTIONS).get_interface(ALL_ATTENTION_FUNCTIONS, name, eager)

    monkeypatch.setattr(ALL_ATTENTION_FUNCTIONS, "get_interface", get_interface)
    with scale_heads(model, {"L1H1": 0.0}), scale_heads(model, {"L0H1": 0.0}):
        asked.clear()
        model(TOKENS)
    layers = model.config.num_hidden_layers
    assert asked == ["sdpa"] * layers
    assert ALL_ATTENTION_FUNCTIONS.get_interface is get_interface
    model(TOKENS)
    assert len(asked) == 2 * layers


@pytest.mark.parametrize(
    ("name", "message"),
    [("L9H0", "layers L0 to L2"), ("L0H4", "4 heads"), ("3.10", "L3H10")],
)
def test_a_head_that_is_not_there_is_refused(name, message):
    with pytest.raises(HeadnbError, match=message), scale_heads(build("llama"), {name: 0.0}):
        pass


@pytest.mark.parametrize(
    ("name", "kv_heads"),
    [
        ("llama", 2),
        ("gpt2", 4),
        ("deepseek_v3", 4),
        ("gpt_bigcode multi-query", 1),
        ("falcon parallel multi-query", 1),
        ("falcon grouped alibi", 2),
    ],
)
def test_layout_names_heads_and_key_value_heads(name, kv_heads):
    layout = find_heads(build(name, torch.float32))
    assert layout.heads == (4, 4, 4)
    assert layout.kv_heads == kv_heads


def test_layers_without_softmax_heads_are_reported_as_such():
    assert find_heads(hybrid_model()).heads == (0, 4, 0, 4)


def test_model_without_any_softmax_head_is_refused():
    config = AutoConfig.for_model("mamba", hidden_size=32, num_hidden_layers=2, vocab_size=64, state_size=4)
    with pytest.raises(HeadnbError, match="no softmax attention heads"):
        find_heads(AutoModelForCausalLM.from_config(config))


def test_checkpointing_enables_no_dropout():
    """A layer of OPT uses its training flag for dropout; transformers' checkpointing needs the same flag to be set."""
    model = build("opt")
    assert model.config.dropout > 0
    expected = model(TOKENS, use_cache=False).logits
    with checkpointed(model):
        assert torch.equal(model(TOKENS, use_cache=False).logits, expected)


def test_checkpointing_saves_less_for_the_backward_pass():
    model = tiny_model(layers=6)
    saved = []
    for memory in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: (s.append(x.numel()), x)[1], lambda x: x):
            if memory:
                with checkpointed(model):
                    model(TOKENS, use_cache=False)
            else:
                model(TOKENS, use_cache=False)
        saved.append(sum(sizes))
    assert saved[1] < 0.6 * saved[0]


def test_every_tested_architecture_is_hooked_by_one_of_the_two_methods():
    layouts = {name: find_heads(build(name, torch.float32)) for name in ARCHITECTURES}
    assert all(bool(layout.attention) != bool(layout.projections) for layout in layouts.values())
    own_code = {name for name, layout in layouts.items() if layout.projections}
    assert own_code | MOVED == {
        "bloom", "codegen", "falcon grouped alibi", "falcon parallel multi-query", "gpt_neo", "gptj", "mpt", "xglm",
    }  # fmt: skip


def test_a_class_that_moved_to_the_attention_functions_is_scaled_once(monkeypatch):
    model = build("llama", torch.float32)
    with scale_heads(model, {"L1H2": 0.5}):
        expected = model(TOKENS).logits
    monkeypatch.setattr(layout, "OWN_CODE", {"LlamaAttention"})  # as gptj moved in transformers 5.24
    with scale_heads(model, {"L1H2": 0.5}):
        assert torch.equal(model(TOKENS).logits, expected)
