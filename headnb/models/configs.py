"""Checks of a model's config.json against limits and against its files, before the model is built.

A few digits in a config can describe a model of any size. Building it creates Python objects for every layer and
allocates all weights before it notices that they are missing from the files.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.models.checks import check_causal
from headnb.models.memory import check_memory
from headnb.models.registry import loading_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_LAYERS = 1024
MOST_EXPERTS = 2**17  # in all layers
_LAYERS = re.compile(r"(layers?|blocks?|block_count|depth)$")
_EXPERTS = re.compile(r"(experts|expert_count)$")
_WEIGHTS_PER_BYTE = 8  # in the densest quantization


def read_config(source: str, where: dict[str, Any], *, online: bool = True) -> Any:
    """The config of a causal model, in a folder or on the hub.

    Raises:
        HeadnbError: it cannot be read, is not of a causal model, or describes more layers or experts than any model
            has.
    """
    from transformers import AutoConfig, PretrainedConfig  # noqa: PLC0415

    try:
        settings, _ = PretrainedConfig.get_config_dict(source, **where)
        check_counts(source, settings)
        config = AutoConfig.from_pretrained(source, **where)
    except HeadnbError:
        raise
    except Exception as error:
        raise loading_error(source, error, online=online) from error
    check_causal(source, config)
    return config


def check_counts(source: str, settings: Any) -> None:
    """Raise HeadnbError if a config describes more layers or experts than any model has."""
    entries = list(_numbers(settings))
    layers = max((number for name, number in entries if _LAYERS.search(name)), default=0)
    experts = max((number for name, number in entries if _EXPERTS.search(name)), default=0)
    if layers > MOST_LAYERS:
        raise HeadnbError(f"{source} declares {layers:.3g} layers; headnb reads models of up to {MOST_LAYERS} layers")
    if layers * experts > MOST_EXPERTS:
        raise HeadnbError(
            f"{source} declares {experts:.3g} experts in {layers} layers; headnb reads models of up to {MOST_EXPERTS} "
            "experts in total"
        )


def _numbers(value: Any) -> Iterator[tuple[str, float]]:
    """Name and value of each number in a config, at every level."""
    if isinstance(value, dict):
        for name, entry in value.items():
            if isinstance(entry, (int, float)) and not isinstance(entry, bool):
                yield str(name), entry
            else:
                yield from _numbers(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _numbers(entry)


def check_described_size(source: str, config: Any, folder: Path | None) -> None:
    """Compare the size of the model that a config describes with its files, without allocating the weights.

    Raises:
        HeadnbError: the files are far too small, or the config does not describe a model.
    """
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    if folder is None:
        return
    try:
        with torch.device("meta"):
            make: Any = AutoModelForCausalLM.from_config  # untyped in transformers
            described = make(copy.deepcopy(config), trust_remote_code=False)
    except Exception as error:
        raise loading_error(source, error, online=True) from error
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    weights = sum(weight.numel() for weight in described.parameters())
    weights_per_byte = _WEIGHTS_PER_BYTE if getattr(config, "quantization_config", None) else 1
    if weights > weights_per_byte * stored:
        raise HeadnbError(
            f"cannot load {source}: its config.json describes {weights:.3g} weights, but its files have only "
            f"{stored:.3g} bytes"
        )
    check_memory(
        sum(buffer.nbytes for buffer in described.buffers()),
        f"the buffers of {source}",
        "their size comes from its config.json",
    )
