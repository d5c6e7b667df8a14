"""Tiny models with adapters."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model

from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


PAIRS = [("2 + 3 = ", "5"), ("The sky is", " blue"), ("One, two,", " three")]


def with_adapter(model, step, **config):
    adapter = LoraConfig(r=3, target_modules=["q_proj", "o_proj", "up_proj"], task_type="CAUSAL_LM", **config)
    torch.manual_seed(0)
    model = get_peft_model(model, adapter)
    torch.manual_seed(step)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.01 * step)
    return model
