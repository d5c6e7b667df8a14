"""Data of the ablation tab: losses of tasks with scaled heads, and texts generated before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.explorer.ablation_card import to_row

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from headnb.explorer.session import Session
    from headnb.tasks.loading import Task


class AblationView:
    """Scales heads for one task after another.

    Attributes:
        results: results of `headnb.ablate`, by task.
        message: the data that the browser draws. Each step replaces it by a new dict.
    """

    def __init__(self, session: Session, heads: list[str], factor: float, report: Callable[..., None]) -> None:
        self._session, self._heads, self._factor, self._report = session, heads, factor, report
        self.results: dict[str, xr.Dataset] = {}
        self.message: dict[str, Any] = {"heads": heads, "factor": factor, "rows": [], "generation": None}

    def add_losses(self, name: str, task: Task, controls: int) -> None:
        """Measure the losses of one task and add its row to the message."""

        def count(done: int, total: int) -> None:
            self._report(line=f"measuring the loss on {name}: {done} of {total} samples", done=done, total=total)

        result = self._session.losses(task, self._heads, self._factor, controls, count)
        self.results[name] = result
        self.message = {**self.message, "rows": [*self.message["rows"], to_row(result)]}

    def add_generation(self, task: Task, position: int) -> None:
        """Generate texts from one sample's prompt before and after scaling heads; do nothing without a tokenizer."""
        self._report(line="generating texts before and after", done=0, total=0)
        made = self._session.generate(task, self._heads, self._factor, position)
        if made is not None:
            texts = {"prompt": made.prompt, "before": made.before, "after": made.after}
            self.message = {**self.message, "generation": {"task": task.name, "sample": str(made.sample), **texts}}
