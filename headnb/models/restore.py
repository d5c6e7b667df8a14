"""Put things back: everything about a model that training machinery changes, and the state of random numbers."""

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
    """Undo on exit what is done to a model inside: wrapped layers, hooks, flags, patched methods, configurations.

    Biases, and all else that has one dimension, are copied: adapters may train them in place, and peft loads them so.
    Other weights are not. They are put back where they were, on their device and in their dtype; whoever changes their
    numbers in place keeps a copy himself.

    Args:
        model: any model, also one that peft or accelerate will change.
        weights: False leaves the weights as they are then, for training that means to change them.

    Raises:
        HeadnbError: as for `keep_four_bit_layout`.
    """
    objects: list[Any] = list(model.modules())
    objects += _configurations(objects)
    states = [{name: _snapshot(value) for name, value in vars(each).items()} for each in objects]
    parameters = [(weight, weight.data, weight.requires_grad, weight.grad) for weight in model.parameters()]
    biases = [(weight.data, weight.detach().clone()) for weight in model.parameters() if weights and weight.ndim <= 1]
    try:
        with keep_four_bit_layout(model):
            yield
    finally:
        for each, state in zip(objects, states, strict=True):
            _restore(vars(each), state)
        for weight, values, trainable, gradient in parameters:
            weight.grad = None  # of another device or dtype, perhaps
            if weights:
                weight.data = values
                weight.grad = gradient
            weight.requires_grad_(trainable)
        for values, before in biases:
            values.copy_(before)


@contextmanager
def restore_weights(model: nn.Module) -> Iterator[None]:
    """The numbers of all weights are on exit what they were; copies of them are held in main memory."""
    before = [(weight, weight.detach().to("cpu", copy=True)) for weight in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, values in before:
                weight.copy_(values)


def _configurations(modules: list[Any]) -> list[Any]:
    """The configurations that modules hold, each once, with those inside them."""
    kinds = (PretrainedConfig, GenerationConfig)
    found: dict[int, Any] = {}
    waiting = list(modules)
    while waiting:
        for value in vars(waiting.pop()).values():
            if isinstance(value, kinds) and id(value) not in found:
                found[id(value)] = value
                waiting.append(value)
    return list(found.values())


def _snapshot(value: Any) -> tuple[Any, Any]:
    """A value, and what it contains now if it is a container."""
    return value, value.copy() if isinstance(value, (dict, list, set)) else None


def _restore(now: dict[str, Any], before: dict[str, tuple[Any, Any]]) -> None:
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, (value, content) in before.items():
        now[name] = value  # the very same object: handles of hooks refer to it
        if isinstance(value, list):
            value[:] = content
        elif content is not None:
            value.clear()
            value.update(content)


@contextmanager
def restore_random_state() -> Iterator[None]:
    """Random numbers of torch, numpy and Python go on after the context as if it had drawn none."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  trainers use the global one
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
