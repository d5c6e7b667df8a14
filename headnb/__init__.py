"""headnb: attention-head scores for people who fine-tune language models in notebooks.

`__init__.pyi` lists the public names. They load on first call: importing headnb, completing a name and inspecting its
signature do not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb import _lazy_names
from headnb import accessor as _accessor  # noqa: F401  registers `.heads` on xarray objects
from headnb._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["__version__", *_lazy_names.public_modules()]  # noqa: PLE0604  all are strings
__getattr__ = _lazy_names.resolve


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%load_ext headnb`."""
    from headnb.notebook.extension import register  # noqa: PLC0415  magics are loaded only in a notebook

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%unload_ext headnb`, and by `%reload_ext headnb` before loading again; unloads the models."""
    from headnb.notebook.extension import unregister  # noqa: PLC0415

    unregister(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Location of the renderer, for `jupyter labextension`."""
    return [{"src": "labextension", "dest": "headnb"}]
