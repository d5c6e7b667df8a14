"""headnb: attention-head scores for people who fine-tune language models in notebooks.

Public names, which are listed in `__init__.pyi`, load on first call: `import headnb` is fast and loads no
torch, and completing a name or asking for its signature does not load it either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb import _lazy_names
from headnb import accessor as _accessor  # noqa: F401  registers `.heads` on xarray objects
from headnb._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["__version__", *_lazy_names.public_modules()]  # noqa: PLE0604  all of them are strings
__getattr__ = _lazy_names.resolve


def __dir__() -> list[str]:
    return sorted(__all__)


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
