"""A model on its way to another process: its weights as plain arrays beside what is pickled, without a copy.

Dask's own way to send a module takes it apart: weights come out untied, hooks can no longer be registered, and bfloat16
does not go through. Pickled as a whole its weights are copied again and again on their way: to two workers that took
five times as long.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle
import torch
from torch import UntypedStorage
from torch.storage import TypedStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SerializedModel:
    """A model that is pickled with its weights out of band (PEP 574): they are written from where they lie.

    It is passed on as it was first sent, also by a worker that scores with it and has its hooks in it. Tensors that
    share a storage share one in the other process, too, which needs twice the memory of the weights until all came.

    Attributes:
        model: to score with.
        pickled: its pickle without what its tensors hold.
        storages: what they hold, in the order in which the pickle names it.
    """

    model: PreTrainedModel
    pickled: bytes
    storages: Sequence[UntypedStorage]

    @classmethod
    def of(cls, model: PreTrainedModel) -> SerializedModel:
        """A model as it is now.

        Raises:
            Exception: whatever a part of the model raises that cannot be pickled.
        """
        rest = io.BytesIO()
        pickler = _Pickler(rest, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.dump(model)
        return cls(model, rest.getvalue(), pickler.storages)

    def __reduce__(self) -> tuple[Callable[..., SerializedModel], tuple[bytes, list[Bytes]]]:
        """Arrays are what pickle can put beside itself; torch's storages are not."""
        return _deserialize, (self.pickled, [_bytes_of(storage.cpu()) for storage in self.storages])  # type: ignore[no-untyped-call]


def _deserialize(rest: bytes, weights: Sequence[Bytes]) -> SerializedModel:
    unpickler = _Unpickler(io.BytesIO(rest), weights)
    return SerializedModel(unpickler.load(), rest, [unpickler.storages[place] for place in range(len(weights))])


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it knows classes that were made in a notebook
    """Puts the memory that tensors lie in aside."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.storages: list[UntypedStorage] = []
        self._places: dict[int, int] = {}

    def persistent_id(self, value: Any) -> tuple[int, torch.dtype, str] | None:
        """What stands in the pickle for a storage: its place, what it holds, and its device."""
        if isinstance(value, TypedStorage):
            storage, dtype = value._untyped_storage, value.dtype  # noqa: SLF001  its own method warns
        elif isinstance(value, UntypedStorage):
            storage, dtype = value, torch.uint8  # of float8 and other late types, which have no typed storage
        else:
            return None
        key = storage._cdata  # noqa: SLF001  what torch.save tells storages apart by
        if key not in self._places:
            self._places[key] = len(self.storages)
            self.storages.append(storage)
        return self._places[key], dtype, str(storage.device)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, weights: Sequence[Bytes]) -> None:
        super().__init__(file)
        self._weights = weights
        self.storages: dict[int, UntypedStorage] = {}

    def persistent_load(self, about: tuple[int, torch.dtype, str]) -> TypedStorage:
        """Memory of its own, aligned as torch has it: what came may begin anywhere, and be read-only."""
        place, dtype, device = about
        if place not in self.storages:
            memory = torch.empty(len(self._weights[place]), dtype=torch.uint8)
            memory.numpy()[:] = self._weights[place]
            self.storages[place] = memory.to(device).untyped_storage()
        return TypedStorage(wrap_storage=self.storages[place], dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def _bytes_of(storage: UntypedStorage) -> Bytes:
    """The memory itself as an array, which keeps it alive."""
    found: Bytes = torch.tensor([], dtype=torch.uint8).set_(storage).numpy()
    return found
