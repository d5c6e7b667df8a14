"""Checks of a model and of model folders: name, sound weights, gradients, causal decoder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.hub import check_files_of
from headnb.models.provenance import origin

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel


def model_name(model: Any) -> str:
    """The name of a model in results: the id it was loaded by (the last part of a folder), and its adapter, if any."""
    model = getattr(model, "_orig_mod", model)
    config = getattr(model, "config", None)
    name = origin(model).name or getattr(model, "name_or_path", "") or getattr(config, "_name_or_path", "")
    name = name or type(model).__name__
    name = Path(name).name if Path(name).is_dir() else str(name)
    name = name.encode(errors="replace").decode()  # a folder's name may contain invalid UTF-8
    adapter = getattr(model, "headnb_adapter", "")
    return f"{name} + {adapter}" if adapter else name


def check_weights(model: torch.nn.Module) -> None:
    """Check all weights for NaN and infinity, in one pass.

    Raises:
        HeadnbError: NaN or infinite weights; the first three are named, with their layer.
    """
    import torch  # noqa: PLC0415

    bad = []
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        # The sum needs no copy and is not finite if any weight is not. It may also overflow, so then check each weight.
        if not torch.isfinite(weight.detach().sum(dtype=torch.float32)) and not weight.isfinite().all():
            layer = re.search(r"\.(\d+)\.", name)
            bad.append(f"{name} (layer {layer[1]})" if layer else name)
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise HeadnbError(f"the model has NaN or infinite weights: {', '.join(bad[:3])}{more}")


def passes_gradients(model: Any) -> bool:
    """Whether gradients pass through the weights: transformers says that some quantizations are not trainable."""
    quantizer = getattr(model, "hf_quantizer", None)
    return quantizer is None or bool(quantizer.is_trainable)


def check_gradients(model: Any) -> None:
    """Refuse quantized weights that gradients cannot pass through.

    Raises:
        HeadnbError: the quantization is not trainable.
    """
    if not passes_gradients(model):
        kind = getattr(model.hf_quantizer.quantization_config, "quant_method", "unknown")
        raise HeadnbError(
            f"gradients cannot pass through weights quantized as {getattr(kind, 'value', kind)}; load the model "
            "dequantized, or use a method without gradients"
        )


def check_no_inference_weights(model: torch.nn.Module) -> None:
    """Refuse weights made in inference mode: autograd rejects them even for gradients of activations.

    Raises:
        HeadnbError: the weights were made inside `torch.inference_mode()`.
    """
    if any(weight.is_inference() for weight in model.parameters()):
        raise HeadnbError(
            "the model was loaded inside torch.inference_mode(), which prevents gradients; load it outside"
        )


def is_offloaded(model: torch.nn.Module) -> bool:
    """Whether accelerate loads the weights of each module from memory or disk only while the module runs."""
    # Until then the weights are on the meta device. Hooks alone may only move inputs between several devices.
    on_meta = any(weight.is_meta for weight in model.parameters())
    return on_meta and any(hasattr(module, "_hf_hook") for module in model.modules())


def check_folder(folder: Path) -> None:
    """Refuse a folder without weights or with pickled weights, also if an index of shards names pickled files.

    Raises:
        HeadnbError: no config, no weights, or weights that are not safetensors.
    """
    if not (folder / "config.json").is_file():
        raise HeadnbError(f"{folder} is not a model folder: it has no config.json")
    check_files_of(folder)
    names = {file.name for file in folder.iterdir()}
    sharded = "model.safetensors" not in names and "model.safetensors.index.json" in names
    if sharded:
        try:
            names = set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise HeadnbError(f"{folder} has a broken model.safetensors.index.json: {error}") from error
    safe = {name for name in names if name.endswith(".safetensors")}
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if pickled and (sharded or not safe):
        raise HeadnbError(
            f"{folder} has pickled weights ({pickled[0]}), which can run code when they are loaded; headnb loads"
            " safetensors only: model.save_pretrained(folder) writes them"
        )
    if not safe:
        raise HeadnbError(f"{folder} has no weights (model.safetensors)")


def check_causal(source: str, config: PretrainedConfig) -> None:
    """Refuse a model that is not a causal decoder, before its weights are fetched."""
    from transformers.models.auto import modeling_auto as auto  # noqa: PLC0415

    kind = config.model_type
    classes = getattr(config, "architectures", None)
    made_for = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    if getattr(config, "is_encoder_decoder", False):
        reason = "an encoder-decoder"
    elif kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        reason = "an encoder"
    elif kind not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or re.search(
        r"For\w*(Classification|Answering|Choice|MaskedLM)$", made_for
    ):
        reason = f"a {made_for or kind}"
    else:
        return
    raise HeadnbError(f"{source} is {reason}; headnb scores causal (decoder-only) language models")


def context_length(model: PreTrainedModel) -> int | None:
    """The maximum sequence length of a model in tokens; None if it has no limit."""
    config = model.config.get_text_config()
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((int(limit) for limit in limits if limit), None)
