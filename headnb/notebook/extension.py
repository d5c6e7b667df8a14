"""Registration of the magics in an IPython shell by `%load_ext headnb`, and their removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.models.model_cache import release_memory
from headnb.notebook.completion import add_completion, remove_completion
from headnb.notebook.magics import HeadMagics
from headnb.notebook.roles_magic import RoleMagics
from headnb.notebook.sft_magic import TuningMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_MAGIC_CLASSES = (HeadMagics, TuningMagics, RoleMagics)


def register(shell: InteractiveShell) -> None:
    """Add the magics, their settings and their completion to a shell, in place of earlier ones."""
    unregister(shell)
    magics = HeadMagics(shell)
    shell.register_magics(magics, TuningMagics(shell, magics), RoleMagics(shell, magics))
    add_completion(shell, magics)


def unregister(shell: InteractiveShell) -> None:
    """Remove the magics, their settings and their completion, and unload the models that they loaded."""
    remove_completion(shell)
    configurables: list[Any] = shell.configurables
    removed = [magics for magics in configurables if isinstance(magics, _MAGIC_CLASSES)]
    configurables[:] = [magics for magics in configurables if magics not in removed]
    manager = shell.magics_manager
    for magics in removed:
        if isinstance(magics, HeadMagics):
            magics.model_cache.free()
        if manager.registry.get(type(magics).__name__) is magics:
            del manager.registry[type(magics).__name__]
    for table in manager.magics.values():
        for name in [name for name, magic in table.items() if getattr(magic, "__self__", None) in removed]:
            del table[name]
    if removed:
        del magics, removed
        release_memory()
