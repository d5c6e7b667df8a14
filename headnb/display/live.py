"""Live display of a head grid that is updated in place while its scores are computed.

    with LiveGrid("smollm2-135m · gsm8k") as live:
        scores = headnb.score_heads(model, tokenizer, task, on_progress=live.update)

In a notebook an update carries the payload for JupyterLab's renderer, and a progress bar for other front ends. At the
end the full forms of the result replace them. Updates are limited to two per second and 300 kB per second, since
Jupyter stops a cell's output at 1 MB/s, and drawing takes at most a fifth of the time. Outside a notebook a tqdm bar is
shown on stderr, and the result is printed as text.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import xarray as xr

from headnb.display import grid_text
from headnb.display.grid import HeadGrid
from headnb.display.notebook_kernel import in_notebook
from headnb.display.packing import pack
from headnb.display.payload import MIME_TYPE, payload
from headnb.display.templating import render
from headnb.errors import HeadnbError, first_line, one_line
from headnb.stats.patterns import pattern
from headnb.stats.rounding import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from headnb.display.payload_types import Panel, Payload

UPDATES_PER_SECOND = 2
BYTES_PER_SECOND = 300_000
_DRAWING_SHARE = 0.2
_BYTES_A_VALUE = 4  # of compact values, including the other fields of their panels
_MATRICES_A_STEP = 3  # of a study: its levels, changes and significance marks


class Progress(Protocol):
    """Progress of scoring: the attributes of `headnb.scoring.progress.Progress` that a display needs."""

    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def samples_per_second(self) -> float: ...
    @property
    def seconds_left(self) -> float | None: ...
    @property
    def scores(self) -> Callable[[], xr.Dataset | Mapping[str, xr.Dataset]]: ...


@dataclass(frozen=True)
class LiveState:
    """Progress of a computation and its partial result."""

    done: int
    total: int
    unit: str
    """What `done` and `total` count: samples or steps."""
    line: str
    """The progress as one line of text."""
    message: str
    """Text that the picture shows next to the count."""
    sketch: Callable[[], object]
    """Partial result to draw, small enough for two updates per second; returns None if there is none yet."""
    result: Callable[[], object]
    """Result to draw if the computation ends here."""
    note: str = ""
    """Text to keep as a note of the final result."""


class LiveGrid:
    """A progress display that becomes the result. Use it as a context manager and pass `update` as `on_progress`.

    Leaving the context draws the final result, unless `finish` has drawn it. After an interrupt or an error it draws
    the partial result with a note. After a HeadnbError before the first sample it removes the display. An error while
    a partial result is drawn does not stop the computation.
    """

    def __init__(self, title: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self._clock = clock
        self._output: _Output = _NotebookOutput() if in_notebook() else _TerminalOutput()
        self._next = float("-inf")
        self._last: LiveState | None = None
        self._open = True

    def __enter__(self) -> Self:
        self.message("starting")
        return self

    def message(self, words: str) -> None:
        """Show a message before there is anything to count, such as while the model is loaded."""
        self._output.show_message(self.title, words)

    def update(self, progress: Progress) -> None:
        """Show the progress of scoring; skipped if the last update was too recent."""
        self.show(
            LiveState(
                progress.done,
                progress.total,
                progress.unit,
                progress_text(progress),
                progress.message,
                sketch=lambda: patterns_of(progress.scores()) if progress.done else None,
                result=progress.scores,
                note=progress.message,
            )
        )

    def show(self, state: LiveState) -> None:
        """Show a state; skipped if the last update was too recent."""
        self._last = state
        started = self._clock()
        if not self._open or started < self._next:
            return
        size = self._output.draw(self.title, state)
        ended = self._clock()
        pause = max(1 / UPDATES_PER_SECOND, size / BYTES_PER_SECOND, (ended - started) / _DRAWING_SHARE)
        self._next = started + pause

    def finish(self, result: object, *, note: str = "") -> HeadGrid:
        """Replace the display by the full forms of the result; `result` is anything that `HeadGrid.of` accepts.

        An error or an interrupt while the result is drawn leaves a one-line message and propagates to the caller.
        """
        with self.drawing():
            return self._finish(result, note)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Context in which a finished result is drawn: an error shows a one-line message, and propagates."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if self._open:
                reason = "" if isinstance(error, KeyboardInterrupt) else f": {first_line(error)}"
                self._close(f"finished, but not drawn{reason}")
            raise

    def _finish(self, result: object, note: str) -> HeadGrid:
        grid = HeadGrid.of(result, title="" if isinstance(result, (dict, HeadGrid)) else self.title)
        last_note = self._last.note if self._last is not None else ""
        if notes := [words for words in (note, last_note) if words]:
            panels = [*grid.payload["panels"]]
            front = _newest_panel(panels)
            panels[front] = {**panels[front], "notes": [*notes, *panels[front]["notes"]]}
            grid = HeadGrid({**grid.payload, "panels": panels})
        self._output.end(grid)
        self._open = False
        return grid

    def discard(self) -> None:
        """Remove the display; the user sees the error message instead."""
        self._open = False
        self._output.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        if error is None:
            if self._last is not None and self._last.done:
                self.finish(self._last.result())
            else:
                self._close("nothing was scored")
            return
        if isinstance(error, HeadnbError) and not (self._last is not None and self._last.done):
            self.discard()
            return
        reason = "Interrupted" if isinstance(error, KeyboardInterrupt) else f"Stopped by {type(error).__name__}"
        try:
            self._finish_partial(error, reason)
        except (Exception, KeyboardInterrupt):  # noqa: BLE001  it must not hide the error that stopped the computation
            self._close(reason)

    def _finish_partial(self, error: BaseException, reason: str) -> None:
        """Draw the scores that `error` carries, or else the scores of the last update."""
        scores = getattr(error, "scores", None)
        if scores is None and self._last is not None and self._last.done:
            scores = self._last.result()
        if scores is None or first_result(scores).sizes.get("sample") == 0:
            self._close(f"{reason} before the first sample")
        else:
            self._finish(scores, "" if _notes_the_stop(error, scores) else f"{reason}.")

    def _close(self, words: str) -> None:
        self._open = False
        self._output.close(self.title, words)


_Study = TypeVar("_Study", xr.DataArray, xr.Dataset)


def patterns_of(scores: xr.Dataset | Mapping[str, xr.Dataset]) -> xr.DataArray | dict[str, xr.DataArray]:
    """The pattern of scores, or that of each method."""
    if isinstance(scores, xr.Dataset):
        return pattern(scores)
    return {method: pattern(result) for method, result in scores.items()}


def first_result(scores: Any) -> xr.Dataset | xr.DataArray:
    """The scores, or those of the first of several methods: all have the same samples."""
    return scores if isinstance(scores, xr.Dataset | xr.DataArray) else next(iter(scores.values()))


def _notes_the_stop(error: BaseException, scores: Any) -> bool:
    """Whether the grid of an interrupted result says itself how much of it is there."""
    return isinstance(error, KeyboardInterrupt) and not first_result(scores).attrs.get("complete", 1)


def thin_steps(study: _Study) -> _Study:
    """Select every 2nd, 4th, 8th, ... step and the newest step, as many as the size limit of an update allows."""
    levels, matrices = (study["level"], _MATRICES_A_STEP) if isinstance(study, xr.Dataset) else (study, 1)
    values = matrices * levels.isel(step=0).size
    room = max(BYTES_PER_SECOND // (UPDATES_PER_SECOND * _BYTES_A_VALUE), 2 * values)
    steps: int = study.sizes["step"]
    stride: int = 1
    while (steps / stride + 1) * values > room and stride < steps:
        stride *= 2
    return study.isel(step=sorted({*range(0, steps, stride), steps - 1}))


def suppress_redisplay(result: object) -> None:
    """Keep IPython from drawing `result` a second time if it is the running cell's last value.

    A magic that draws and returns the same result calls this. `_` and `Out` still get the object; other values are
    drawn as usual. IPython restores its own display hook at the end of the cell.
    """
    inherited = sys.displayhook

    def hook(value: object) -> None:
        if value is not result:
            inherited(value)
            return
        for remember in ("update_user_ns", "fill_exec_result"):
            getattr(inherited, remember, lambda _: None)(value)

    for name in ("update_user_ns", "fill_exec_result"):
        setattr(hook, name, getattr(inherited, name, lambda _: None))
    sys.displayhook = hook


class _Output(Protocol):
    """Destination of a live grid: a notebook or a terminal."""

    def show_message(self, title: str, words: str) -> None: ...

    def draw(self, title: str, state: LiveState) -> int:
        """Show a state; returns the number of bytes sent."""

    def end(self, grid: HeadGrid) -> None: ...

    def close(self, title: str, words: str) -> None: ...

    def clear(self) -> None: ...


class _NotebookOutput:
    """One display of the running cell, updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show_message(self, title: str, words: str) -> None:
        line = _joined(title, words)
        self._publish({"text/plain": line, "text/html": _progress_html("", line)})

    def draw(self, title: str, state: LiveState) -> int:
        bundle: dict[str, Any] = {
            "text/plain": _joined(title, state.line),
            "text/html": _progress_html(title, state.line, state),
        }
        if (partial := _partial_payload(title, state)) is not None:
            bundle[MIME_TYPE] = pack(partial)
        self._publish(bundle)
        return len(json.dumps(bundle))

    def end(self, grid: HeadGrid) -> None:
        self._publish(grid._repr_mimebundle_())

    close = show_message

    def clear(self) -> None:
        if self._handle is not None:
            self._publish({"text/plain": "", "text/html": ""})

    def _publish(self, bundle: dict[str, Any]) -> None:
        from IPython.display import display  # noqa: PLC0415

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


class _TerminalOutput:
    """A tqdm bar on stderr, and the result as text on stdout."""

    def __init__(self) -> None:
        self._bar: Any = None

    def show_message(self, title: str, words: str) -> None:
        self._tqdm_bar(title).set_postfix_str(one_line(words))

    def draw(self, title: str, state: LiveState) -> int:
        bar = self._tqdm_bar(title)
        bar.total, bar.unit = state.total, f" {state.unit}"
        bar.set_postfix_str(one_line(state.message), refresh=False)
        bar.update(state.done - bar.n)
        bar.refresh()
        return 0

    def end(self, grid: HeadGrid) -> None:
        self._close_bar()
        print(grid)  # noqa: T201  the result of a command in a terminal

    def close(self, title: str, words: str) -> None:
        self._close_bar()
        print(_joined(title, words), file=sys.stderr)  # noqa: T201

    def clear(self) -> None:
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _tqdm_bar(self, title: str) -> Any:
        from tqdm import tqdm  # noqa: PLC0415

        if self._bar is None:
            self._bar = tqdm(
                desc=one_line(title) or None, unit=" samples", file=sys.stderr, dynamic_ncols=True, leave=False
            )
        return self._bar


def _newest_panel(panels: list[Panel]) -> int:
    """Index of the first panel at the newest step, or of the first panel without steps."""
    steps = [panel.get("step", 0.0) for panel in panels]
    return steps.index(max(steps))


def _joined(*parts: str) -> str:
    return " · ".join(map(one_line, filter(None, parts)))


def progress_text(progress: Progress) -> str:
    """`12 of 32 samples · 3.1 samples/s · 6 s left`."""
    parts = [f"{progress.done} of {progress.total} {progress.unit}"]
    if progress.done and progress.samples_per_second > 0:
        parts.append(f"{grid_text.format_number(progress.samples_per_second, 2)} {progress.unit}/s")
    if progress.seconds_left is not None and progress.done < progress.total:
        parts.append(f"{format_duration(progress.seconds_left)} left")
    return " · ".join([*parts, *filter(None, (progress.message,))])


def _partial_payload(title: str, state: LiveState) -> Payload | None:
    """The payload of the partial result, or None if there is none or it cannot be drawn."""
    try:
        sketch = state.sketch()
        counted = {"done": state.done, "total": state.total, "unit": state.unit, "message": state.message}
        return None if sketch is None else payload(sketch, title=title, progress=counted)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  a faulty picture must not stop the computation; the final drawing raises
        return None


def _progress_html(title: str, line: str, state: LiveState | None = None) -> str:
    return render("progress.html", title=title, line=line, moment=state)
