"""What is asked of a model before it is scored."""

from __future__ import annotations

import shutil

import accelerate
import numpy as np
import pytest
import torch
from headnb import HeadnbError, score_heads
from headnb.encoding import EncodedSample, collate
from headnb.models import check_weights, load_model, weights_fingerprint
from headnb.scoring.gradient import activation, gradient_scorer
from transformers import AutoConfig, AutoModelForCausalLM

from architectures import LLAMA_LIKE, VOCABULARY, build, randomize
from tiny import tiny_model

RANDOM = np.random.default_rng(0)
SAMPLES = [
    EncodedSample(ids := RANDOM.integers(1, VOCABULARY, length), np.array([-100, -100, *ids[2:]]))
    for length in (9, 20, 14)
]
TASK = [{"input_ids": sample.input_ids, "labels": sample.labels} for sample in SAMPLES]
WRONG_WITH_LEFT_PADDING = {
    "bart": {  # counts positions from the first place
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
    },
    "recurrent_gemma": LLAMA_LIKE | {"lru_width": 32},  # carries a state through the padding
    "deepseek_v4": LLAMA_LIKE  # pools over windows of places
    | {
        "num_key_value_heads": 1,
        "q_lora_rank": 16,
        "o_groups": 2,
        "o_lora_rank": 8,
        "index_n_heads": 2,
        "index_head_dim": 8,
        "index_topk": 2,
        "qk_rope_head_dim": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "num_hash_layers": 1,
        "hc_mult": 2,
        "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
    },
}


def scorer(kind, dtype):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **WRONG_WITH_LEFT_PADDING[kind])
    return gradient_scorer(randomize(AutoModelForCausalLM.from_config(config).to(dtype).eval()), activation)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", WRONG_WITH_LEFT_PADDING)
def test_left_padding_is_refused_where_it_makes_scores_wrong(kind, dtype):
    score = scorer(kind, dtype)
    alone, _ = score(collate(SAMPLES[2:]))
    padded, _ = score(collate(SAMPLES, side="left"))
    largest = alone.abs().nan_to_num().max()
    assert (padded[2:] - alone).abs().nan_to_num().max() > 0.3 * largest  # else there would be nothing to refuse
    with pytest.raises(HeadnbError, match="use padding_side='right'"):
        score_heads(score.model, None, TASK, padding_side="left")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral", "gpt2", "opt", "bloom", "mpt", "gemma3"])
def test_left_padding_is_allowed_where_scores_stay_right(name, dtype):
    """Up to rounding, which in half precision changes what experts are asked."""
    left, right = (score_heads(build(name, dtype), None, TASK, padding_side=side).score for side in ("left", "right"))
    rounding = 1e-5 if dtype == torch.float32 else 0.2
    assert np.linalg.norm(left - right) < rounding * np.linalg.norm(right)


def test_samples_of_one_length_need_no_padding_on_any_side():
    model = scorer("bart", torch.float32).model
    left, right = (score_heads(model, None, TASK[:1] * 3, padding_side=side).score for side in ("left", "right"))
    assert left.shape == (3, 2, 4)  # bart's config counts the layers of the encoder that is not there
    assert np.allclose(left, right, rtol=1e-5)


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
    for value, its in ((1.0, -1.0), (1.0, 2.0), (0.1, 0.3)):  # one bit apart, a few, many
        weight[5], weight[5 + other] = value, its
        first = weights_fingerprint(layer)
        weight[5], weight[5 + other] = its, value
        assert weights_fingerprint(layer) != first
        weight[5], weight[5 + other] = value, its
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
