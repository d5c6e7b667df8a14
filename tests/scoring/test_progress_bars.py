"""Progress bars of calls without `on_progress`."""

from __future__ import annotations

import io
import re

import headnb
import pytest
from headnb.errors import HeadnbError
from headnb.scoring import progress_bars

from tiny import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"{i} + 1 = ", "completion": str(i + 1)} for i in range(6)]
LOADED = (tiny_model(), tiny_tokenizer())
CALLS = {
    "score_heads": (lambda **more: headnb.score_heads(*LOADED, ROWS, **more), "scoring: 100%", "6/6"),
    "score_tasks": (lambda **more: headnb.score_tasks(*LOADED, {"sums": ROWS}, **more), "scoring sums: 100%", "6/6"),
    "ablate": (lambda **more: headnb.ablate(*LOADED, ROWS, "L0H0", **more), "ablating: 100%", "6/6"),
    "evaluate": (lambda **more: headnb.evaluate(*LOADED, ROWS, **more), "evaluating: 100%", "6/6"),
    "finetune": (
        lambda **more: headnb.finetune(*LOADED, ROWS, steps=2, track=[], **more),
        "training step 2 of 2",
        "1/2",
    ),
}


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(progress_bars, "_is_watched", lambda: True)
    monkeypatch.setattr(progress_bars, "DELAY", 0.0)
    monkeypatch.setattr(progress_bars, "INTERVAL", 0.0)


@pytest.mark.parametrize("name", CALLS)
def test_a_watched_call_shows_a_bar_and_removes_it(name, watched, capsys):
    call, activity, count = CALLS[name]
    call()
    shown = capsys.readouterr().err
    assert activity in shown
    assert count in shown
    assert not shown.split("\r")[-1].strip()


def test_the_cost_of_tracking_is_stated_once_also_with_a_bar(watched, capsys):
    headnb.finetune(*LOADED, ROWS, steps=2, batch_size=2)
    assert capsys.readouterr().out.count("Tracking 6 samples at steps 0, 2") == 1


def test_a_short_call_shows_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress_bars, "_is_watched", lambda: True)
    monkeypatch.setattr(progress_bars, "DELAY", 1000.0)
    CALLS["ablate"][0]()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", CALLS)
def test_a_caller_who_follows_the_progress_gets_no_bar(name, watched, capsys):
    reports = []
    CALLS[name][0](on_progress=lambda *report: reports.append(report))
    assert reports
    assert not capsys.readouterr().err


def test_a_second_task_of_another_size_begins_anew(watched, capsys):
    tasks = {"long": ROWS, "short": ROWS[:2]}
    headnb.score_tasks(*LOADED, tasks)
    shown = capsys.readouterr().err
    assert "scoring long: 100%" in shown
    assert re.search(r"scoring short:   0%\|\s+\| 0/2", shown)
    assert "2/2" in shown
    assert "-" not in shown.replace("\r", "")


def test_an_error_removes_the_bar(watched, capsys):
    with pytest.raises(HeadnbError, match="L99"):
        headnb.ablate(*LOADED, ROWS, "L99H0")
    assert not capsys.readouterr().err.split("\r")[-1].strip()


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [({}, True, True), ({}, False, False), ({"HEADNB_PROGRESS": "0"}, True, False), ({"RANK": "1"}, True, False)],
)
def test_bars_are_for_terminals_and_notebooks(environment, terminal, expected, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert progress_bars._is_watched() is expected


def test_a_stream_in_place_of_stderr_may_lack_methods(monkeypatch):
    class Tee:
        def write(self, text: str) -> int:
            return len(text)

    closed = io.StringIO()
    closed.close()
    for stream in (Tee(), closed, None):
        monkeypatch.setattr("sys.stderr", stream)
        assert not progress_bars._is_watched()
