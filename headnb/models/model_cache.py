"""Models that stay loaded in a kernel between calls, as long as their sizes keep within a budget."""

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
    """A loaded model, and what its files looked like when it was loaded."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    size: int
    """Bytes of its parameters and buffers."""
    file_signature: int
    """Changes with the files of a model that lies in a folder."""


class ModelCache:
    """What `load_model` returned, kept for the next call; the least recently used model leaves first."""

    def __init__(self, load: Callable[..., tuple[Any, Any]] = load_model) -> None:
        self._load = load
        self._models: dict[Key, CachedModel] = {}  # the most recently used one last

    def load(
        self, name: str, *, budget: int | None = None, **options: str | None
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model of a name with these options of `load_model`, loaded unless it is here already.

        Args:
            name: as for `load_model`.
            budget: bytes that all kept models may take together; the one asked for is kept in any case. None: half of
                the memory of the device that it is on.
            options: as for `load_model`; None where its default holds.

        Raises:
            HeadnbError: as `load_model` does.
        """
        given = {key: value for key, value in options.items() if value is not None}
        key = (("id", name), *sorted(given.items()))
        stamp = _file_signature([name, given.get("adapter", "")])
        found = self._models.pop(key, None)
        if found is None or found.file_signature != stamp:
            found = None  # the stale one goes before the new one comes
            model, tokenizer = self._load(name, **given)
            found = CachedModel(name, model, tokenizer, _size(model), stamp)
        self._models[key] = found
        self._shrink(_half_of_memory(found.model) if budget is None else budget)
        return found.model, found.tokenizer

    def tokenizer_of(self, model: object) -> PreTrainedTokenizerBase | None:
        """The tokenizer that came with a model that is kept here."""
        return next((cached.tokenizer for cached in self._models.values() if cached.model is model), None)

    def free(self, names: Iterable[str] = ()) -> list[CachedModel]:
        """Let go of the models of these names, or of all; returns what was let go."""
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
    """Collect what nothing refers to, and give the memory of an accelerator back."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _size(model: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensors in (model.parameters(), model.buffers()) for tensor in tensors)


def _file_signature(places: Iterable[str]) -> int:
    """Changes when somebody trains on and saves to the same folder."""
    files = [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for place in places
        if place and (path := user_path(place)).exists()
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.is_file()
    ]
    return hash(tuple(files))


def _half_of_memory(model: torch.nn.Module) -> int:
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415  comes with accelerate
    import torch  # noqa: PLC0415

    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory // 2)
    return int(psutil.virtual_memory().total // 2)
