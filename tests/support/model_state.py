"""State of a model, to compare before and after a call."""

from __future__ import annotations

from headnb.engine import attention_functions
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def state(model):
    """Everything of a model that hooks could leave changed."""
    return {
        "training": [module.training for module in model.modules()],
        "attributes": [{key: id(value) for key, value in module.__dict__.items()} for module in model.modules()],
        "hooks": [
            (len(module._forward_pre_hooks), len(module._forward_hooks), len(module._backward_hooks))
            for module in model.modules()
        ],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "implementations": {
            id(module.config): module.config._attn_implementation
            for module in model.modules()
            if hasattr(module, "config")
        },
        "interface": dict(ALL_ATTENTION_FUNCTIONS.__dict__),
        "transforms": len(attention_functions._transforms),
    }
