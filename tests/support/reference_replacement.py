"""Reference for head replacement: mean head outputs, and losses with replaced heads, by hooks on the projections."""

from __future__ import annotations

import torch
from torch.nn import functional


def projections_of(model):
    return [layer.self_attn.o_proj for layer in model.model.layers]


def reference_means(model, samples):
    """Mean input of each layer's output projection, (L, H * D), one sample at a time."""
    inputs = [[] for _ in projections_of(model)]
    hooks = [
        projection.register_forward_pre_hook(lambda _, args, recorded=recorded: recorded.append(args[0][0].detach()))
        for projection, recorded in zip(projections_of(model), inputs, strict=True)
    ]
    for sample in samples:
        model(torch.tensor(sample.input_ids)[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return [torch.cat(recorded).mean(0) for recorded in inputs]


def reference_loss(model, sample, values):
    """Loss with `values`, layer -> {head -> (D,)}, in place of these heads' outputs in the projection's input."""
    size = model.config.head_dim

    def replacement(layer):
        def hook(_, args):
            changed = args[0].clone()
            for head, value in values.get(layer, {}).items():
                changed[..., head * size : (head + 1) * size] = value
            return (changed,)

        return hook

    hooks = [p.register_forward_pre_hook(replacement(layer)) for layer, p in enumerate(projections_of(model))]
    logits = model(torch.tensor(sample.input_ids)[None], use_cache=False).logits[0, :-1]
    for hook in hooks:
        hook.remove()
    return functional.cross_entropy(logits, torch.tensor(sample.labels)[1:], ignore_index=-100).item()
