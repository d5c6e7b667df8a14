"""A model on its way to another process: its weights as plain arrays beside what is pickled, without a copy.

Dask's own way to send a module takes it apart: weights come out untied, hooks can no longer be registered, and bfloat16
does not go through. Pickled as a whole a model is copied four times on its way, and each copy of a large model takes as
long as scoring some samples.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import cloudpickle
import torch
from torch.storage import TypedStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    Bytes = NDArray[np.uint8]


class SentModel:
    """A model that is pickled with its weights out of band (PEP 574): they are written from where they lie.

    Weights that share memory share it in the other process, too.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Callable[..., SentModel], tuple[bytes, list[Bytes]]]:
        """The model without its weights, and they."""
        rest = io.BytesIO()
        pickler = _Pickler(rest, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.dump(self.model)
        return _received, (rest.getvalue(), list(pickler.weights.values()))


def _received(rest: bytes, weights: Sequence[Bytes]) -> SentModel:
    return SentModel(_Unpickler(io.BytesIO(rest), weights).load())


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it knows classes that were made in a notebook
    """Puts memory that tensors lie in aside."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.weights: dict[int, Bytes] = {}  # by where the memory is
        self._places: dict[int, int] = {}

    def persistent_id(self, value: Any) -> tuple[int, torch.dtype, str] | None:
        """What stands in the pickle for memory: its place among the weights, what it holds, and its device."""
        if not isinstance(value, TypedStorage):
            return None
        storage = value._untyped_storage  # noqa: SLF001  as torch.save does; asking the typed one for it warns
        key = storage._cdata  # noqa: SLF001
        if key not in self._places:
            self._places[key] = len(self._places)
            memory = torch.tensor([], dtype=torch.uint8).set_(storage.cpu())  # type: ignore[no-untyped-call]
            self.weights[key] = memory.numpy()
        return self._places[key], value.dtype, str(storage.device)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, weights: Sequence[Bytes]) -> None:
        super().__init__(file)
        self._weights = weights
        self._storages: dict[int, torch.UntypedStorage] = {}

    def persistent_load(self, about: tuple[int, torch.dtype, str]) -> TypedStorage:
        """Memory of its own, aligned as torch has it: what came may begin anywhere."""
        place, dtype, device = about
        if place not in self._storages:
            self._storages[place] = torch.from_numpy(self._weights[place].copy()).to(device).untyped_storage()
        return TypedStorage(wrap_storage=self._storages[place], dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
