"""Changes of the explorer's traits by the browser: validated, rejected with a message, never an exception."""

from __future__ import annotations

import pytest
from headnb.display.payload import payload
from headnb.explorer.explorer import explore
from headnb.explorer.session import EMPTY_MESSAGE

from synthetic_results import random_pattern
from tiny import tiny_model, tiny_tokenizer

SAMPLES = [(f"What is {a} + {b}? ", f"The answer is {a + b}.") for a in range(3) for b in range(3)]


@pytest.fixture
def explorer():
    made = explore(tiny_model(), tiny_tokenizer(), {"sums": SAMPLES})
    yield made
    made.close()
    assert made.wait(300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"selected": ["L0H1", "L7H0"]}, "unknown head 'L7H0'"),
        ({"selected": 3}, "expected a list"),
        ({"focused": "L7H0"}, "unknown head 'L7H0'"),
        ({"samples": -1}, "should not be less than 1"),
    ],
)
def test_change_in_the_browser_that_is_refused_is_a_message_and_taken_back(explorer, change, message, monkeypatch):
    explorer.selected = ["L0H1"]
    sent = []
    monkeypatch.setattr(explorer, "send_state", lambda key=None: sent.append(key))
    (name,) = change
    before = getattr(explorer, name)
    explorer.set_state(change)
    assert message in explorer.status["error"]
    assert getattr(explorer, name) == before
    assert [name] in sent
    explorer.set_state({"selected": ["L1H2"]})
    assert explorer.selected == ["L1H2"]


def test_browser_cannot_write_what_only_python_knows(explorer):
    before = explorer.status, explorer.payload
    explorer.set_state({"status": {"state": "running"}, "payload": 3})
    assert (explorer.status, explorer.payload) == before


def test_error_in_describing_a_head_is_a_message(explorer, monkeypatch):
    explorer.run()
    assert explorer.wait(300)
    monkeypatch.setattr("headnb.explorer.explorer.head_detail", lambda *_: 1 / 0)
    explorer.set_state({"selected": ["L1H2"]})
    assert explorer.status["error"] == "ZeroDivisionError: division by zero"


def test_before_the_first_run_there_is_the_models_empty_grid(explorer):
    empty = explorer.payload
    assert (empty["layers"], empty["heads"], empty["kv_heads"]) == (2, 4, 2)
    assert empty["panels"][0]["values"] == [[0.0] * 4] * 2
    assert empty["progress"] == {"done": 0, "total": 0, "message": EMPTY_MESSAGE}
    explorer.selected = ["L1H3"]
    assert explorer.head == {}


def test_smaller_payload_drops_heads_that_it_does_not_have(explorer):
    explorer.selected = ["L0H1", "L1H2"]
    explorer.payload = payload(random_pattern(1, 2))
    assert explorer.selected == ["L0H1"]
    assert explorer.focused == "L0H1"
