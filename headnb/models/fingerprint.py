"""Short hash of a model's weights, stored in every result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

# Config entries about origin, execution and text generation, which do not affect scores. Trainers change some of them.
_IRRELEVANT_ENTRIES = re.compile(
    r"^(_name_or_path|architectures|torch_dtype|dtype|transformers_version|use_cache|return_dict|output_(attentions|hidden_states|router_logits)"
    r"|(pad|bos|eos)_token_id|_?\w*(attn|experts)_implementation\w*)$"
)

_unchanged: WeakKeyDictionary[torch.nn.Module, str | None] = WeakKeyDictionary()


def weights_fingerprint(model: torch.nn.Module) -> str:
    """32 hex digits that depend on every weight, on the adapters, and on the config entries that affect scores.
    The hash is the same on every device. Each tensor enters with the row sums and column sums of its bits, as wrapping
    integers, whose sum does not depend on the order. A changed weight changes both sums; two exchanged weights change
    at least one of them. Weights that accelerate offloaded to disk or memory are read from there.

    Raises:
        HeadnbError: a weight is on the meta device and accelerate does not hold it.
    """
    if model not in _unchanged:
        return _fingerprint(model)
    if _unchanged[model] is None:
        _unchanged[model] = _fingerprint(model)
    return cast("str", _unchanged[model])


@contextlib.contextmanager
def unchanged_weights(model: torch.nn.Module) -> Iterator[None]:
    """Inside, nothing changes the model's weights: their fingerprint is computed at most once."""
    if model in _unchanged:
        yield
        return
    _unchanged[model] = None
    try:
        yield
    finally:
        del _unchanged[model]


def _fingerprint(model: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in _weights(model):
        digest.update(f"{name.removeprefix('_orig_mod.')} {tuple(weight.shape)} {weight.dtype}".encode())
        if weight.is_meta:
            raise HeadnbError(f"the model's weight {name} is on the meta device, and no offload folder contains it")
        if weight.numel():
            for sums in _bit_sums(weight.detach()):
                digest.update(sums.cpu().numpy().tobytes())
    layers: list[Any] = [
        module for module in model.modules() if isinstance(getattr(module, "disable_adapters", None), bool)
    ]
    adapters = {
        (tuple(layer.active_adapters), bool(layer.disable_adapters), repr(getattr(layer, "scaling", None)))
        for layer in layers
    }
    digest.update(f"{sorted(adapters)} {_computation(getattr(model, 'config', None))}".encode())
    return digest.hexdigest()


def _weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and weights in the order of the names; offloaded weights are read through accelerate's hooks."""
    offloaded: dict[str, tuple[Any, str]] = {}
    for prefix, module in model.named_modules():
        hook: Any = getattr(module, "_hf_hook", None)
        for part in getattr(hook, "hooks", (hook,)):
            if getattr(part, "weights_map", None) is not None:
                tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
                offloaded.update(
                    {f"{prefix}.{name}" if prefix else name: (part.weights_map, name) for name, _ in tensors}
                )
    for name, weight in sorted(model.state_dict().items()):
        if weight.is_meta and name in offloaded:
            weights, key = offloaded[name]
            with contextlib.suppress(KeyError, OSError):
                yield name, weights[key]
                continue
        yield name, weight


def _bit_sums(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums along both axes of the weight's bits, as a matrix of integers of eight bytes each if the size allows."""
    import torch  # noqa: PLC0415

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = weight.contiguous().view(-1)
    flat = flat.clone() if flat.storage_offset() else flat  # 8-byte integers must be aligned
    bits = flat.view(whole[flat.element_size() if flat.nbytes % 8 else 8])
    matrix = bits.view(-1, math.gcd(bits.numel(), 4096))
    return matrix.sum(0), matrix.sum(1)


def _computation(config: Any) -> str:
    """The config as JSON, without the entries that do not affect scores."""
    if not hasattr(config, "to_diff_dict"):
        return ""
    return json.dumps(_relevant_entries(config.to_diff_dict()), sort_keys=True, default=str)


def _relevant_entries(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            str(key): _relevant_entries(entry)
            for key, entry in value.items()
            if not _IRRELEVANT_ENTRIES.search(str(key))
        }
    return value
