"""Tiny random models of many architectures, and their head scores from explicit attention matrices."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headnb.engine.tokenization import EncodedSample
    from torch import Tensor
    from transformers import PreTrainedModel

VOCABULARY = 64
# Code of their own until transformers 5.23, transformers' attention functions since 5.24.
MOVED = {"codegen", "gptj"} if Version(transformers.__version__) >= Version("5.24") else set()
LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
}
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
GPT_LIKE: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
MULTI_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "head_dim": 4,
}

# Name -> model type and configuration.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA_LIKE),
    "mistral": ("mistral", LLAMA_LIKE | {"sliding_window": 5}),
    "mixtral": ("mixtral", LLAMA_LIKE | EXPERTS),
    "qwen2": ("qwen2", LLAMA_LIKE),
    "qwen2_moe": (
        "qwen2_moe",
        LLAMA_LIKE | EXPERTS | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "qwen3": ("qwen3", LLAMA_LIKE),
    "qwen3_moe": ("qwen3_moe", LLAMA_LIKE | EXPERTS | {"moe_intermediate_size": 16}),
    "gemma": ("gemma", LLAMA_LIKE),
    "gemma2": ("gemma2", LLAMA_LIKE | {"sliding_window": 5, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", LLAMA_LIKE | {"sliding_window": 5, "sliding_window_pattern": 2}),
    "gpt_oss": ("gpt_oss", LLAMA_LIKE | EXPERTS | {"sliding_window": 5}),
    "deepseek_v3": ("deepseek_v3", LLAMA_LIKE | MULTI_LATENT),
    "phi": ("phi", LLAMA_LIKE),
    "phi3": ("phi3", LLAMA_LIKE | {"pad_token_id": 0}),
    "starcoder2": ("starcoder2", LLAMA_LIKE),
    "olmo": ("olmo", LLAMA_LIKE),
    "olmo2": ("olmo2", LLAMA_LIKE),
    "olmoe": ("olmoe", LLAMA_LIKE | EXPERTS),
    "granite": ("granite", LLAMA_LIKE | {"logits_scaling": 3.0, "attention_multiplier": 0.3}),
    "cohere": ("cohere", LLAMA_LIKE | {"logit_scale": 0.3}),
    "cohere2": ("cohere2", LLAMA_LIKE | {"sliding_window": 5}),
    "smollm3": ("smollm3", LLAMA_LIKE | {"pad_token_id": 0}),
    "glm4": ("glm4", LLAMA_LIKE | {"pad_token_id": 0}),
    "stablelm": ("stablelm", LLAMA_LIKE),
    "nemotron": ("nemotron", LLAMA_LIKE),
    "helium": ("helium", LLAMA_LIKE),
    "llama4": ("llama4_text", LLAMA_LIKE | EXPERTS | {"intermediate_size_mlp": 48, "pad_token_id": 0}),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
        },
    ),
    "gpt2": ("gpt2", GPT_LIKE),
    "gpt_bigcode multi-query": ("gpt_bigcode", GPT_LIKE | {"multi_query": True}),
    "gpt_neox": (
        "gpt_neox",
        {key: value for key, value in LLAMA_LIKE.items() if key not in {"head_dim", "num_key_value_heads"}},
    ),
    "gptj": ("gptj", GPT_LIKE | {"rotary_dim": 4}),
    "codegen": ("codegen", GPT_LIKE | {"rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 5,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
        },
    ),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4, "vocab_size": VOCABULARY}),
    "mpt": ("mpt", {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64, "vocab_size": VOCABULARY}),
    "falcon parallel multi-query": (
        "falcon",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": VOCABULARY,
            "new_decoder_architecture": False,
            "multi_query": True,
            "parallel_attn": True,
        },
    ),
    "falcon grouped alibi": (
        "falcon",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "vocab_size": VOCABULARY,
            "new_decoder_architecture": True,
            "alibi": True,
        },
    ),
    "modernbert-decoder": (
        "modernbert-decoder",
        LLAMA_LIKE | {"local_attention": 10} | dict.fromkeys(TOKENS, 0),
    ),
    "biogpt": (
        "biogpt",
        {key: value for key, value in LLAMA_LIKE.items() if key not in {"head_dim", "num_key_value_heads"}},
    ),
    "xglm": (
        "xglm",
        {
            "d_model": 32,
            "ffn_dim": 48,
            "num_layers": 3,
            "attention_heads": 4,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
        },
    ),
}


# Architectures whose code in transformers computes attention or router weights in float32 inside a float64 model.
FLOAT32_INSIDE = {
    "bloom", "codegen", "deepseek_v3", "gemma2", "gpt_neo", "gptj", "mpt", "olmoe", "qwen2_moe", "qwen3_moe",
}  # fmt: skip
FLOAT32_ONLY = {"xglm"}  # the code does not run in float64
EAGER_ONLY = {"falcon grouped alibi"}  # the logits of sdpa and eager attention in transformers differ


def tolerance(name: str) -> float:
    """The largest allowed difference, relative to the largest score."""
    return 1e-6 if name in FLOAT32_INSIDE | FLOAT32_ONLY else 1e-12


def build(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> PreTrainedModel:
    """A tiny random model."""
    kind, shape = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{"bos_token_id": None, "eos_token_id": None} | shape)
    if name in EAGER_ONLY:
        options = {"attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_config(config, **options).to(dtype).eval()
    if model.config._experts_implementation != "eager" and dtype == torch.float64:
        model.set_experts_implementation("eager")  # the grouped matrix product does not support float64
    return randomize(model)


@torch.no_grad()
def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Replace the small initial weights by larger ones, so that heads differ and losses depend on them."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "norm" not in name:
            weight.copy_(torch.randn(weight.shape, dtype=torch.float64) * 0.2)
    return model


def attention_matrix_scores(name: str, samples: list[EncodedSample], dtype: torch.dtype = torch.float64) -> Tensor:
    """The scores (B, L, H) by the definition of the method."""
    with wide_softmax():
        return eager_matrix_scores(build(name, dtype, attn_implementation="eager"), samples)


def eager_matrix_scores(model: PreTrainedModel, samples: list[EncodedSample]) -> Tensor:
    """sum_qk A * dL/dA (B, L, H) from the attention matrices of a model with eager attention, sample by sample."""
    scores = []
    for sample in samples:
        ids, labels = torch.tensor(sample.input_ids), torch.tensor(sample.labels)
        output = model(input_ids=ids[None], output_attentions=True, use_cache=False)
        loss = functional.cross_entropy(output.logits[0, :-1].to(model.dtype), labels[1:], ignore_index=-100)
        maps = [attention for attention in output.attentions if attention is not None]
        gradients = torch.autograd.grad(loss, maps)
        scores.append(torch.stack([(A * dA).sum((0, 2, 3)) for A, dA in zip(maps, gradients, strict=True)]))
    return torch.stack(scores).detach()


@contextmanager
def wide_softmax() -> Iterator[None]:
    """Let eager attention compute its softmax in float64 in a float64 model; transformers always uses float32."""
    narrow = functional.softmax

    def softmax(logits: Tensor, dim: int | None = None, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return narrow(logits, dim=dim, dtype=None if logits.dtype == torch.float64 else dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "softmax", softmax)
        yield


def hybrid_model() -> PreTrainedModel:
    """A model of four layers; layers 1 and 3 have 4 softmax heads, layers 0 and 2 linear attention without softmax."""
    config = AutoConfig.for_model(
        "qwen3_next",
        **LLAMA_LIKE | {"num_hidden_layers": 4, "num_experts": 0},
        layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model
