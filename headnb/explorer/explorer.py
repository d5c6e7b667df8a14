"""Explorer widget that scores a model, shows details of its heads and ablates them, without blocking the kernel.

    explorer = headnb.explore(model, tokenizer, tasks=["gsm_symbolic", "mbpp"])
    explorer                                    # displayed as the cell's last value
    explorer.selected                           # names of the heads selected in the browser; assign to select
    explorer.on_select(print)                   # called with their names after every change
    explorer.scores                             # scores of the chosen task and method

The browser sends commands and draws traits. All results are traits, so that a second view or a reloaded page shows the
same state. Long jobs run in a thread (see `headnb.explorer.worker`). An error in a job is shown in the widget and does
not close the connection.
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
from headnb.explorer.grid_widget import StaticFallbackWidget
from headnb.explorer.head_detail import head_detail
from headnb.explorer.redraw_timer import RedrawTimer
from headnb.explorer.scored_tasks import ScoredTasks
from headnb.explorer.selection import SelectionWidget, validate_heads
from headnb.explorer.task_sources import TaskSources
from headnb.explorer.worker import Worker
from headnb.head_names import head_name, parse_heads
from headnb.stats.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.display.payload_types import Payload
    from headnb.engine.tokenization import EncodingName
    from headnb.explorer.session import Session
    from headnb.scoring.progress import Progress
    from headnb.scoring.run import LossName
    from headnb.tasks.loading import Task


class Explorer(StaticFallbackWidget, SelectionWidget, BackgroundWidget):
    """Explorer widget; created by `headnb.explore` or `.heads.explore()`.

    Attributes:
        selected: names of the selected heads. `selected`, `focused` (the head whose details are shown), `task`,
            `method` and `samples` are synchronised with the browser in both directions.
        status: state ("idle", "running" or "stopping"), job ("run", "attend" or "ablate"; "" if idle), line, done,
            total, error and note.
        methods: methods that each run scores in the same pass as `method`; choosing one of them then shows its scores.
        results: scores by (task, method).
        ablations: results of the last `ablate`, by task.
        error: the exception behind the last error message.
    """

    browser_traits = ("selected", "focused", "task", "method", "samples")
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
        self.methods: list[str] = []
        self.ablations: dict[str, xr.Dataset] = {}
        self._session = self._open_session(model, tokenizer, seed, options)
        self._tokenizer = tokenizer
        self._redraw = RedrawTimer()
        super().__init__(_esm=bundle("explorer.js").read_text(encoding="utf-8"), payload=self._first_payload(results))
        self.choices = self._choices()
        self.task = next(iter(self._sources.names), "")
        if isinstance(results, xr.Dataset) and _has_one_score_per_sample(results):
            self._add_scores(str(results.attrs.get("task", "")), str(results.attrs.get("method", "")), results)

    def _repr_mimebundle_(self, **chosen: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The picture of the grid, and below it the cards of the last ablation."""
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
        """Scores of the chosen task and method; None before they are computed."""
        return self.results.get((self.task, self.method))

    def run(self) -> None:
        """Score `samples` samples of `task` by `method` and `methods` in the background; see `wait`.

        Raises:
            HeadnbError: another job is running, or the explorer has no model.
        """
        name, together, n = self.task, list(dict.fromkeys([self.method, *self.methods])), self.samples
        self._start("run", f"scoring {name}", lambda session: self._score(session, name, together, n))

    def attend(self, head: str | None = None, place: int = 0) -> None:
        """Show the attention of a head (by default the focused one) on the task's sample with index `place`.

        Raises:
            HeadnbError: no head is focused, or as for `run`.
        """
        name = head or self.focused
        if not name:
            raise HeadnbError("select a head first")
        task, load = self.task, self._task_loader()
        self._start(
            "attend",
            f"measuring the attention of {name}",
            lambda session: self._attend(session, load(session, task), name, place),
        )

    def ablate(
        self,
        factor: float = 0.0,
        heads: Iterable[str] | None = None,
        tasks: Iterable[str] | None = None,
        *,
        controls: int = 0,
    ) -> None:
        """Scale heads in the background, and measure the losses of tasks and generate texts before and after.

        Args:
            factor: factor for the heads' outputs; 0 ablates them.
            heads: their names, also as "L1H1,L0H1"; None: the selected heads.
            tasks: their names, or one name; None: the chosen task.
            controls: number of random control sets of as many other heads of the same layers.

        Raises:
            HeadnbError: there is no head or no task, or as for `run`.
        """
        if isinstance(heads, str):
            heads = [head_name(*head) for head in parse_heads(heads)]
        head_names = list(self.selected if heads is None else heads)
        task_names = [self.task] if tasks is None else [tasks] if isinstance(tasks, str) else list(tasks)
        if not head_names:
            raise HeadnbError("select a head first")
        if not any(task_names):
            raise HeadnbError("choose a task first")
        load = self._task_loader()
        self._start(
            "ablate",
            f"scaling {', '.join(head_names)}",
            lambda session: self._ablate(session, load, head_names, factor, task_names, controls),
        )

    @traitlets.validate("focused")
    def _validate_focused(self, proposal: dict[str, Any]) -> str:
        name: str = proposal["value"]
        return validate_heads([name], self.payload)[0] if name else ""

    @traitlets.observe("selected")
    def _focus(self, change: dict[str, Any]) -> None:
        """Focus the head that was added; else keep the focus, or move it to another selected head."""
        old = change["old"] if isinstance(change["old"], list) else []
        added = [name for name in self.selected if name not in old]
        remaining = [self.focused] if self.focused in self.selected else self.selected[-1:]
        self.focused = next(iter([*added, *remaining]), "")

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
        """Draw the scores of this method, beginning with the chosen task, and update the details of the head."""
        self._describe()
        if self.scores is None:
            return
        shown = self._scored.of_method(self.method, first=self.task)
        self.payload = payload(shown, title=self._title(*shown))

    def _handle_command(self, content: dict[str, Any]) -> None:
        run_command(self, content)

    def _start(self, job: str, line: str, work: Callable[[Session], str]) -> None:
        """Do `work` in the background, and show the note that it returns."""
        session = self._session
        if session is None:
            raise HeadnbError("this needs the model: use headnb.explore(model, tokenizer, tasks)")
        self._run_in_background(job, line, lambda: work(session))

    def _score(self, session: Session, name: str, together: list[str], n: int) -> str:
        task, method = session.task(name, n), together[0]
        self._redraw.reset()
        results = session.score(task, together, lambda progress: self._show_progress(name, method, progress))
        for other in together[1:]:
            self._scored.add(name, other, results[other], task)
        scores = results[method]
        self._add_scores(name, method, scores, task)
        done = scores.sizes["sample"]
        return "" if scores.attrs["complete"] else f"stopped: {done} of {len(task)} samples are scored"

    def _add_scores(self, name: str, method: str, scores: xr.Dataset, task: Task | None = None) -> None:
        self._scored.add(name, method, scores, task)
        if (self.task, self.method) == (name, method):
            self._show_results()
        with self.hold_trait_notifications():  # a change of the task or method calls `_show_results`
            self.task, self.method = name, method

    def _show_progress(self, name: str, method: str, progress: Progress) -> None:
        if not self._redraw.due:
            return
        with self._redraw.drawing():
            self._set_status(line=progress_text(progress), done=progress.done, total=progress.total)
            if progress.done:
                results = progress.scores()
                self.payload = payload({name: pattern(results[method])}, title=self._title(name))

    def _attend(self, session: Session, task: Task, head: str, place: int) -> str:
        found = session.attention(task, head, place)
        self.attention = {**to_message(found), "task": task.name}
        return ""

    def _ablate(
        self,
        session: Session,
        load: Callable[[Session, str], Task],
        heads: list[str],
        factor: float,
        tasks: list[str],
        controls: int,
    ) -> str:
        view = AblationView(session, heads, factor, self._set_status)
        self.ablations, self.ablation = view.results, view.message
        for name in tasks:
            view.add_losses(name, load(session, name), controls)
            self.ablation = view.message
        first = load(session, tasks[0])
        view.add_generation(first, self._viewed_sample(first))
        self.ablation = view.message
        return ""

    def _viewed_sample(self, task: Task) -> int:
        """Index of the sample in the attention view if it belongs to the task; else 0."""
        names = [str(key) for key in task.ids]
        sample = self.attention.get("sample")
        return names.index(sample) if self.attention.get("task") == task.name and sample in names else 0

    def _task_loader(self) -> Callable[[Session, str], Task]:
        """Function that gives a task's samples scored by the method chosen now, so that all views show the same
        samples; else `samples` samples of the task.
        """
        method, n = self.method, self.samples
        return lambda session, name: self._scored.samples.get((name, method)) or session.task(name, n)

    def _open_session(
        self,
        model: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        seed: int,
        options: dict[str, Any],
    ) -> Session | None:
        if model is None:
            if options:
                raise HeadnbError(
                    f"{', '.join(options)}: only with a model; an explorer of results alone has no options"
                )
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
        """Name of the model, and of the task if there is only one; several tasks are titles of their own grids."""
        return " · ".join(filter(None, (self._name, tasks[0] if len(tasks) == 1 else "")))

    @property
    def _name(self) -> str:
        return self._session.name if self._session is not None else ""


def _has_one_score_per_sample(results: xr.Dataset) -> bool:
    """Whether these are scores of samples, whose heads have details; not roles, a comparison or several steps."""
    return "score" in results and set(results["score"].dims) == {"sample", "layer", "head"}


@check_arguments
def explore(
    model: PreTrainedModel | str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    tasks: object = None,
    *,
    samples: int = 32,
    method: str | Sequence[str] = "activation",
    seed: int = 0,
    batch_tokens: int = 2048,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    loss: LossName = "sample-mean",
) -> Explorer:
    """Create a widget to score tasks, inspect heads and ablate them; it is displayed as a cell's last value.

    Args:
        model: as for `score_heads`, or an id or path for `load_model`.
        tokenizer: the model's tokenizer. None: the one that `load_model` loads; without it samples must be encoded.
        tasks: names, files or `Task` objects, or a mapping from names to anything that `load_task` accepts; None:
            all registered tasks.
        samples: initial number of samples of each task; it can be changed in the widget.
        method: one of `headnb.methods()`; or a list of them: every run scores all of them in one pass, and the first
            one is shown.
        seed: seed of the random subset of samples and of the processing order.
        batch_tokens: as for `score_heads`; the smaller default updates the grid more often.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        loss: as for `score_heads`.

    Raises:
        HeadnbError: the model, a task or an argument is not valid.
    """
    if samples < 1 or batch_tokens < 1:
        raise HeadnbError(f"samples and batch_tokens must be at least 1, not {min(samples, batch_tokens)}")
    if isinstance(model, str):
        from headnb.models.loading import load_model  # noqa: PLC0415

        model, own = load_model(model)
        tokenizer = own if tokenizer is None else tokenizer
    from headnb.scoring.registry import find_method, find_methods  # noqa: PLC0415

    options: dict[str, Any] = {
        "batch_tokens": batch_tokens,
        "max_length": max_length,
        "encoding": encoding,
        "loss": loss,
    }
    explorer = Explorer(model, tokenizer, TaskSources(tasks), seed=seed, **options)
    chosen = [find_method(one.name, of_samples=True).name for one in find_methods(method)]
    explorer.method, explorer.methods = chosen[0], chosen[1:] and chosen
    explorer.samples = samples
    return explorer
