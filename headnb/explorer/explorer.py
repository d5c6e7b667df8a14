"""The explorer: one widget to score a model, look into its heads, and intervene, while the kernel stays free.

    explorer = headnb.explore(model, tokenizer, tasks=["gsm_symbolic", "mbpp"])
    explorer                                    # shown as the cell's last value
    explorer.selected                           # names of the heads selected in the browser; assign to select
    explorer.observe(print, "selected")         # told of every click
    explorer.scores                             # what was scored last

The browser sends commands and draws traits; everything that is computed is a trait here, so a second view, or the
same page loaded again, shows the same. Long work runs in a thread (see `headnb.explorer.worker`); an error in it is a
message in the widget, and never ends the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.display.frontend import bundle
from headnb.display.live import progress_text
from headnb.display.payload import payload
from headnb.errors import HeadnbError
from headnb.explorer.ablation_card import AblationCard
from headnb.explorer.ablation_view import AblationView
from headnb.explorer.attention_message import to_message
from headnb.explorer.background_widget import BackgroundWidget
from headnb.explorer.commands import run_command
from headnb.explorer.grid_widget import StaticFallbackWidget, existing_heads, validate_heads
from headnb.explorer.head_detail import head_detail
from headnb.explorer.redraw_timer import RedrawTimer
from headnb.explorer.scored_tasks import ScoredTasks
from headnb.explorer.task_sources import TaskSources
from headnb.explorer.worker import Worker
from headnb.stats.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.display.payload_types import Payload
    from headnb.engine.tokenization import EncodingName
    from headnb.explorer.session import Session
    from headnb.scoring.progress import Progress
    from headnb.scoring.run import LossName
    from headnb.tasks.loading import Task


class Explorer(StaticFallbackWidget, BackgroundWidget):
    """Use `headnb.explore` to make one, or `.heads.explore()` of scores.

    Attributes:
        selected: names of the selected heads, two-way with the browser, as are `focused` (the one that is looked
            at), `task`, `method` and `samples`.
        status: what is going on: state ("idle", "running" or "stopping"), line, done, total, error and note.
        results: what was scored, by (task, method).
        ablations: the outcome of the last `ablate`, by task.
        error: the exception behind the last error message, for a closer look.
    """

    browser_traits = ("selected", "focused", "task", "method", "samples")
    payload = traitlets.Any().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    focused = traitlets.Unicode().tag(sync=True)
    task = traitlets.Unicode().tag(sync=True)
    method = traitlets.Unicode("activation").tag(sync=True)
    samples = traitlets.Int(32, min=1).tag(sync=True)
    choices = traitlets.Dict().tag(sync=True)
    head = traitlets.Dict().tag(sync=True)
    attention = traitlets.Dict().tag(sync=True)
    ablation = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        tasks: TaskSources | None = None,
        *,
        results: xr.Dataset | xr.DataArray | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self._worker = Worker()
        self._sources = tasks or TaskSources({})
        self._scored = ScoredTasks(self._sources)
        self.results: dict[tuple[str, str], xr.Dataset] = self._scored.scores
        self.ablations: dict[str, xr.Dataset] = {}
        self._session = self._open_session(model, tokenizer, seed, options)
        self._tokenizer = tokenizer
        self._redraw = RedrawTimer()
        super().__init__(_esm=bundle("explorer.js").read_text(encoding="utf-8"), payload=self._first_payload(results))
        self.choices = self._choices()
        self.task = next(iter(self._sources.names), "")
        if isinstance(results, xr.Dataset) and "score" in results:
            self._add_scores(str(results.attrs.get("task", "")), str(results.attrs.get("method", "")), results)

    def _repr_mimebundle_(self, **chosen: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The picture, and below it what heads that were taken out or scaled did to the losses."""
        bundle = super()._repr_mimebundle_(**chosen)
        if bundle is None:
            return None
        data, metadata = bundle
        cards = [AblationCard(result) for result in list(self.ablations.values())]
        data["text/html"] += "".join(card._repr_html_() for card in cards)
        data["text/plain"] = "\n\n".join([data["text/plain"], *map(repr, cards)])
        return data, metadata

    @property
    def scores(self) -> xr.Dataset | None:
        """The scores that are shown, of the chosen task and method; None before there are any."""
        return self.results.get((self.task, self.method))

    def run(self) -> None:
        """Score `samples` samples of `task` by `method` in the background; see `wait`.

        Raises:
            HeadnbError: something else is being computed, or there is no model.
        """
        self._start(f"scoring {self.task}", self._score)

    def attend(self, head: str | None = None, place: int = 0) -> None:
        """Show the attention of a head (by default the focused one) on the sample at `place` of the task."""
        name = head or self.focused
        if not name:
            raise HeadnbError("select a head first")
        self._start(f"attention of {name}", lambda session: self._attend(session, name, place))

    def ablate(
        self,
        factor: float = 0.0,
        heads: Iterable[str] | None = None,
        tasks: Iterable[str] | None = None,
        *,
        controls: int = 0,
    ) -> None:
        """Scale heads (by default the selected ones) in the background: losses of tasks, and text before and after."""
        named = list(self.selected if heads is None else heads)
        wanted = [self.task] if tasks is None else list(tasks)
        if not named:
            raise HeadnbError("select a head first")
        if not any(wanted):
            raise HeadnbError("choose a task first")
        self._start(
            f"scaling {', '.join(named)}", lambda session: self._ablate(session, named, factor, wanted, controls)
        )

    @traitlets.validate("selected")
    def _validate_selected(self, proposal: dict[str, Any]) -> list[str]:
        return validate_heads(proposal["value"], self.payload)

    @traitlets.validate("focused")
    def _validate_focused(self, proposal: dict[str, Any]) -> str:
        name: str = proposal["value"]
        return validate_heads([name], self.payload)[0] if name else ""

    @traitlets.observe("payload")
    def _drop_heads(self, _: object) -> None:
        self.selected = existing_heads(self.selected, self.payload)

    @traitlets.observe("selected")
    def _focus(self, change: dict[str, Any]) -> None:
        """Look at the head that was added, else go on with the one looked at, else at any that is left."""
        old = change["old"] if isinstance(change["old"], list) else []
        added = [name for name in self.selected if name not in old]
        kept = [self.focused] if self.focused in self.selected else self.selected[-1:]
        self.focused = next(iter([*added, *kept]), "")

    @traitlets.observe("focused")
    def _describe(self, _: object = None) -> None:
        scores = self.scores
        if not self.focused or scores is None:
            self.head = {}
            return
        self.head = head_detail(
            scores, self.focused, self._scored.samples.get((self.task, self.method)), self._tokenizer
        )

    @traitlets.observe("task", "method")
    def _show_results(self, _: object = None) -> None:
        """Draw what was scored by this method, the chosen task first, and describe the head by that task's scores."""
        self._describe()
        if self.scores is None:
            return
        shown = self._scored.of_method(self.method, first=self.task)
        self.payload = payload(shown, title=self._title(*shown))

    def _handle_command(self, content: dict[str, Any]) -> None:
        run_command(self, content)

    def _start(self, line: str, work: Callable[[Session], str]) -> None:
        """Do `work` in the background; what it returns is the note shown at its end."""
        session = self._session
        if session is None:
            raise HeadnbError("this needs the model: headnb.explore(model, tokenizer, tasks)")
        self._run_in_background(line, lambda: work(session))

    def _score(self, session: Session) -> str:
        name, method = self.task, self.method
        task = session.task(name, self.samples)
        self._redraw.reset()
        scores = session.score(task, method, lambda progress: self._show_progress(name, progress))
        self._add_scores(name, method, scores, task)
        done = scores.sizes["sample"]
        return "" if scores.attrs["complete"] else f"stopped: {done} of {len(task)} samples are scored"

    def _add_scores(self, name: str, method: str, scores: xr.Dataset, task: Task | None = None) -> None:
        self._scored.add(name, method, scores, task)
        if (self.task, self.method) == (name, method):
            self._show_results()
        with self.hold_trait_notifications():  # a change of task or method shows its results
            self.task, self.method = name, method

    def _show_progress(self, name: str, progress: Progress) -> None:
        if not self._redraw.due:
            return
        with self._redraw.drawing():
            self._set_status(line=progress_text(progress), done=progress.done, total=progress.total)
            if progress.done:
                self.payload = payload({name: pattern(progress.scores())}, title=self._title(name))

    def _attend(self, session: Session, head: str, place: int) -> str:
        task = self._task(session, self.task)
        found = session.attention(task, head, place)
        self.attention = {**to_message(found), "task": task.name}
        return ""

    def _ablate(self, session: Session, heads: list[str], factor: float, tasks: list[str], controls: int) -> str:
        view = AblationView(session, heads, factor, self._set_status)
        self.ablations, self.ablation = view.results, view.message
        for name in tasks:
            view.add_losses(name, self._task(session, name), controls)
            self.ablation = view.message
        first = self._task(session, tasks[0])
        view.add_generation(first, self._viewed_sample(first))
        self.ablation = view.message
        return ""

    def _viewed_sample(self, task: Task) -> int:
        """The place of the sample in the attention view; the first one where that is none of the task's."""
        names = [str(key) for key in task.ids]
        sample = self.attention.get("sample")
        return names.index(sample) if self.attention.get("task") == task.name and sample in names else 0

    def _task(self, session: Session, name: str) -> Task:
        """The samples that were scored, so that everything shown is about the same ones; else as many as asked for."""
        return self._scored.samples.get((name, self.method)) or session.task(name, self.samples)

    def _open_session(
        self,
        model: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        seed: int,
        options: dict[str, Any],
    ) -> Session | None:
        if model is None:
            if options:
                raise HeadnbError(f"{', '.join(options)}: only with the model, which results alone do not need")
            return None
        from headnb.explorer.session import Session  # noqa: PLC0415  loads torch

        return Session(model, tokenizer, self._sources, self._worker, seed=seed, **options)

    def _first_payload(self, results: xr.Dataset | xr.DataArray | None) -> Payload:
        if results is not None:
            return payload(results)
        if self._session is None:
            raise HeadnbError("the explorer needs a model or results")
        return self._session.empty_payload()

    def _choices(self) -> dict[str, Any]:
        known: dict[str, str] = {}
        if self._session is not None:
            from headnb.scoring.registry import methods  # noqa: PLC0415  loads torch

            known = methods(of_samples=True)
        return {"model": self._name, "tasks": self._sources.names, "methods": known}

    def _title(self, *tasks: str) -> str:
        """The model, and the task where it is one: several stand above their own grids."""
        return " · ".join(filter(None, (self._name, tasks[0] if len(tasks) == 1 else "")))

    @property
    def _name(self) -> str:
        return self._session.name if self._session is not None else ""


@check_arguments
def explore(
    model: PreTrainedModel | str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    tasks: object = None,
    *,
    samples: int = 32,
    method: str = "activation",
    seed: int = 0,
    batch_tokens: int = 2048,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    loss: LossName = "sample-mean",
) -> Explorer:
    """The explorer of a model: score tasks, look into heads, take heads out. Shown as a cell's last value.

    Args:
        model: as for `score_heads`, or what `load_model` takes (then no tokenizer is needed).
        tokenizer: its tokenizer; None if the samples are encoded already.
        tasks: names, files or `Task` objects, or a mapping from names to anything that `load_task` accepts; None:
            every task that is known by name.
        samples: how many of each task, until somebody changes it in the widget.
        method: one of `headnb.methods()`.
        seed: of the draw of samples and of the order of work.
        batch_tokens: as for `score_heads`, but fewer, so that the grid fills in more steps.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        loss: as for `score_heads`.

    Raises:
        HeadnbError: a model or a task that cannot be used.
    """
    if samples < 1 or batch_tokens < 1:
        raise HeadnbError(f"samples and batch_tokens must be at least 1, not {min(samples, batch_tokens)}")
    if isinstance(model, str):
        from headnb.models.loading import load_model  # noqa: PLC0415

        model, tokenizer = load_model(model)
    from headnb.scoring.registry import find_method  # noqa: PLC0415

    options: dict[str, Any] = {
        "batch_tokens": batch_tokens,
        "max_length": max_length,
        "encoding": encoding,
        "loss": loss,
    }
    explorer = Explorer(model, tokenizer, TaskSources(tasks), seed=seed, **options)
    explorer.method = find_method(method, of_samples=True).name
    explorer.samples = samples
    return explorer
