"""headnb: attention-head scores for people who fine-tune language models in notebooks.

Public names load on first use, so that `import headnb` stays fast and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headnb import accessor as _accessor  # noqa: F401  registers `.heads` on xarray objects
from headnb._version import __version__
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_HOME = {
    "FineTuned": "tuning.tuned",
    "HeadScoreCallback": "tuning.tracking",
    "Task": "tasks.loading",
    "ablate": "scoring.ablation",
    "choose_heads": "analysis.head_choice",
    "compare": "stats.patterns",
    "compare_adapter": "tuning.adapters",
    "compare_methods": "analysis.agreement",
    "deletion_curve": "analysis.deletion",
    "evaluate": "tuning.evaluation",
    "explore": "explorer.explorer",
    "finetune": "tuning.finetuning",
    "fit_combination": "analysis.composition.fit",
    "grid": "accessor",
    "head_attention": "scoring.attention",
    "head_outputs": "engine.hooks",
    "load_model": "models.loading",
    "load_task": "tasks.loading",
    "methods": "scoring",
    "mixture": "analysis.mixtures",
    "open_scores": "storage.score_store",
    "open_study": "tuning.tuned",
    "scale_heads": "engine.hooks",
    "score_heads": "scoring",
    "select_instructions": "analysis.selection.select",
    "selectivity": "analysis.task_selectivity",
    "specificity": "analysis.task_specificity",
    "track_checkpoints": "tuning.finished_runs",
    "trajectory": "analysis.trajectories",
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
    from headnb.notebook.extension import register  # noqa: PLC0415  magics are loaded only in a notebook

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Called by `%unload_ext headnb`, and by `%reload_ext headnb` before it loads anew: frees the loaded models."""
    from headnb.notebook.extension import unregister  # noqa: PLC0415

    unregister(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where `jupyter labextension` finds the renderer."""
    return [{"src": "labextension", "dest": "headnb"}]
