# ruff: noqa: F811  a test's argument is the fixture of that name
"""`%headablate` in a real IPython shell, and the card of its results."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from headnb.explorer.ablation_card import AblationCard
from headnb.scoring.ablation import Generation, ablate, generate_both

from ipython_shells import PAIRS, completions, error_of, raising, run, shell  # noqa: F401  a fixture
from tiny import tiny_model, tiny_tokenizer

HEADS = "L0H1,L1H3"


def test_returns_the_losses_of_the_same_call_in_python_and_draws_once(shell):
    result, captured = run(shell, f"%headablate model pairs --heads {HEADS} --factor 0.5 --controls 2 --into kept")
    expected = ablate(tiny_model(), tiny_tokenizer(), PAIRS, HEADS, 0.5, controls=2)
    for name in expected:
        np.testing.assert_array_equal(result.result[name], expected[name])
    xr.testing.assert_identical(shell.user_ns["kept"], result.result)
    drawn = [output.data for output in captured.outputs if "text/html" in output.data]
    cards = [data for data in drawn if "scaled by 0.5" in data["text/html"]]
    assert len(cards) == 1
    made = generate_both(tiny_model(), tiny_tokenizer(), PAIRS, HEADS, 0.5)
    assert f"before: {made.before!r}" in cards[0]["text/plain"]
    assert f"after: {made.after!r}" in cards[0]["text/plain"]


def test_texts_are_generated_from_prompts_in_the_chosen_encoding(shell):
    shell.push({"pairs": [("What is 2 + 3? The", "re are 5.")]})  # tokenized together, " There" is one token
    _, captured = run(shell, f"%headablate model pairs --heads {HEADS} --encoding trl")
    shown = "".join(output.data.get("text/plain", "") for output in captured.outputs)
    assert "What is 2 + 3?" in shown
    assert "What is 2 + 3? The" not in shown


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%headablate model pairs", "--heads"),
        ("%headablate model pairs --heads L7H1", "there is no L7H1: the model has layers L0 to L1"),
        ("%headablate model pairs --heads 3.10", "'3.10' is not a head"),
        ("%headablate model pairs --heads L0H1 --factr 2", "did you mean --factor"),
        ("%headablate model pairs --heads L0H1 --factor much", "--factor"),
        ("%headablate model pairs --heads L0H0,L0H1,L0H2 --controls 1", "not enough heads left"),
    ],
)
def test_an_error_is_one_line(shell, line, message):
    assert message in error_of(shell, line)


def test_a_sample_without_a_prompt_still_gives_losses(shell):
    shell.push({"pairs": [("", "The answer is 42."), ("", "3 apples")]})
    result, _ = run(shell, "%headablate model pairs --heads L0H1")
    assert result.result.sizes["sample"] == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "interrupted; the losses, without the generated texts, are in kept"),
        (RuntimeError("no memory\nmore"), "no texts before and after: no memory"),
    ],
)
def test_losses_are_kept_and_drawn_when_writing_stops(shell, monkeypatch, error, said):
    monkeypatch.setattr("headnb.scoring.ablation.generate_both", raising(error))
    _, captured = run(shell, f"%headablate model pairs --heads {HEADS} --into kept")
    xr.testing.assert_equal(shell.user_ns["kept"], ablate(tiny_model(), tiny_tokenizer(), PAIRS, HEADS))
    assert shell.user_ns["kept"] is shell.user_ns["_"]
    assert said in captured.stderr
    cards = [output.data["text/plain"] for output in captured.outputs if "ablated" in output.data["text/plain"]]
    assert len(cards) == 1
    assert "before:" not in cards[0]


def test_options_and_tasks_are_completed(shell):
    assert "--factor" in completions(shell, "%headablate model pairs --fa")
    assert "pairs" in completions(shell, "%headablate model pa")


def made_up(change, **attrs):
    change = np.asarray(change, dtype=float)
    return xr.Dataset(
        {
            "loss_before": ("sample", np.full(len(change), 2.0)),
            "loss_after": ("sample", 2.0 + change),
            "change": ("sample", change),
            "mean_change": change.mean(),
            "low": 0.25,
            "high": 0.75,
            "control_change": ("control", [0.1, -0.3]),
        },
        attrs={
            "model": "<b>m",
            "task": "t",
            "heads": "L0H1,L1H3",
            "factor": 0.0,
            "samples": 2,
            "level": 0.95,
        }
        | attrs,
    )


def test_card_says_the_numbers_and_escapes_what_the_model_writes():
    card = AblationCard(made_up([0.4, 0.6]), Generation(0, "2 <i>", "<script>x", "&"))
    assert card.lines == [
        "loss 2.00 → 2.50 nats, mean of 2 samples",
        "change +0.500 nats (95% interval +0.250 to +0.750)",
        "random heads of the same layers: −0.100 nats (−0.300 to +0.100 in 2 draws)",
    ]
    html = card._repr_html_()
    assert "<script" not in html
    assert "<i>" not in html
    assert "<b>&lt;b&gt;m · t · L0H1, L1H3 ablated</b>" in html
    assert repr(card).splitlines()[-2:] == ["before: '<script>x'", "after: '&'"]


def test_card_of_one_sample_claims_no_interval():
    result = made_up([0.4], samples=1).assign(low=np.nan, high=np.nan).isel(control=slice(0))
    assert AblationCard(result).lines[1:] == ["change +0.400 nats"]
