"""What is asked of a model: its name, whether its weights are sound, which weights they are, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.encoding import collate
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from headnb.encoding import EncodedSample

# Entries of a config that say where a model is from, how it is run, or how text is made of it. A trainer sets some.
_NOTES = re.compile(
    r"^(_name_or_path|architectures|torch_dtype|dtype|transformers_version|use_cache|return_dict|output_(attentions|hidden_states|router_logits)"
    r"|(pad|bos|eos)_token_id|_?\w*(attn|experts)_implementation\w*)$"
)


def model_name(model: Any) -> str:
    """How results name a model: the id it was loaded by (the last part of a folder), and its adapter, if any."""
    model = getattr(model, "_orig_mod", model)
    config = getattr(model, "config", None)
    name = getattr(model, "name_or_path", "") or getattr(config, "_name_or_path", "") or type(model).__name__
    name = Path(name).name if Path(name).is_dir() else str(name)
    name = name.encode(errors="replace").decode()  # a folder's name may hold bytes that are no text
    adapter = getattr(model, "headnb_adapter", "")
    return f"{name} + {adapter}" if adapter else name


def check_weights(model: torch.nn.Module) -> None:
    """One pass over all weights.

    Raises:
        HeadnbError: NaN or infinite weights; the first three are named, with their layer.
    """
    import torch  # noqa: PLC0415

    bad = []
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        # A NaN or an infinity shows in the sum, which needs no copy; a sum of sound weights could overflow, so look.
        if not torch.isfinite(weight.detach().sum(dtype=torch.float32)) and not weight.isfinite().all():
            layer = re.search(r"\.(\d+)\.", name)
            bad.append(f"{name} (layer {layer[1]})" if layer else name)
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise HeadnbError(f"the model has NaN or infinite weights: {', '.join(bad[:3])}{more}")


def why_not_finite(model: PreTrainedModel, sample: EncodedSample) -> str:
    """What can be said of a sample whose loss or scores are not finite, and what to do: the rest of a sentence.

    Raises:
        HeadnbError: the weights themselves are NaN or infinite (`check_weights`).
    """
    import torch  # noqa: PLC0415

    from headnb.capture import head_outputs, input_device  # noqa: PLC0415

    check_weights(model)
    broken: list[int] = []

    def look(layer: int, O: torch.Tensor) -> torch.Tensor:
        if not O.isfinite().all():
            broken.append(layer)
        return O

    ids = torch.from_numpy(sample.input_ids)[None].to(input_device(model))
    with contextlib.suppress(RuntimeError), torch.no_grad(), head_outputs(model, look):  # memory may be short
        model(input_ids=ids, use_cache=False)
    where = f"; head outputs are not finite from layer {min(broken)} on" if broken else ""
    if getattr(model, "dtype", None) == torch.float16:
        where += "; float16 ends at 65504: load_model(..., dtype='bfloat16') or 'float32' has room"
    return where


def is_offloaded(model: torch.nn.Module) -> bool:
    """Whether accelerate brings weights from memory or disk for each module's turn, and takes them away after it."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def weights_fingerprint(model: torch.nn.Module) -> str:
    """32 hex digits that change with any weight, with what the config says of the computation, and with the adapters.

    They are the same on every device. Each tensor counts with the sums of the rows and of the columns of its bits, as
    wrapping integers, which no order of summing changes. One changed weight changes both, and two weights exchanged
    change at least one of the two. Weights that accelerate holds on disk or in memory are read from there.

    Raises:
        HeadnbError: a weight is on the meta device, and accelerate does not hold it either.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in _weights(model):
        digest.update(f"{name.removeprefix('_orig_mod.')} {tuple(weight.shape)} {weight.dtype}".encode())
        if weight.is_meta:
            raise HeadnbError(f"the model's weight {name} is on the meta device, and no offload folder holds it")
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
    """Names and weights in the order of the names, offloaded ones where accelerate's hooks hold them."""
    held: dict[str, tuple[Any, str]] = {}
    for prefix, module in model.named_modules():
        hook: Any = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            if getattr(each, "weights_map", None) is not None:
                tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
                held.update({f"{prefix}.{name}" if prefix else name: (each.weights_map, name) for name, _ in tensors})
    for name, weight in sorted(model.state_dict().items()):
        if weight.is_meta and name in held:
            weights, key = held[name]
            with contextlib.suppress(KeyError, OSError):
                yield name, weights[key]
                continue
        yield name, weight


def _bit_sums(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums along both axes of the weight's bits, seen as a matrix of integers, eight bytes each where they divide."""
    import torch  # noqa: PLC0415

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = weight.contiguous().view(-1)
    flat = flat.clone() if flat.storage_offset() else flat  # eight bytes at a time need their alignment
    bits = flat.view(whole[flat.element_size() if flat.nbytes % 8 else 8])
    matrix = bits.view(-1, math.gcd(bits.numel(), 4096))
    return matrix.sum(0), matrix.sum(1)


def _computation(config: Any) -> str:
    """The config as JSON, without what neither the weights' use nor their scores depend on."""
    if not hasattr(config, "to_diff_dict"):
        return ""
    return json.dumps(_without_notes(config.to_diff_dict()), sort_keys=True, default=str)


def _without_notes(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_notes(held) for key, held in value.items() if not _NOTES.search(str(key))}
    return value


def check_left_padding(
    score: Callable[..., tuple[torch.Tensor, torch.Tensor]], samples: Sequence[EncodedSample], dtype: torch.dtype
) -> None:
    """Score the shortest sample, and the longest one that would be padded, with padding on the left and without.

    Some decoders count positions from the row's first place, padding or not (bart), carry a state through the padding
    (recurrent_gemma) or pool over windows of places (deepseek_v4), and no mask keeps their scores right.

    Args:
        score: a `Scorer` that needs no survey: scores (B, L, H) and losses (B,) of a batch.
        samples: what is going to be scored.
        dtype: of the model, which says how much is rounding.

    Raises:
        HeadnbError: the scores differ by more than rounding.
    """
    import torch  # noqa: PLC0415

    tolerance = max(1e-3, 32 * torch.finfo(dtype).eps)  # a quarter in bfloat16, where rounding changes experts' routes
    by_length = sorted(samples, key=len)
    longest = by_length[-1]
    shorter = [sample for sample in by_length if len(sample) < len(longest)]
    for sample in shorter[:1] + shorter[1:][-1:]:
        alone, _ = score(collate([sample]), budget=1)
        padded, _ = score(collate([sample, longest], side="left"), budget=1)
        expected, found = alone[0].nan_to_num(), padded[0].nan_to_num()  # (L, H)
        if (found - expected).norm() > tolerance * expected.norm():
            raise HeadnbError("this model gives other scores when padding is on the left; use padding_side='right'")


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse what does not fit into the memory that is free now, before the system ends the process for it.

    Args:
        needed: bytes.
        what: what needs them.
        advice: what to do instead.

    Raises:
        HeadnbError: there is less.
    """
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    free = psutil.virtual_memory().available
    if needed > free:
        raise HeadnbError(
            f"{what} need {needed / 2**30:.1f} GB of memory, and {free / 2**30:.1f} GB are free; {advice}"
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder without weights, or with pickled ones, also where an index of shards names them.

    Raises:
        HeadnbError: no config, no weights, or weights that are not safetensors.
    """
    if not (folder / "config.json").is_file():
        raise HeadnbError(f"{folder} is no model folder: it has no config.json")
    names = {file.name for file in folder.iterdir()}
    sharded = "model.safetensors" not in names and "model.safetensors.index.json" in names
    if sharded:
        try:
            names = set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
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
    """Refuse what is no causal decoder, before its weights are fetched."""
    from transformers.models.auto import modeling_auto as auto  # noqa: PLC0415

    kind = config.model_type
    made_for = (getattr(config, "architectures", None) or [""])[0]
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


def weight_bytes(folder: Path | None, config: Any, dtype: Any) -> float:
    """What the weights take once they are loaded, told by their files; 0 where these are not on this machine yet."""
    import torch  # noqa: PLC0415

    if folder is None:
        return 0
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else list(folder.glob("model-*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    stored = getattr(config, "dtype", None)
    if isinstance(stored, torch.dtype) and isinstance(dtype, torch.dtype):
        return size * dtype.itemsize / stored.itemsize
    return size


def fits_in_float32(model: torch.nn.Module) -> bool:
    """Whether half of the main memory holds the weights as float32."""
    import psutil  # noqa: PLC0415  comes with accelerate

    size = 4 * sum(weight.numel() for weight in model.parameters())
    return not getattr(model, "is_quantized", False) and size < psutil.virtual_memory().total / 2
