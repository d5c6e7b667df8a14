"""Explorer session: runs one model on its tasks in the worker thread, so that Stop takes effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

from headnb.display.payload import payload
from headnb.engine.hooks import find_heads
from headnb.errors import HeadnbError, unknown_name
from headnb.explorer.worker import Stopped, Worker
from headnb.models.checks import model_name
from headnb.scoring.ablation import Generation, ablate, generate_both
from headnb.scoring.attention import HeadAttention, head_attention
from headnb.scoring.progress import ScoringInterrupted
from headnb.scoring.run import score_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.display.payload_types import Payload
    from headnb.explorer.task_sources import TaskSources
    from headnb.scoring.progress import Progress
    from headnb.storage.method_results import MethodResults
    from headnb.tasks.loading import Task

EMPTY_MESSAGE = "Choose a task and press Run: the grid is updated during scoring."
OPTIONS = ("batch_tokens", "encoding", "loss", "max_length")


class Session:
    """A model, its tokenizer and tasks; `options` are the arguments of `score_heads` named in OPTIONS."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        sources: TaskSources,
        worker: Worker,
        *,
        seed: int = 0,
        **options: Any,
    ) -> None:
        for name in options:
            if name not in OPTIONS:
                raise unknown_name("option", name, OPTIONS)
        self.model, self.tokenizer, self.sources = model, tokenizer, sources
        self.layout = find_heads(model)
        self.name = model_name(model)
        self._worker, self._seed, self._options = worker, seed, options
        self._tasks: dict[tuple[str, int], Task] = {}

    def empty_payload(self) -> Payload:
        """Grid of the model before scoring: zero for softmax heads, NaN elsewhere."""
        _, heads = self.layout.shape
        values = np.where(np.arange(heads) < np.array(self.layout.heads)[:, None], 0.0, np.nan)
        attrs = {"kind": "level", "units": "", "kv_heads": self.layout.kv_heads}
        pattern = xr.DataArray(values, dims=("layer", "head"), attrs=attrs)
        return payload(pattern, title=self.name, progress={"done": 0, "total": 0, "message": EMPTY_MESSAGE})

    def task(self, name: str, n: int) -> Task:
        """n samples of a task, the same at each call."""
        if (name, n) not in self._tasks:
            self._tasks[name, n] = self.sources.load(name, n, self._seed)
        return self._tasks[name, n]

    def score(self, task: Task, methods: list[str], on_progress: Callable[[Progress], None]) -> MethodResults:
        """Scores of a task by several methods in one pass; after Stop, those of the samples scored so far.

        Raises:
            Stopped: the job was stopped before the first sample was scored.
        """

        def report(progress: Progress) -> None:
            self._worker.check()
            on_progress(progress)

        try:
            with self._worker.use_model(self.model, self.layout):
                return score_heads(
                    self.model,
                    self.tokenizer,
                    task,
                    method=methods,
                    seed=self._seed,
                    on_progress=report,
                    **self._options,
                )
        except ScoringInterrupted as stopped:
            if not stopped.done:
                raise Stopped from None
            return cast("MethodResults", stopped.scores)

    def attention(self, task: Task, head: str, place: int) -> HeadAttention:
        """Attention of a head on the task's sample with index `place`."""
        if not 0 <= place < len(task):
            raise HeadnbError(f"the task has samples 0 to {len(task) - 1}, not {place}")
        options = self._selected_options("encoding", "max_length")
        with self._worker.use_model(self.model, self.layout):
            return head_attention(self.model, self.tokenizer, task, head, sample=task.ids[place], **options)

    def losses(
        self, task: Task, heads: list[str], factor: float, controls: int, on_progress: Callable[[int, int], None]
    ) -> xr.Dataset:
        """Losses of a task before and after scaling heads: see `headnb.ablate`."""
        options = self._selected_options("batch_tokens", "encoding", "max_length")
        with self._worker.use_model(self.model, self.layout):
            return ablate(
                self.model,
                self.tokenizer,
                task,
                heads,
                factor,
                controls=controls,
                seed=self._seed,
                on_progress=on_progress,
                **options,
            )

    def generate(self, task: Task, heads: list[str], factor: float, place: int) -> Generation | None:
        """Texts generated from a sample's prompt before and after scaling heads; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        with self._worker.use_model(self.model, self.layout):
            return generate_both(
                self.model,
                self.tokenizer,
                task,
                heads,
                factor,
                sample=task.ids[place],
                on_token=self._worker.check,
                **self._selected_options("encoding"),
            )

    def _selected_options(self, *names: str) -> dict[str, Any]:
        return {name: value for name, value in self._options.items() if name in names}
