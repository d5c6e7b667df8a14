"""One lock per model, so that only one run uses a model at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_model_locks: WeakKeyDictionary[torch.nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_lock = threading.Lock()


def model_lock(model: PreTrainedModel) -> threading.RLock:
    """The lock of a model: the hooks and flags of two runs on one model would mix. Two models can run in two threads.

    A model and its wrappers (`torch.compile`, peft) share their embeddings, and therefore the lock.
    """
    with _locks_lock:
        return _model_locks.setdefault(model.get_input_embeddings(), threading.RLock())
