"""headnb: attention-head scores for people who fine-tune language models in notebooks.

Public names, which are listed in `__init__.pyi`, load on first use: `import headnb` stays fast and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from headnb import accessor as _accessor  # noqa: F401  registers `.heads` on xarray objects
from headnb._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)  # the names in __init__.pyi
__all__ = [*_names, "__version__"]  # noqa: PLE0604  all of them are strings


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%load_ext headnb`."""
    from headnb.notebook.extension import register  # noqa: PLC0415  magics are loaded only in a notebook

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%unload_ext headnb`, and by `%reload_ext headnb` before it loads anew: frees the loaded models."""
    from headnb.notebook.extension import unregister  # noqa: PLC0415

    unregister(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where `jupyter labextension` finds the renderer."""
    return [{"src": "labextension", "dest": "headnb"}]
