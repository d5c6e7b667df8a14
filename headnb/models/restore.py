"""Context managers that restore a model, its weights, and the state of random numbers."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig, PretrainedConfig

from headnb.models.quantization import keep_four_bit_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def restore_model(model: nn.Module, *, weights: bool = True) -> Iterator[None]:
    """Undo on exit every change to a model: wrapped layers, hooks, flags, patched methods, configurations.

    Biases and all other one-dimensional weights are copied, because adapters may train them in place and peft loads
    them in place. Other weights are not copied: only their tensor, device and dtype are restored. Callers that change
    their values in place must keep their own copy.

    Args:
        model: any model, also one that peft or accelerate will change.
        weights: False keeps the changed weights, for training.

    Raises:
        HeadnbError: as for `keep_four_bit_layout`.
    """
    objects: list[Any] = list(model.modules())
    objects += _configurations(objects)
    states = [{name: _snapshot(value) for name, value in vars(owner).items()} for owner in objects]
    parameters = [(weight, weight.data, weight.requires_grad, weight.grad) for weight in model.parameters()]
    biases = [(weight.data, weight.detach().clone()) for weight in model.parameters() if weights and weight.ndim <= 1]
    try:
        with keep_four_bit_layout(model):
            yield
    finally:
        for owner, state in zip(objects, states, strict=True):
            _restore(vars(owner), state)
        for weight, values, trainable, gradient in parameters:
            weight.grad = None  # its device or dtype may differ from the restored weight
            if weights:
                weight.data = values
                weight.grad = gradient
            weight.requires_grad_(trainable)
        for values, before in biases:
            values.copy_(before)


@contextmanager
def restore_weights(model: nn.Module) -> Iterator[None]:
    """Restore the values of all weights on exit, from copies in main memory."""
    before = [(weight, weight.detach().to("cpu", copy=True)) for weight in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, values in before:
                weight.copy_(values)


def _configurations(modules: list[Any]) -> list[Any]:
    """The configurations of modules, each once, with nested configurations."""
    kinds = (PretrainedConfig, GenerationConfig)
    configurations: dict[int, Any] = {}
    pending = list(modules)
    while pending:
        for value in vars(pending.pop()).values():
            if isinstance(value, kinds) and id(value) not in configurations:
                configurations[id(value)] = value
                pending.append(value)
    return list(configurations.values())


def _snapshot(value: Any) -> tuple[Any, Any]:
    """A value, and a copy of its content if it is a container."""
    return value, value.copy() if isinstance(value, (dict, list, set)) else None


def _restore(now: dict[str, Any], before: dict[str, tuple[Any, Any]]) -> None:
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, (value, content) in before.items():
        now[name] = value  # the same object, because hook handles refer to it
        if isinstance(value, list):
            value[:] = content
        elif content is not None:
            value.clear()
            value.update(content)


@contextmanager
def restore_random_state() -> Iterator[None]:
    """Restore the random state of torch, numpy and Python on exit."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  trainers use the global generator
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if mps is not None:
            torch.mps.set_rng_state(mps)
