"""Tiny models of text and images."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from architectures import EXPERTS, LLAMA_LIKE, VOCABULARY, randomize

EYES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
LLAMA4_EYES = {"projector_input_dim": 32, "projector_output_dim": 32, "vision_output_dim": 32}
QWEN_EYES = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
ROTARY = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
# Options of the text configuration, and the other configurations.
COMPOSITES = {
    "gemma3": (LLAMA_LIKE | {"sliding_window": 5, "sliding_window_pattern": 2}, {"vision_config": EYES}),
    "gemma4": (
        LLAMA_LIKE | {"sliding_window": 5, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8},
        {"vision_config": None, "audio_config": None},
    ),
    "llava": (LLAMA_LIKE | {"model_type": "llama"}, {"vision_config": EYES | {"model_type": "clip_vision_model"}}),
    "mistral3": (LLAMA_LIKE | {"model_type": "mistral"}, {"vision_config": EYES | {"model_type": "pixtral"}}),
    "smolvlm": (LLAMA_LIKE | {"model_type": "llama"}, {"vision_config": EYES}),
    "llama4": (
        LLAMA_LIKE | EXPERTS | {"intermediate_size_mlp": 48, "pad_token_id": 0},
        {"vision_config": EYES | LLAMA4_EYES},
    ),
    "qwen2_5_vl": (LLAMA_LIKE | {"rope_parameters": ROTARY}, {"vision_config": QWEN_EYES}),
    "qwen3_vl": (
        LLAMA_LIKE | {"rope_parameters": ROTARY},
        {"vision_config": QWEN_EYES | {"deepstack_visual_indexes": [0]}},
    ),
}


def composite(kind, **options):
    text, others = COMPOSITES[kind]
    tokens = {"bos_token_id": None, "eos_token_id": None}
    config = AutoConfig.for_model(kind, text_config=text | tokens, **others, **tokens)
    torch.manual_seed(0)
    return randomize(AutoModelForImageTextToText.from_config(config, **options).eval())
