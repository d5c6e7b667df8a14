"""Random llamas of a given shape, and random samples for them, which need no download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from headnb.engine.tokenization import EncodedSample
from headnb.tasks.row_values import IGNORED
from transformers import LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 320,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}


def random_llama(
    shape: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu", **changes: Any
) -> PreTrainedModel:
    """A llama in eval mode, created directly on its device and in its dtype, which saves memory for 8B weights."""
    config = LlamaConfig(**SHAPES[shape] | {"max_position_embeddings": 16384} | changes)
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)


def random_samples(count: int, tokens: int, vocabulary: int) -> tuple[EncodedSample, ...]:
    """`count` samples of `tokens` tokens each, whose second half is the answer."""
    ids = np.random.default_rng(0).integers(3, vocabulary, (count, tokens))
    labels = np.where(np.arange(tokens) < tokens // 2, IGNORED, ids)
    return tuple(EncodedSample(*sample) for sample in zip(ids, labels, strict=True))


def as_rows(samples: tuple[EncodedSample, ...]) -> list[dict[str, list[int]]]:
    """Samples in the form that `score_heads` accepts."""
    return [{"input_ids": sample.input_ids.tolist(), "labels": sample.labels.tolist()} for sample in samples]
