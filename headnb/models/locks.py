"""One run at a time on one model."""

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
    """One run at a time on one model: hooks and flags of two would mix. Two models may run in two threads.

    A model and what wraps it (`torch.compile`, peft) share their embeddings, and so their lock.
    """
    with _locks_lock:
        return _model_locks.setdefault(model.get_input_embeddings(), threading.RLock())
