"""Names that tab completes, in the magics and in the shell: models, tasks, methods and values of options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb import _background_imports
from headnb.notebook.shared_options import COPY, REPORT_TO, SCORE

if TYPE_CHECKING:
    from collections.abc import Callable


def known_values(argument: str) -> list[str]:
    """Possible values of an argument or option by its name, such as "model"; empty for free-form ones."""
    if argument in _NAMES:
        return _NAMES[argument]()
    return [choice for option in (*SCORE, COPY, REPORT_TO) if option.name == argument for choice in option.choices]


def _models() -> list[str]:
    from headnb.models.registry import known_models  # noqa: PLC0415

    return list(known_models())


def _tasks() -> list[str]:
    from headnb.tasks.loading import known_tasks  # noqa: PLC0415

    return list(known_tasks())


def _task_groups() -> list[str]:
    from headnb.tasks.loading import known_tasks  # noqa: PLC0415

    return sorted({card.group for card in known_tasks().values()})


def _methods() -> list[str]:
    _background_imports.wait()
    from headnb.scoring.registry import methods  # noqa: PLC0415  loads torch

    return list(methods())


_NAMES: dict[str, Callable[[], list[str]]] = {
    "model": _models,
    "task": _tasks,
    "track": _tasks,
    "word": _task_groups,
    "method": _methods,
}
