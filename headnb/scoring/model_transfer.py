"""Transfer of a model to another process: its weights are sent as arrays next to the pickle, without a copy.

Dask's own serialization of modules has three faults: tied weights are untied, hooks can no longer be registered, and
bfloat16 fails. Pickling the whole model copies its weights several times; sending it to two workers took five times as
long.
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
    """A model that is pickled with its weights out of band (PEP 574), so they are written from their own memory.

    A worker forwards the model as it received it, even while the worker scores with it and has hooks in it. Tensors
    that share a storage share one in the other process too. Receiving needs twice the memory of the weights.

    Attributes:
        model: the model to score with.
        pickled: pickle of the model without the contents of its tensors.
        storages: the tensors' contents, in the order of their indices in the pickle.
    """

    model: PreTrainedModel
    pickled: bytes
    storages: Sequence[UntypedStorage]

    @classmethod
    def of(cls, model: PreTrainedModel) -> SerializedModel:
        """Serialize a model in its current state.

        Raises:
            Exception: any error of a part of the model that cannot be pickled.
        """
        rest = io.BytesIO()
        pickler = _Pickler(rest, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.dump(model)
        return cls(model, rest.getvalue(), pickler.storages)

    def __reduce__(self) -> tuple[Callable[..., SerializedModel], tuple[bytes, list[Bytes]]]:
        """Pass the storages as arrays, because pickle can send arrays out of band but not torch's storages."""
        return _deserialize, (self.pickled, [_bytes_of(storage.cpu()) for storage in self.storages])  # type: ignore[no-untyped-call]


def _deserialize(rest: bytes, weights: Sequence[Bytes]) -> SerializedModel:
    unpickler = _Unpickler(io.BytesIO(rest), weights)
    return SerializedModel(unpickler.load(), rest, [unpickler.storages[index] for index in range(len(weights))])


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle pickles classes defined in a notebook
    """Collects the storages of tensors instead of pickling their contents."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.storages: list[UntypedStorage] = []
        self._indices: dict[int, int] = {}

    def persistent_id(self, value: Any) -> tuple[int, torch.dtype, str] | None:
        """The reference to a storage in the pickle: its index, dtype and device."""
        if isinstance(value, TypedStorage):
            storage, dtype = value._untyped_storage, value.dtype  # noqa: SLF001  its own method warns
        elif isinstance(value, UntypedStorage):
            storage, dtype = value, torch.uint8  # float8 and other new dtypes have no typed storage
        else:
            return None
        key = storage._cdata  # noqa: SLF001  torch.save distinguishes storages by it
        if key not in self._indices:
            self._indices[key] = len(self.storages)
            self.storages.append(storage)
        return self._indices[key], dtype, str(storage.device)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, weights: Sequence[Bytes]) -> None:
        super().__init__(file)
        self._weights = weights
        self.storages: dict[int, UntypedStorage] = {}

    def persistent_load(self, reference: tuple[int, torch.dtype, str]) -> TypedStorage:
        """A copy in new memory, aligned as torch requires; received arrays may be unaligned and read-only."""
        index, dtype, device = reference
        if index not in self.storages:
            memory = torch.empty(len(self._weights[index]), dtype=torch.uint8)
            memory.numpy()[:] = self._weights[index]
            self.storages[index] = memory.to(device).untyped_storage()
        return TypedStorage(wrap_storage=self.storages[index], dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def _bytes_of(storage: UntypedStorage) -> Bytes:
    """The storage's memory as an array without a copy; the array keeps the memory alive."""
    contents: Bytes = torch.tensor([], dtype=torch.uint8).set_(storage).numpy()
    return contents
