"""headnb: attention-head scores for people who fine-tune language models in notebooks.

Public names load on first use, so that `import headnb` stays fast and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headnb import accessor as _accessor  # noqa: F401  registers `.heads` on xarray objects
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"

_HOME = {
    "FineTuned": "tuning.tuned",
    "HeadScoreCallback": "tuning.tracking",
    "Task": "tasks",
    "ablate": "ablation",
    "choose_heads": "findings.head_choice",
    "compare": "patterns",
    "compare_adapter": "tuning.adapters",
    "compare_methods": "findings.agreement",
    "deletion_curve": "findings.deletion",
    "evaluate": "tuning.evaluation",
    "explore": "display.explorer",
    "finetune": "tuning.finetuning",
    "fit_combination": "findings.combination",
    "grid": "accessor",
    "head_attention": "attention",
    "head_outputs": "capture",
    "load_model": "models",
    "load_task": "tasks",
    "methods": "scoring",
    "mixture": "findings.mixtures",
    "open_scores": "store",
    "open_study": "tuning.tuned",
    "scale_heads": "capture",
    "score_heads": "scoring",
    "select_instructions": "findings.selection",
    "selectivity": "findings.task_selectivity",
    "specificity": "findings.task_specificity",
    "track_checkpoints": "tuning.finished_runs",
    "trajectory": "findings.trajectories",
}

__all__ = ["HeadnbError", "__version__", *_HOME]  # noqa: PLE0604  all of them are strings


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'headnb' has no attribute {name!r}")
    return getattr(importlib.import_module(f"headnb.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%load_ext headnb`."""
    from headnb.extension import register  # noqa: PLC0415  magics are loaded only in a notebook

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%unload_ext headnb`, and by `%reload_ext headnb` before it loads anew: frees the loaded models."""
    from headnb.extension import unregister  # noqa: PLC0415

    unregister(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where `jupyter labextension` finds the renderer."""
    return [{"src": "labextension", "dest": "headnb"}]
