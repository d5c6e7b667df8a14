"""What `%load_ext headnb` adds to a shell, and `%unload_ext headnb` takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.models.model_cache import release_memory
from headnb.notebook.completion import add_completion, remove_completion
from headnb.notebook.magics import HeadMagics
from headnb.notebook.sft_magic import TuningMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_MAGIC_CLASSES = (HeadMagics, TuningMagics)


def register(shell: InteractiveShell) -> None:
    """Add the magics, their settings and their completion to a shell; what was there before is removed."""
    unregister(shell)
    magics = HeadMagics(shell)
    shell.register_magics(magics, TuningMagics(shell, magics))
    add_completion(shell, magics)


def unregister(shell: InteractiveShell) -> None:
    """Remove the magics, their settings and their completion, and free the models that they loaded."""
    remove_completion(shell)
    configurables: list[Any] = shell.configurables
    removed = [one for one in configurables if isinstance(one, _MAGIC_CLASSES)]
    configurables[:] = [one for one in configurables if one not in removed]
    manager = shell.magics_manager
    for one in removed:
        if isinstance(one, HeadMagics):
            one.model_cache.free()
        if manager.registry.get(type(one).__name__) is one:
            del manager.registry[type(one).__name__]
    for table in manager.magics.values():
        for name in [name for name, magic in table.items() if getattr(magic, "__self__", None) in removed]:
            del table[name]
    if removed:
        del one, removed
        release_memory()
