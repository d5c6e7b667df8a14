"""Reference loss of a text sample, computed directly from the logits."""

from __future__ import annotations

import torch
from torch.nn import functional

from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


TEXT = [
    ("Question: What is 12 + 30?\nAnswer: ", "The answer is 42."),
    ("How many apples? ", "There are 3."),
    ("def square(n):\n", "    return n * n"),
    ("The answer is ", "42"),
]


def reference_loss(model, prompt, completion):
    first = TOKENIZER(prompt, add_special_tokens=False)["input_ids"]
    answer = [*TOKENIZER(completion, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]
    ids = torch.tensor([first + answer])
    logits = model(ids, use_cache=False).logits[0, len(first) - 1 : -1]
    return functional.cross_entropy(logits, torch.tensor(answer)).item()
