"""Changes of a grid widget by the browser: only valid selections, and never an exception."""

from __future__ import annotations

import pytest
from headnb.explorer.grid_widget import HeadGridWidget

import grids

REFUSED = [
    {"selected": 3},
    {"selected": [None]},
    {"selected": ["L99H0"]},
    {"selected": ["<img src=x>"] * 10**4},
    {"payload": 3},
    {"payload": {"version": 1, "panels": 5}},
    {"payload": [[0.5] * 9] * 30},
    {"selected": ["L1H1", "L99H0"], "payload": None},
    {"_esm": "window.ran = 1"},
    {"_css": "@import 'https://example.org'"},
    {"_view_module": "other", "layout": "x", "tooltip": 3, "unknown": {"__proto__": 1}},
    {},
    [],
    "selected",
    3,
    None,
]


def send_state(widget, state):
    widget.set_state(state)


def send_message(widget, state):
    widget._handle_custom_msg({"changes": state}, [])


@pytest.mark.parametrize("send", [send_state, send_message])
@pytest.mark.parametrize("state", REFUSED, ids=lambda state: str(state)[:40])
def test_a_page_changes_nothing_but_the_selection(state, send, monkeypatch):
    widget = HeadGridWidget(grids.grid(), selected=["L0H0"])
    sent = []
    monkeypatch.setattr(widget, "send_state", lambda key=None: sent.append(key))
    before = widget.get_state()
    send(widget, state)
    after = widget.get_state()
    assert len(after.pop("problem")) < 400  # the error that the grid shows
    assert {**after, "problem": ""} == before
    refused = isinstance(state, dict) and "selected" in state
    assert [names for names in sent if names != "problem"] == ([["selected"]] if refused else [])
    send(widget, {"selected": ["L1H2", "L0H1"]})
    assert widget.selected == ["L0H1", "L1H2"]


def test_a_change_that_comes_in_both_ways_is_one_change_and_is_not_sent_back(monkeypatch):
    widget = HeadGridWidget(grids.grid())
    calls, sent = [], []
    widget.on_select(calls.append)
    monkeypatch.setattr(widget, "send_state", lambda key=None: sent.append(key))
    monkeypatch.setattr(widget, "_send", lambda message, buffers=None: sent.append(message))
    for names in (["L0H1"], ["L0H1", "L1H2"]):
        send_message(widget, {"selected": names})
    send_state(widget, {"selected": ["L0H1", "L1H2"]})
    assert calls == [["L0H1"], ["L0H1", "L1H2"]]
    assert [message for message in sent if isinstance(message, dict) and message["method"] == "update"] == []
    assert "selected" not in sent


def test_unknown_messages_are_ignored():
    widget = HeadGridWidget(grids.grid())
    for content in (None, 3, "x", [[]], {"do": "run"}, {"__proto__": {}}):
        widget._handle_custom_msg(content, [])
    assert widget.selected == []
