"""Live grid: rate and size of updates, one display that becomes the result, and messages after an interrupt."""

from __future__ import annotations

import itertools
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import headnb
import jsonschema
import nbformat
import numpy as np
import pytest
import xarray as xr
from headnb.display import live
from headnb.display.grid import HeadGrid
from headnb.display.live import LiveGrid, LiveState, suppress_redisplay, thin_steps
from headnb.display.payload import MIME_TYPE
from headnb.scoring.progress import Progress, ScoringInterrupted
from nbclient import NotebookClient

from scoring_progress import progress
from synthetic_results import SCHEMA, scores

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Display:
    """Replacement of the notebook's display that records each published bundle and its time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, dict[str, Any]]] = []

    def publish(self, bundle: dict[str, Any]) -> None:
        self.sent.append((self.clock.now, bundle))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Display:
    """A replaced notebook display that records all bundles."""
    display = Display(clock)
    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(live._NotebookOutput, "_publish", lambda _, bundle: display.publish(bundle))
    return display


@pytest.mark.parametrize("shape", [(3, 4), (126, 128)])
def test_updates_are_at_most_two_a_second_and_300_kb_a_second(
    clock: Clock, shown: Display, shape: tuple[int, int]
) -> None:
    with LiveGrid("m · t", clock=clock) as grid:
        first = len(shown.sent)
        for step in range(1, 31):
            clock.now += 0.1
            grid.update(progress(step, layers=shape[0], heads=shape[1]))
        updates = shown.sent[first:]
    assert len(updates) >= 2
    for (then, bundle), (now, _) in itertools.pairwise(updates):
        assert now - then >= 0.5 - 1e-9
        assert now - then >= len(json.dumps(bundle)) / 300_000 - 1e-9


def test_an_update_has_the_payload_and_small_forms(clock: Clock, shown: Display) -> None:
    with LiveGrid("smollm2-135m · gsm8k", clock=clock) as grid:
        grid.update(progress(12, message="memory ran out"))
        _, bundle = shown.sent[-1]
    jsonschema.Draft202012Validator(SCHEMA).validate(bundle[MIME_TYPE])
    assert bundle[MIME_TYPE]["progress"] == {"done": 12, "total": 32, "unit": "samples", "message": "memory ran out"}
    assert bundle["text/plain"] == (
        "smollm2-135m · gsm8k · 12 of 32 samples · 3.0 samples/s · 6 s left · memory ran out"
    )
    assert '<progress aria-label="smollm2-135m · gsm8k" max="32" value="12"' in bundle["text/html"]
    assert set(bundle) == {MIME_TYPE, "text/html", "text/plain"}  # pictures come once, at the end
    assert "<svg" not in bundle["text/html"]


def test_a_large_grids_updates_are_packed_and_have_no_picture(clock: Clock, shown: Display) -> None:
    with LiveGrid("m", clock=clock) as grid:
        grid.update(progress(4, layers=126, heads=128))
        _, bundle = shown.sent[-1]
    assert "<img" not in bundle["text/html"]
    assert len(bundle["text/html"]) < 1000
    assert isinstance(bundle[MIME_TYPE]["panels"][0]["values"], dict)
    assert len(json.dumps(bundle)) < 50_000


def test_before_the_first_sample_there_is_only_a_bar(clock: Clock, shown: Display) -> None:
    with LiveGrid("m", clock=clock) as grid:
        grid.update(progress(0, seconds_left=None))
        assert set(shown.sent[-1][1]) == {"text/plain", "text/html"}


def test_a_partial_result_that_cannot_be_drawn_stops_nothing(clock: Clock, shown: Display) -> None:
    def broken() -> Any:
        raise ValueError("no scores")

    with LiveGrid("m", clock=clock) as grid:
        grid.update(Progress(3, 32, 1.0, 3.0, 6.0, 10, "", broken))
        assert MIME_TYPE not in shown.sent[-1][1]
        grid.finish(scores(32))
    assert shown.sent[-1][1][MIME_TYPE]["panels"][0]["samples"] == 32


def test_the_end_is_the_full_bundle_without_progress(clock: Clock, shown: Display) -> None:
    with LiveGrid("m · t", clock=clock) as grid:
        grid.update(progress(12, message="memory ran out: batches are smaller"))
        result = grid.finish(scores(32))
    assert shown.sent[-1][1] == result._repr_mimebundle_()
    assert "progress" not in result.payload
    assert result.payload["title"] == "m · t"
    assert result.payload["panels"][0]["notes"] == ["memory ran out: batches are smaller"]


def test_leaving_without_finish_draws_the_last_scores(clock: Clock, shown: Display) -> None:
    with LiveGrid("m · t", clock=clock) as grid:
        grid.update(progress(10))
        grid.update(progress(32))  # too early to be shown, but it is the result
    assert shown.sent[-1][1][MIME_TYPE]["panels"][0]["samples"] == 32


def stopped(error: BaseException, done: int) -> None:
    with LiveGrid("m · t") as grid:
        grid.update(progress(done))
        raise error


def test_an_interrupt_leaves_the_partial_result_with_a_note(shown: Display) -> None:
    partial = scores(12, complete=0, samples_requested=32)
    with pytest.raises(ScoringInterrupted):
        stopped(ScoringInterrupted(partial), done=8)
    panel = shown.sent[-1][1][MIME_TYPE]["panels"][0]
    assert panel["samples"] == 12
    assert panel["notes"] == ["Stopped early: 12 of 32 samples are scored."]
    assert "Stopped early: 12 of 32 samples are scored." in shown.sent[-1][1]["text/html"]


def test_a_second_interrupt_while_the_partial_result_is_drawn_loses_no_scores(
    shown: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(HeadGrid, "of", interrupted)
    with pytest.raises(ScoringInterrupted) as caught:
        stopped(ScoringInterrupted(scores(12, complete=0, samples_requested=32)), done=8)
    assert caught.value.scores.sizes["sample"] == 12
    assert shown.sent[-1][1]["text/plain"] == "m · t · Interrupted"


def test_a_result_that_cannot_be_drawn_is_reported_as_finished(shown: Display, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("no ink")

    monkeypatch.setattr(HeadGrid, "of", broken)
    grid = LiveGrid("m · t")
    with pytest.raises(ValueError, match="no ink"):
        grid.finish(scores(32))
    assert shown.sent[-1][1]["text/plain"] == "m · t · finished, but not drawn: no ink"


def test_an_error_leaves_the_scores_of_the_last_update(shown: Display) -> None:
    with pytest.raises(headnb.HeadnbError):
        stopped(headnb.HeadnbError("out of disk"), done=8)
    panel = shown.sent[-1][1][MIME_TYPE]["panels"][0]
    assert (panel["samples"], panel["notes"][0]) == (8, "Stopped by HeadnbError.")


def test_a_stop_before_the_first_sample_leaves_one_line(shown: Display) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped(KeyboardInterrupt(), done=0)
    assert shown.sent[-1][1]["text/plain"] == "m · t · Interrupted before the first sample"


def test_a_study_is_sent_with_all_tasks_and_as_many_steps_as_fit(clock: Clock, shown: Display) -> None:
    values = np.random.default_rng(0).lognormal(-4, 1, (100, 3, 32, 32))
    dims, coords = ("step", "task", "layer", "head"), {"step": np.arange(100), "task": ["a", "b", "c"]}
    study = xr.DataArray(values, dims=dims, coords=coords, attrs={"kind": "level", "units": "nats"})
    with LiveGrid("m", clock=clock) as grid:
        first = len(shown.sent)
        for step in range(1, 100, 7):
            clock.now += 0.25
            sketch = partial(thin_steps, study[:step])
            grid.show(LiveState(step, 99, "steps", "loss 1.2", "loss 1.2", sketch, study[:step].copy))
        updates = shown.sent[first:]
        grid.finish(study)
    for (then, bundle), (now, _) in itertools.pairwise(updates):
        assert now - then >= max(0.5, len(json.dumps(bundle)) / 300_000) - 1e-9
    _, last = updates[-1]
    panels = last[MIME_TYPE]["panels"]
    assert len(json.dumps(last)) < 300_000
    assert {panel["course"] for panel in panels} == {"a", "b", "c"}
    steps = sorted({panel["step"] for panel in panels})
    assert steps[0] == 0
    assert len(steps) > 5
    assert len(shown.sent[-1][1][MIME_TYPE]["panels"]) == 300


def test_titles_are_escaped(clock: Clock, shown: Display) -> None:
    with LiveGrid("<script>alert(1)</script>", clock=clock) as grid:
        grid.update(progress(3, message="<img src=x onerror=alert(1)>"))
        grid.finish(scores(4))
    for _, bundle in shown.sent:
        assert "<script" not in bundle["text/html"]
        assert "<img src=x" not in bundle["text/html"]


def test_in_a_terminal_there_is_a_bar_and_then_the_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    task = [("a b c", "d e"), ("b c", "e f"), ("c", "a"), ("d d", "b b")]
    with LiveGrid("tiny") as grid:
        result = headnb.score_heads(model, tokenizer, task, on_progress=grid.update)
    out, err = capsys.readouterr()
    assert out.startswith("tiny\nactivation level (nats), 2 layers × 4 heads · 2 key/value heads")
    assert "4 samples" in out
    assert "| 0/4 [" in err  # later reports come within half a second
    top = result.heads.top(1).index[0]
    assert f"Top heads: {top} " in out


def test_an_object_that_was_drawn_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(sys, "displayhook", drawn.append)
    first, second = scores(1), scores(1)
    suppress_redisplay(first)
    suppress_redisplay(second)
    for value in (first, second, 3):
        sys.displayhook(value)
    assert drawn == [3]


NOTEBOOK = [
    """
import sys, time
from scoring_progress import progress
from synthetic_results import scores
from headnb.display.live import LiveGrid, LiveState, suppress_redisplay, thin_steps
from headnb.scoring.progress import ScoringInterrupted
""",
    """
with LiveGrid("m · t") as grid:
    for done in (0, 8, 16, 24):
        grid.update(progress(done))
        time.sleep(0.55)
    result = scores(32)
    grid.finish(result)
suppress_redisplay(result)
result
""",
    "assert Out[2] is result and _ is result\nresult.attrs['model']",
    """
try:
    with LiveGrid("m · t") as grid:
        grid.update(progress(8))
        raise ScoringInterrupted(scores(12, complete=0, samples_requested=32))
except KeyboardInterrupt:
    pass
""",
    "result.heads.grid()",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, forked_kernels: None) -> nbformat.NotebookNode:
    """A notebook with live grids, executed by nbclient, like papermill does."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in NOTEBOOK]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    path: Path = tmp_path_factory.mktemp("live") / "executed.ipynb"
    nbformat.write(notebook, path)
    return nbformat.read(path, as_version=4)


def test_in_a_notebook_the_live_display_becomes_the_one_output(executed: nbformat.NotebookNode) -> None:
    (output,) = executed.cells[1].outputs
    assert output.output_type == "display_data"
    assert set(output.data) == {MIME_TYPE, "text/html", "image/png", "text/plain"}
    assert output.data[MIME_TYPE]["panels"][0]["samples"] == 32
    assert "progress" not in output.data[MIME_TYPE]


def test_in_a_notebook_other_values_of_later_cells_are_drawn(executed: nbformat.NotebookNode) -> None:
    (output,) = executed.cells[2].outputs
    assert output.data["text/plain"] == "'smollm2-135m'"


def test_in_a_notebook_an_interrupt_leaves_one_output_with_a_note(executed: nbformat.NotebookNode) -> None:
    (output,) = executed.cells[3].outputs
    assert "Stopped early: 12 of 32 samples are scored." in output.data["text/html"]


def test_in_a_notebook_a_grid_is_a_cells_value(executed: nbformat.NotebookNode) -> None:
    (output,) = executed.cells[4].outputs
    assert output.output_type == "execute_result"
    assert MIME_TYPE in output.data
