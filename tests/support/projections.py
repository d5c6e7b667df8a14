"""Output projections of attention modules."""

from __future__ import annotations

PROJECTION = {
    "llama": "self_attn.o_proj",
    "gemma2": "self_attn.o_proj",
    "gpt2": "attn.c_proj",
    "bloom": "self_attention.dense",
    "gptj": "attn.out_proj",
}


def output_projections(model, name):
    """The output projection of each layer; its input is the concatenated head outputs."""
    base = model.model.layers if hasattr(model, "model") else model.transformer.h
    return [layer.get_submodule(PROJECTION[name]) for layer in base]
