"""Results of a model's trial passes, remembered in the user's cache.

Before a model is scored, a few passes over eight tokens find its heads, and whether decoder and head run separately and
samples can be packed (`losses`). Their outcome depends on the weights, the code and the versions, which are the key.
Only models whose modules are classes of transformers and torch without hooks are remembered, and only large ones:
passes of a small model cost less than the fingerprint of its weights.

A file that is damaged, or does not fit the model, is ignored: the passes run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from headnb import hub
from headnb._version import __version__
from headnb.engine.attention_functions import is_transformed
from headnb.models.fingerprint import weights_fingerprint
from headnb.stats.scoring_revision import SCORING_REVISION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from transformers import PreTrainedModel

MIN_WEIGHTS = 10_000_000
MAX_FILES = 200  # the newest are kept
_SOURCES = ("torch.nn.modules", "transformers")


class Trial(NamedTuple):
    """Outcome of the trial passes of a model that packs samples; others are not remembered."""

    heads: dict[str, int]
    """Attention module -> query heads, in the order of a forward pass."""
    vocabulary: int


def trial_key(model: PreTrainedModel) -> str | None:
    """Hash of all that the trial passes depend on; None for a model that is not remembered."""
    modules = list(model.modules())
    is_small = sum(weight.numel() for weight in model.parameters()) < MIN_WEIGHTS
    if is_small or is_transformed(model) or not all(map(_is_plain, modules)):
        return None
    digest = hashlib.blake2b(weights_fingerprint(model).encode(), digest_size=16)
    versions = [__version__, SCORING_REVISION, *map(importlib.metadata.version, ("torch", "transformers"))]
    attention = model.config.get_text_config()._attn_implementation  # noqa: SLF001  it has no public name
    digest.update(repr([*versions, attention, str(model.device)]).encode())
    classes = {base for kind in set(map(type, modules)) for base in kind.__mro__}
    scopes = [*classes, *(sys.modules[source] for source in {kind.__module__ for kind in classes})]
    code = {line for scope in scopes for line in _functions(vars(scope))}
    code |= set(_functions({attention: ALL_ATTENTION_FUNCTIONS.get(attention)}))
    digest.update("\n".join(sorted(code)).encode())
    return digest.hexdigest()


def _is_plain(module: nn.Module) -> bool:
    changed = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)  # noqa: SLF001
    source = type(module).__module__
    return not changed and any(source == name or source.startswith(f"{name}.") for name in _SOURCES)


def _functions(names: Any) -> Iterator[str]:
    """Each function among names with a hash of its code: another tool may have replaced it."""
    for name, value in names.items():
        function = inspect.unwrap(value) if inspect.isfunction(value) else None
        if function is not None:
            code = hashlib.blake2b(function.__code__.co_code, digest_size=8).hexdigest()
            yield f"{name} {function.__module__}.{function.__qualname__} {code}"


def recall(key: str) -> Trial | None:
    """The remembered trial; None if there is none or it is damaged."""
    try:
        stored, checksum = json.loads(_path(key).read_text(encoding="utf-8"))
        trial = Trial(*stored)
        return trial if checksum == _checksum(key, trial) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def remember(key: str, trial: Trial) -> None:
    """Store a trial; does nothing if the cache cannot be written."""
    path = _path(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump([trial, _checksum(key, trial)], file)
            Path(draft).replace(path)
        finally:
            Path(draft).unlink(missing_ok=True)
        for old in sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime_ns)[:-MAX_FILES]:
            old.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return hub.cache_folder() / "trials" / f"{key}.json"


def _checksum(key: str, trial: Trial) -> str:
    return hashlib.blake2b(f"{key} {json.dumps(trial)}".encode(), digest_size=16).hexdigest()
