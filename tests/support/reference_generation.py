"""Reference for greedy decoding: one prompt, token by token."""

from __future__ import annotations

import numpy as np
import torch


def reference_continuation(model, prompt, most, ends=()):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(most):
            ids.append(int(model(torch.tensor(np.array([ids])), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
    return ids[len(prompt) :]
