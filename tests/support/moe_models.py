"""Tiny mixtures of experts of each kind that transformers can build small, and bidirectional attention for them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import transformers
from headnb.engine.attention_functions import replace_attention
from headnb.engine.hooks import find_heads
from packaging.version import Version
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from architectures import EXPERTS, LLAMA_LIKE, MULTI_LATENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

_COMMON: dict[str, Any] = (
    LLAMA_LIKE
    | EXPERTS
    | {
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "intermediate_size_mlp": 48,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "moe_num_experts": 4,
        "moe_k": 2,
        "pad_token_id": 0,
        "num_shared_experts": 1,
        "n_shared_experts": 1,
    }
)
_LATENT = {
    "axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "hy_v4", "longcat_flash",
}  # fmt: skip
_KINDS = (
    _LATENT
    | {
        "afmoe", "aria_text", "bailing_hybrid", "beam", "cohere2_moe", "deepseek_v4", "doge", "dots1", "ernie4_5_moe",
        "exaone_moe", "flex_olmo", "flint", "glm4_moe", "gpt_oss", "granitemoe", "granitemoe_swa", "granitemoeshared",
        "hunyuan_v1_moe", "hy_v3", "inkling_text", "inkling2_text", "jamba", "jetmoe", "kolibri1", "laguna",
        "llama4_text", "mellum", "mimo_v2_flash", "minimax", "minimax_m2", "minimax_m3_vl_text", "mixtral",
        "nemotron_h", "olmoe", "phimoe", "qwen2_moe", "qwen3_5_moe_text", "qwen3_moe", "qwen3_next", "qwen4_exp_text",
        "solar_open",
    }
)  # fmt: skip
# A release knows only some; in transformers 5.24 Inkling 2 has several attention modules in a layer and is refused.
KINDS = sorted(
    kind
    for kind in _KINDS
    if kind in CONFIG_MAPPING and (kind != "inkling2_text" or Version(transformers.__version__) < Version("5.24"))
)
WITHOUT_SOFTMAX = {"bailing_hybrid", "jamba", "qwen3_5_moe_text", "qwen3_next", "qwen4_exp_text"}  # at this depth
FLOAT32_ONLY = {"inkling2_text"}


def build_moe(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model with the initial weights of its class."""
    config = AutoConfig.for_model(
        kind, **_COMMON | (MULTI_LATENT if kind in _LATENT else {}), bos_token_id=None, eos_token_id=None
    )
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    if dtype == torch.float64:
        model.set_experts_implementation("eager")  # the grouped matrix product does not support float64
    return model


@contextmanager
def seeing_later_tokens(model: PreTrainedModel) -> Iterator[None]:
    """Make attention bidirectional while the context is open: no mask, and no causal kernel."""

    def attend(function: Any, module: Any, query: Any, key: Any, value: Any, *_: Any, **options: Any) -> Any:
        options.pop("attention_mask", None)
        return function(module, query, key, value, None, **options | {"is_causal": False})

    with replace_attention(model, find_heads(model), attend):
        yield
