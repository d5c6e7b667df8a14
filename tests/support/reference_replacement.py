"""Losses with replaced heads, by direct hooks."""

from __future__ import annotations

import torch
from torch.nn import functional


def projections_of(model):
    return [layer.self_attn.o_proj for layer in model.model.layers]


def reference_means(model, samples):
    """(L, H * D): one sample at a time, what the output projections are given."""
    given = [[] for _ in projections_of(model)]
    hooks = [
        projection.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0][0].detach()))
        for projection, kept in zip(projections_of(model), given, strict=True)
    ]
    for sample in samples:
        model(torch.tensor(sample.input_ids)[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return [torch.cat(kept).mean(0) for kept in given]


def reference_loss(model, sample, values):
    """values: layer -> {head -> (D,)}, put in place of what the output projection is given."""
    size = model.config.head_dim

    def put(layer):
        def hook(_, args):
            changed = args[0].clone()
            for head, value in values.get(layer, {}).items():
                changed[..., head * size : (head + 1) * size] = value
            return (changed,)

        return hook

    hooks = [p.register_forward_pre_hook(put(layer)) for layer, p in enumerate(projections_of(model))]
    logits = model(torch.tensor(sample.input_ids)[None], use_cache=False).logits[0, :-1]
    for hook in hooks:
        hook.remove()
    return functional.cross_entropy(logits, torch.tensor(sample.labels)[1:], ignore_index=-100).item()
