"""Models, tokenizers and samples that do not fit are refused; left padding only where it changes scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from headnb import (
    HeadnbError,
    deletion_curve,
    evaluate,
    finetune,
    head_roles,
    sample_features,
    score_heads,
    score_tasks,
)
from headnb.analysis.representations import layer_grams
from headnb.engine.batching import SIDES, collate
from headnb.engine.tokenization import EncodedSample
from headnb.scoring.ablation import ablate, generate_both
from headnb.scoring.attention import head_attention
from headnb.scoring.gradient import activation, gradient_scorer
from transformers import AutoConfig, AutoModelForCausalLM

from architectures import LLAMA_LIKE, VOCABULARY, build, randomize
from tiny import tiny_model, tiny_tokenizer

RANDOM = np.random.default_rng(0)
SAMPLES = [
    EncodedSample(ids := RANDOM.integers(1, VOCABULARY, length), np.array([-100, -100, *ids[2:]]))
    for length in (9, 20, 14)
]
TASK = [{"input_ids": sample.input_ids, "labels": sample.labels} for sample in SAMPLES]
WRONG_WITH_LEFT_PADDING = {
    "bart": {  # counts positions from the start of the row
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
    },
    "recurrent_gemma": LLAMA_LIKE | {"lru_width": 32},  # carries a state through the padding
    "deepseek_v4": LLAMA_LIKE  # pools over windows of positions
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
    assert (padded[2:] - alone).abs().nan_to_num().max() > 0.3 * largest  # otherwise the refusal would be wrong
    with pytest.raises(HeadnbError, match="use padding_side='right'"):
        score_heads(score.model, None, TASK, padding_side="left")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral", "gpt2", "opt", "bloom", "mpt", "gemma3"])
def test_left_padding_is_allowed_where_scores_stay_right(name, dtype):
    """Scores agree up to rounding, which in half precision changes the choice of experts."""
    left, right = (score_heads(build(name, dtype), None, TASK, padding_side=side).score for side in ("left", "right"))
    rounding = 1e-5 if dtype == torch.float32 else 0.2
    assert np.linalg.norm(left - right) < rounding * np.linalg.norm(right)


def test_without_gradients_left_padding_is_checked_by_a_method_that_needs_none():
    without = SimpleNamespace(is_trainable=False, quantization_config=SimpleNamespace(quant_method="mxfp4"))
    wrong, right = scorer("bart", torch.float32).model, build("llama")
    wrong.hf_quantizer = right.hf_quantizer = without
    with pytest.raises(HeadnbError, match="use padding_side='right'"):
        score_heads(wrong, None, TASK, method="output-norm", padding_side="left")
    left, whole = (score_heads(right, None, TASK, method="output-norm", padding_side=side) for side in SIDES)
    np.testing.assert_allclose(left.score, whole.score, rtol=1e-5)


def test_samples_of_one_length_need_no_padding_on_any_side():
    model = scorer("bart", torch.float32).model
    left, right = (score_heads(model, None, TASK[:1] * 3, padding_side=side).score for side in ("left", "right"))
    assert left.shape == (3, 2, 4)  # bart's config counts encoder layers, which this model does not have
    assert np.allclose(left, right, rtol=1e-5)


CALLS = {
    "score_heads": score_heads,
    "score_tasks": lambda model, tokenizer, task: score_tasks(model, tokenizer, {"first": TASK, "second": task}),
    "ablate": lambda model, tokenizer, task: ablate(model, tokenizer, task, "L0H1"),
    "generate_both": lambda model, tokenizer, task: generate_both(model, tokenizer, task, "L0H1"),
    "head_attention": lambda model, tokenizer, task: head_attention(model, tokenizer, task, "L0H1"),
    "head_roles": lambda model, tokenizer, task: head_roles(model, tokenizer, task, length=8),
    "evaluate": evaluate,
    "finetune": lambda model, tokenizer, task: finetune(model, tokenizer, task, steps=1, track=[]),
    "deletion_curve": lambda model, tokenizer, task: deletion_curve(model, tokenizer, task, ks=[1]),
    "sample_features": sample_features,
    "layer_grams": layer_grams,
}


@pytest.mark.parametrize("call", CALLS)
def test_unfit_models_and_tokens_are_one_line_in_every_call(call):
    unknown = [{"input_ids": [1, 999, 5], "labels": [-100, -100, 5]}]
    with pytest.raises(HeadnbError, match="token id 999, but the model's vocabulary has 320 tokens"):
        CALLS[call](tiny_model(), tiny_tokenizer(), unknown)
    with pytest.raises(HeadnbError, match="the first argument is str, not a model"):
        CALLS[call]("smollm2-135m", tiny_tokenizer(), TASK)
    with pytest.raises(HeadnbError, match="the second argument is str, not a tokenizer"):
        CALLS[call](tiny_model(), "smollm2-135m", TASK)
