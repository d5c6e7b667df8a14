"""Registration of the magics in an IPython shell by `%load_ext headnb`, and their removal."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING, Any

from headnb import _background_imports
from headnb.models.model_cache import release_memory
from headnb.notebook.completion import add_completion, remove_completion
from headnb.notebook.magics import HeadMagics
from headnb.notebook.roles_magic import RoleMagics
from headnb.notebook.sft_magic import TuningMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_MAGIC_CLASSES = (HeadMagics, TuningMagics, RoleMagics)


class _WaitBeforeImports(ast.NodeTransformer):
    """Makes a cell that imports a package, or loads an extension, first wait for the imports in the background.

    The wait is a statement of the cell, so that Ctrl-C ends the cell too. A hook before the cell would only end itself.
    """

    _WAIT = "__import__('headnb._background_imports', fromlist=['wait']).wait()"

    def __init__(self) -> None:
        self._loaded = frozenset(sys.modules)

    def visit_Module(self, cell: ast.Module) -> ast.Module:
        if any(map(self._loads_package, ast.walk(cell))):
            cell.body[:0] = ast.parse(self._WAIT).body
        return cell

    def _loads_package(self, node: ast.AST) -> bool:
        match node:
            case ast.Import(names=names):
                return not self._loaded.issuperset(alias.name for alias in names)
            case ast.ImportFrom(module=module):
                return module not in self._loaded
            case ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"):
                return True
            case ast.Constant(value="load_ext" | "reload_ext" | "matplotlib" | "run"):  # a magic that imports
                return True
        return False


def register(shell: InteractiveShell) -> None:
    """Add the magics, their settings and their completion to a shell, in place of earlier ones."""
    unregister(shell)
    magics = HeadMagics(shell)
    shell.register_magics(magics, TuningMagics(shell, magics), RoleMagics(shell, magics))
    add_completion(shell, magics)
    shell.ast_transformers.append(_WaitBeforeImports())
    _background_imports.start(_background_imports.FOR_SCORING, then=_background_imports.FOR_DRAWING)


def unregister(shell: InteractiveShell) -> None:
    """Remove the magics, their settings and their completion, and unload the models that they loaded."""
    remove_completion(shell)
    shell.ast_transformers[:] = [one for one in shell.ast_transformers if not isinstance(one, _WaitBeforeImports)]
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
