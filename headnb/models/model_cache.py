"""Cache of loaded models in a kernel, limited by their total size."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from headnb.hub import user_path
from headnb.models.loading import load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Key: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CachedModel:
    """A loaded model, and the signature of its files at the time of loading."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    size: int
    """Bytes of parameters and buffers."""
    file_signature: int
    """Changes when the files in the model's folder change."""


class ModelCache:
    """Keeps the results of `load_model`; the least recently used model is removed first."""

    def __init__(self, load: Callable[..., tuple[Any, Any]] = load_model) -> None:
        self._load = load
        self._models: dict[Key, CachedModel] = {}  # the most recently used model last

    def load(
        self, name: str, *, budget: int | None = None, **options: str | None
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model loaded with these options of `load_model`, from the cache if it is there.

        Args:
            name: as for `load_model`.
            budget: maximum total bytes of all cached models; the requested model is always kept. None: half of the
                memory of the requested model's device.
            options: as for `load_model`; None means the default.

        Raises:
            HeadnbError: as for `load_model`.
        """
        given = {key: value for key, value in options.items() if value is not None}
        key = (("id", name), *sorted(given.items()))
        signature = _file_signature([name, given.get("adapter", "")])
        cached = self._models.pop(key, None)
        if cached is None or cached.file_signature != signature:
            cached = None  # release the outdated model before the new one is loaded
            model, tokenizer = self._load(name, **given)
            cached = CachedModel(name, model, tokenizer, _size(model), signature)
        self._models[key] = cached
        self._shrink(_half_of_memory(cached.model) if budget is None else budget)
        return cached.model, cached.tokenizer

    def tokenizer_of(self, model: object) -> PreTrainedTokenizerBase | None:
        """The tokenizer that was loaded with a cached model; None for other models."""
        return next((cached.tokenizer for cached in self._models.values() if cached.model is model), None)

    def free(self, names: Iterable[str] = ()) -> list[CachedModel]:
        """Remove the models with these names, or all models; returns the removed ones."""
        wanted = set(names)
        leaving = [key for key, cached in self._models.items() if not wanted or cached.name in wanted]
        return [self._models.pop(key) for key in leaving]

    def __iter__(self) -> Iterator[CachedModel]:
        return iter(self._models.values())

    def _shrink(self, budget: int) -> None:
        while len(self._models) > 1 and sum(cached.size for cached in self._models.values()) > budget:
            self._models.pop(next(iter(self._models)))
            release_memory()


def release_memory() -> None:
    """Run the garbage collector and release the accelerator's cached memory."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _size(model: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensors in (model.parameters(), model.buffers()) for tensor in tensors)


def _file_signature(sources: Iterable[str]) -> int:
    """Changes when files of these folders or files change, for instance because training saved a model again."""
    files = [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for source in sources
        if source and (path := user_path(source)).exists()
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.is_file()
    ]
    return hash(tuple(files))


def _half_of_memory(model: torch.nn.Module) -> int:
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415
    import torch  # noqa: PLC0415

    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory // 2)
    return int(psutil.virtual_memory().total // 2)
