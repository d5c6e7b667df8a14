"""A head's layer number is the decoder layer that contains it, and interventions act in that layer."""

from __future__ import annotations

import copy

import headnb
import numpy as np
import pytest
import torch
from headnb.engine.batching import collate
from headnb.engine.hooks import find_heads, head_outputs
from headnb.engine.interventions import scale_heads
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.scoring.scorers import make_scorers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from architectures import ARCHITECTURES, LLAMA_LIKE, build, randomize
from moe_models import KINDS, WITHOUT_SOFTMAX, build_moe
from tiny import tiny_model

TOKENS = torch.arange(1, 11)[None]
MAMBA = {"mamba_d_state": 4, "mamba_d_conv": 4, "mamba_expand": 2, "pad_token_id": 0, "num_hidden_layers": 5}
HYBRIDS = {
    "zamba": MAMBA
    | {
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "n_mamba_heads": 2,
        "mamba_dt_rank": 4,
        "num_key_value_heads": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "mamba", "hybrid"],
    },
    "zamba2": MAMBA
    | {
        "mamba_ngroups": 1,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
        "num_mem_blocks": 2,
        "use_mem_rope": False,
        "use_shared_attention_adapter": False,
        "num_key_value_heads": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "mamba", "hybrid"],
    },
}


def hybrid(kind):
    shape = {key: value for key, value in LLAMA_LIKE.items() if key != "head_dim" or kind != "zamba"}
    config = AutoConfig.for_model(kind, **shape | HYBRIDS[kind], bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    return randomize(AutoModelForCausalLM.from_config(config).float().eval())


def decoder_lists(model):
    """Module lists with as many modules as the model has layers, found independently of headnb."""
    depth = getattr(model.config, "num_layers", None) or model.config.num_hidden_layers
    return [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]


def layers_that_run(model):
    """(layer number from headnb, decoder layer whose forward is running) for each layer with heads."""
    (layers,) = decoder_lists(model)
    running, found = [], []

    def transform(layer, outputs):
        found.append((layer, running[-1]))
        return outputs

    hooks = [layer.register_forward_pre_hook(lambda *_, at=at: running.append(at)) for at, layer in enumerate(layers)]
    with torch.no_grad(), head_outputs(model, transform):
        model(TOKENS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layer_is_the_decoder_layer_that_runs(name):
    pairs = layers_that_run(build(name, torch.float32))
    assert pairs
    assert all(number == running for number, running in pairs)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITHOUT_SOFTMAX - {"longcat_flash"}))
def test_layer_is_the_decoder_layer_that_runs_in_mixtures(kind):
    assert all(number == running for number, running in layers_that_run(build_moe(kind)))


@pytest.mark.parametrize("kind", HYBRIDS)
def test_layers_of_zamba_are_those_of_its_hybrid_blocks(kind):
    model = hybrid(kind)
    assert layers_that_run(model) == [(1, 1), (4, 4)]
    heads = find_heads(model).heads
    assert [layer for layer, count in enumerate(heads) if count] == [1, 4]
    assert len(heads) == 5


@pytest.mark.parametrize("kind", HYBRIDS)
def test_ablation_in_zamba_is_that_of_the_output_projection(kind):
    """Compared with setting the head's columns of the output projection to zero."""
    model = hybrid(kind)
    rows = [{"input_ids": list(range(5, 17)), "labels": [-100] * 6 + list(range(11, 17))}]
    attention = model.model.layers[4].shared_transformer if kind == "zamba2" else model.model.layers[4].shared_transf
    by_hand = copy.deepcopy(model)
    width = attention.self_attn.o_proj.in_features // 4
    twin = by_hand.model.layers[4].shared_transformer if kind == "zamba2" else by_hand.model.layers[4].shared_transf
    twin.self_attn.o_proj.weight = nn.Parameter(attention.self_attn.o_proj.weight.detach().clone())
    with torch.no_grad():
        twin.self_attn.o_proj.weight[:, 2 * width : 3 * width] = 0
    expected = headnb.evaluate(by_hand, None, rows)["mean_loss"] - headnb.evaluate(model, None, rows)["mean_loss"]
    assert abs(float(expected)) > 1e-4
    assert float(headnb.ablate(model, None, rows, "L4H2")["mean_change"]) == pytest.approx(float(expected), rel=1e-3)
    scores = headnb.score_heads(model, None, rows, method="ablate-zero").score
    assert float(scores.sel(layer=4, head=2)[0]) == pytest.approx(float(expected), rel=1e-3)
    assert np.isnan(scores.sel(layer=[0, 2, 3])).all()
    assert headnb.head_attention(model, None, rows, "L4H2").weights.shape == (12, 12)


def test_two_attention_modules_in_a_layer_keep_their_own_numbers():
    model = build_moe("longcat_flash")
    layout = find_heads(model)
    assert [layer for layer, _ in layout.attention] == list(range(2 * len(decoder_lists(model)[0])))


def renumber(model, numbers):
    for layer, number in zip(model.model.layers, numbers, strict=True):
        layer.self_attn.layer_idx = number


@pytest.mark.parametrize("numbers", [[-1, -1, -1], [None, None, None], [0, 0, 1], [2, 1, 0], [4, 5, 9]])
def test_layer_idx_of_the_modules_is_not_used(numbers):
    model = tiny_model(layers=3)
    rows = [{"input_ids": list(range(5, 17)), "labels": [-100] * 6 + list(range(11, 17))}]
    expected = headnb.score_heads(model, None, rows).score
    renumber(model, numbers)
    assert layers_that_run(model) == [(0, 0), (1, 1), (2, 2)]
    np.testing.assert_array_equal(headnb.score_heads(model, None, rows).score, expected)


def test_layers_are_renumbered_after_the_user_removed_one():
    model = tiny_model(layers=4)
    del model.model.layers[1]
    model.config.num_hidden_layers = 3
    assert layers_that_run(model) == [(0, 0), (1, 1), (2, 2)]


class TwoInOne(nn.Module):
    """A decoder layer with two attention modules."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, hidden, **kwargs):
        return self.second(self.first(hidden, **kwargs), **kwargs)


def test_attention_modules_without_a_layer_of_their_own_are_refused():
    model = tiny_model(layers=4)
    renumber(model, [0, 0, 1, 1])
    first, second, third, fourth = model.model.layers
    model.model.layers = nn.ModuleList([TwoInOne(first, second), TwoInOne(third, fourth)])
    model.config.num_hidden_layers = 2
    with pytest.raises(HeadnbError, match="several share a decoder layer"):
        find_heads(model)


@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_a_layer_that_runs_twice_is_refused(name):
    model = build(name, torch.float32)
    (layers,) = decoder_lists(model)
    layers[2] = layers[1]
    with pytest.raises(HeadnbError, match="more than once in a forward pass"):
        find_heads(model)


def skip(layer):
    """Make a layer return its input."""
    layer.forward = lambda hidden, *_, **__: hidden


@pytest.mark.parametrize("method", ["activation", "output-norm", "value-norm", "ablate-zero", "ablate-mean", "attattr"])
def test_scores_of_heads_that_do_not_run_are_refused(method):
    """The layer runs while headnb finds the heads, but not while the model is scored."""
    model = tiny_model(layers=3)
    rows = [{"input_ids": list(range(5, 17)), "labels": [-100] * 6 + list(range(11, 17))}]
    scorer = make_scorers(model, {method: {"steps": 2} if method == "attattr" else {}}).by_method[method]
    skip(model.model.layers[1])
    batch = collate(encode_task(headnb.load_task(rows), None).samples)
    with pytest.raises(HeadnbError, match="did not run the attention of"):
        scorer.prepare(batch) if method == "ablate-mean" else scorer(batch)


def test_scaling_heads_that_do_not_run_is_an_error_and_a_factor_of_one_is_none():
    model = tiny_model(layers=3)
    with scale_heads(model, {"L1H2": 1.0}):
        same = model(TOKENS).logits
    assert torch.equal(same, model(TOKENS).logits)
    context = scale_heads(model, {"L1H2": 0.0})
    context.__enter__()
    skip(model.model.layers[1])
    model(TOKENS)
    with pytest.raises(HeadnbError, match="did not run the attention of layer 1"):
        context.__exit__(None, None, None)
    with scale_heads(tiny_model(layers=3), {"L1H2": 0.0}):
        pass  # no pass at all


def test_a_dead_head_has_a_change_of_zero():
    model = tiny_model(layers=3)
    rows = [{"input_ids": list(range(5, 17)), "labels": [-100] * 6 + list(range(11, 17))}]
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[:, 16:24] = 0
    assert float(headnb.ablate(model, None, rows, "L1H2")["mean_change"]) == 0
    assert float(headnb.ablate(model, None, rows, "L1H1", factor=1.0)["mean_change"]) == 0
