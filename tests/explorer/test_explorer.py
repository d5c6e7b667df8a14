"""Explorer driven by messages as from a browser: its results, errors, and Stop at any moment."""

from __future__ import annotations

import threading
import time

import headnb
import numpy as np
import pytest
import torch
import xarray as xr
from headnb.errors import HeadnbError
from headnb.explorer.explorer import Explorer, explore
from headnb.explorer.head_detail import histogram
from headnb.explorer.task_sources import TaskSources
from headnb.models.locks import model_lock
from headnb.scoring.ablation import ablate, generate_both
from headnb.scoring.attention import head_attention
from headnb.scoring.run import score_heads

from model_state import state
from tiny import framing_tokenizer, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SUMS = [(f"What is {a} + {b}? ", f"The answer is {a + b}.") for a in range(6) for b in range(5)]
WORDS = [("How many apples? ", "There are 3."), ("def square(n):\n", "    return n * n"), ("One, two,", " three")]
SECONDS = 300  # timeout of jobs that take milliseconds on a quiet machine


@pytest.fixture
def explorer():
    made = explore(tiny_model(), TOKENIZER, {"sums": SUMS, "words": WORDS}, samples=64, batch_tokens=64)
    yield made
    made.close()
    assert made.wait(SECONDS)


def send(explorer, **content):
    """Send a message as the browser does."""
    explorer._handle_custom_msg(content, [])


def done(explorer):
    assert explorer.wait(SECONDS)
    assert explorer.status["state"] == "idle"
    return explorer.status


class Gate:
    """Blocks a model's forward passes after the first `free` ones until `opened` is set."""

    def __init__(self, model, free=0):
        self.reached, self.opened, self.left = threading.Event(), threading.Event(), free
        self.hook = model.model.layers[0].register_forward_pre_hook(self._hold)

    def _hold(self, *_):
        self.left -= 1
        if self.left < 0:
            self.reached.set()
            assert self.opened.wait(SECONDS)


def test_run_scores_what_score_heads_scores(explorer):
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]["state"]), "status")
    send(explorer, do="run")
    assert done(explorer)["error"] == ""
    assert seen[0] == "running"
    assert seen[-1] == "idle"
    expected = score_heads(tiny_model(), TOKENIZER, SUMS)
    xr.testing.assert_allclose(explorer.scores, expected, rtol=1e-4, atol=1e-6)
    values = np.array(explorer.payload["panels"][0]["values"])
    np.testing.assert_allclose(values, expected.heads.pattern(), rtol=1e-3)
    assert explorer.scores is explorer.results["sums", "activation"]


def test_several_methods_are_scored_in_one_run_and_shown_when_chosen():
    made = explore(tiny_model(), TOKENIZER, {"words": WORDS}, method=["activation", "entropy"])
    try:
        send(made, do="run")
        done(made)
        assert made.payload["quantity"] == "activation level"
        assert set(made.results) == {("words", "activation"), ("words", "entropy")}
        for method in ("activation", "entropy"):
            expected = score_heads(tiny_model(), TOKENIZER, WORDS, method=method, batch_tokens=2048)
            np.testing.assert_array_equal(made.results["words", method].score, expected.score)
        made.method = "entropy"
        assert (made.payload["quantity"], made.payload["units"]) == ("entropy", "nats of attention")
    finally:
        made.close()
        assert made.wait(SECONDS)


def test_second_task_stands_beside_the_first_with_its_own_samples(explorer):
    send(explorer, do="run")
    done(explorer)
    explorer.task = "words"
    send(explorer, do="run")
    done(explorer)
    assert [panel["title"] for panel in explorer.payload["panels"]] == ["words", "sums"]
    assert [panel["samples"] for panel in explorer.payload["panels"]] == [3, 30]
    explorer.task = "sums"
    assert [panel["title"] for panel in explorer.payload["panels"]] == ["sums", "words"]


def test_grid_fills_while_it_runs(explorer, monkeypatch):
    for name in ("MIN_PAUSE", "PAUSE_PER_DRAWING"):
        monkeypatch.setattr(f"headnb.explorer.redraw_timer.{name}", 0.0)
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), "payload")
    send(explorer, do="run")
    done(explorer)
    filled = [picture["panels"][0]["samples"] for picture in seen]
    assert len(filled) > 2
    assert filled == sorted(filled)
    assert filled[0] < 30 == filled[-1]


def test_stop_is_heard_inside_a_batch_and_keeps_what_is_scored(explorer):
    gate = Gate(explorer._session.model, free=6)
    send(explorer, do="run")
    assert gate.reached.wait(SECONDS)
    send(explorer, do="stop")
    assert explorer.status["state"] == "stopping"
    gate.opened.set()
    status = done(explorer)
    passes = -gate.left
    assert passes == 1  # the blocked pass, and no pass after it
    scored = explorer.scores.sizes["sample"]
    assert 0 < scored < 30
    assert status["note"] == f"stopped: {scored} of 30 samples are scored"
    gate.hook.remove()
    whole = score_heads(tiny_model(), TOKENIZER, SUMS)
    np.testing.assert_allclose(
        explorer.scores["score"], whole["score"].sel(sample=explorer.scores["sample"]), rtol=1e-4, atol=1e-6
    )
    send(explorer, do="run")
    assert done(explorer)["note"] == ""
    assert explorer.scores.sizes["sample"] == 30


def test_stop_before_the_first_sample_leaves_nothing(explorer):
    gate = Gate(explorer._session.model)
    send(explorer, do="run")
    assert gate.reached.wait(SECONDS)
    explorer.stop()
    gate.opened.set()
    assert done(explorer)["note"] == "stopped"
    assert explorer.scores is None
    assert explorer.payload["progress"]["done"] == 0


def test_stop_is_heard_while_another_run_holds_the_model(explorer):
    with model_lock(explorer._session.model):
        send(explorer, do="run")
        while explorer.status["state"] != "running":
            time.sleep(0.01)
        time.sleep(0.2)  # it waits for the model
        send(explorer, do="stop")
        assert done(explorer)["note"] == "stopped"


def test_model_is_as_before_after_run_stop_and_error(explorer):
    model = explorer._session.model
    before = state(model)
    send(explorer, do="run")
    done(explorer)
    assert state(model) == before
    gate = Gate(model, free=8)
    send(explorer, do="run")
    assert gate.reached.wait(SECONDS)
    explorer.stop()
    gate.opened.set()
    done(explorer)
    gate.hook.remove()
    assert state(model) == before
    send(explorer, do="ablate", factor=0, heads=["L9H9"], tasks=["sums"], controls=0)
    assert "layers L0 to L1" in done(explorer)["error"]
    assert state(model) == before


def test_second_job_is_refused_while_one_runs(explorer):
    gate = Gate(explorer._session.model)
    send(explorer, do="run")
    assert gate.reached.wait(SECONDS)
    send(explorer, do="run")
    assert "already" in explorer.status["error"]
    assert explorer.status["state"] == "running"
    explorer.stop()
    gate.opened.set()
    done(explorer)


def test_a_job_uses_what_was_chosen_when_it_was_started(explorer, monkeypatch):
    chosen, start = threading.Event(), explorer._worker.start
    monkeypatch.setattr(explorer._worker, "start", lambda job: start(lambda: (chosen.wait(SECONDS), job())))
    for begin in (explorer.run, lambda: explorer.attend("L0H1", 20), lambda: explorer.ablate(0.5, ["L0H1"])):
        explorer.set_state({"task": "sums", "method": "activation", "samples": 64})
        chosen.clear()
        begin()
        explorer.set_state({"task": "words", "method": "entropy", "samples": 2})
        chosen.set()
        assert done(explorer)["error"] == ""
    assert {key: scores.sizes["sample"] for key, scores in explorer.results.items()} == {("sums", "activation"): 30}
    assert (explorer.attention["task"], explorer.attention["sample"]) == ("sums", "20")
    assert explorer.ablations["sums"].sizes["sample"] == 30


def test_close_stops_the_work(explorer):
    gate = Gate(explorer._session.model, free=8)
    send(explorer, do="run")
    assert gate.reached.wait(SECONDS)
    explorer.close()
    gate.opened.set()
    assert explorer.wait(SECONDS)
    assert -gate.left == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "unknown command"),
        ({"do": "rnu"}, "did you mean 'run'"),
        ({"do": "attend"}, "KeyError: 'head'"),
        ({"do": "attend", "head": "L0H0", "place": "x"}, "ValueError: invalid literal"),
        ({"do": "ablate", "factor": 0, "heads": 3, "tasks": [], "controls": 0}, "TypeError: 'int'"),
        ({"do": "ablate", "factor": 0, "heads": [], "tasks": ["sums"], "controls": 0}, "select a head first"),
        ({"do": "ablate", "factor": 0, "heads": ["L0H0"], "tasks": [], "controls": 0}, "choose a task first"),
    ],
)
def test_commands_that_make_no_sense_are_answered_with_a_message(explorer, content, message):
    send(explorer, **content)
    assert message in explorer.status["error"]
    assert explorer.status["state"] == "idle"


def test_error_in_the_work_is_a_message_and_the_next_run_works(explorer):
    hook = explorer._session.model.model.layers[0].register_forward_pre_hook(lambda *_: 1 / 0)
    send(explorer, do="run")
    assert done(explorer)["error"] == "ZeroDivisionError: division by zero"
    assert isinstance(explorer.error, ZeroDivisionError)
    hook.remove()
    explorer.task = "nowhere"
    send(explorer, do="run")
    assert done(explorer)["error"].startswith("unknown task 'nowhere'")
    explorer.task = "sums"
    send(explorer, do="run")
    assert done(explorer)["error"] == ""


def test_selection_is_checked_and_the_added_head_is_looked_at(explorer):
    send(explorer, do="run")
    done(explorer)
    explorer.selected = ["L1H3", "L0H1"]
    assert explorer.selected == ["L0H1", "L1H3"]
    explorer.selected = ["L0H1", "L0H2", "L1H3"]
    assert explorer.focused == "L0H2"
    explorer.selected = ["L0H1", "L0H2"]
    assert explorer.focused == "L0H2"
    explorer.selected = []
    assert explorer.focused == ""
    assert explorer.head == {}
    with pytest.raises(HeadnbError, match="unknown head 'L7H0'"):
        explorer.selected = ["L7H0"]


def test_head_is_described_by_its_scores_over_samples(explorer):
    send(explorer, do="run")
    done(explorer)
    explorer.selected = ["L1H2"]
    scores = explorer.scores["score"].sel(layer=1, head=2).values.astype(float)
    head = explorer.head
    assert head["mean"] == pytest.approx(scores.mean())
    assert head["spread"] == pytest.approx(scores.std(ddof=1))
    counted = [
        ((scores >= low) & ((scores < high) | (last & (scores <= high)))).sum()
        for low, high, last in zip(
            head["edges"], head["edges"][1:], [*[False] * (len(head["counts"]) - 1), True], strict=False
        )
    ]
    assert head["counts"] == counted
    assert sum(counted) == 30
    order = sorted(range(30), key=lambda index: -abs(scores[index]))[: len(head["strongest"])]
    assert [sample["place"] for sample in head["strongest"]] == order
    assert [sample["prompt"] for sample in head["strongest"]] == [SUMS[index][0] for index in order]
    assert [sample["completion"] for sample in head["strongest"]] == [SUMS[index][1] for index in order]


def test_histogram_has_few_bins_whatever_the_values():
    counts, edges = histogram(np.concatenate([np.linspace(0, 1, 2000), [1e6]]))
    assert sum(counts) == 2001
    assert len(counts) + 1 == len(edges) <= 41
    assert histogram(np.array([])) == ([], [])
    assert sum(histogram(np.array([2.0, 2.0]))[0]) == 2


def test_attention_is_that_of_the_head_on_the_sample(explorer):
    send(explorer, do="run")
    done(explorer)
    send(explorer, do="attend", head="L1H2", place=7)
    assert done(explorer)["error"] == ""
    expected = head_attention(tiny_model(), TOKENIZER, SUMS, "L1H2", sample=7)
    shown = explorer.attention
    length = len(shown["tokens"])
    assert tuple(shown["tokens"]) == expected.tokens
    for name in ("weights", "products"):
        sent = np.frombuffer(shown[name], "<f4").reshape(length, length)
        np.testing.assert_allclose(sent, getattr(expected, name), atol=1e-6)
    assert shown["score"] == pytest.approx(float(explorer.scores["score"].sel(sample=7, layer=1, head=2)), rel=1e-3)
    send(explorer, do="attend", head="L1H2", place=99)
    assert "samples 0 to 29" in done(explorer)["error"]


def test_the_status_names_the_job_and_answers_every_command(explorer):
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), "status")
    send(explorer, do="attend", head="L0H0", place=0)
    done(explorer)
    assert {status["job"] for status in seen if status["state"] == "running"} == {"attend"}
    assert seen[-1]["job"] == ""
    seen.clear()
    for _ in range(2):  # the browser waits for an answer to each command, also if it is the same as before
        send(explorer, do="nonsense")
    first, cleared, second = [status["error"] for status in seen]
    assert first == second != cleared == ""


def test_ablation_shows_the_losses_and_texts_of_the_python_functions(explorer):
    explorer.selected = ["L0H1", "L1H2"]
    send(explorer, do="ablate", factor=0.5, heads=explorer.selected, tasks=["sums", "words"], controls=1)
    assert done(explorer)["error"] == ""
    shown = explorer.ablation
    for row, (name, samples) in zip(shown["rows"], {"sums": SUMS, "words": WORDS}.items(), strict=True):
        expected = ablate(tiny_model(), TOKENIZER, samples, "L0H1,L1H2", 0.5, controls=1)
        assert row["task"] == name
        assert row["change"] == pytest.approx(float(expected["mean_change"]), rel=1e-3, abs=1e-7)
        assert row["low"] == pytest.approx(float(expected["low"]), rel=1e-3, abs=1e-6)
        assert row["controls"] == pytest.approx(expected["control_change"].values.tolist(), rel=1e-3, abs=1e-6)
        np.testing.assert_allclose(explorer.ablations[name]["change"], expected["change"], atol=1e-5)
    made = generate_both(tiny_model(), TOKENIZER, SUMS, "L0H1,L1H2", 0.5)
    assert shown["generation"]["before"] == made.before
    assert shown["generation"]["after"] == made.after


def test_texts_are_generated_from_prompts_in_the_explorers_encoding():
    made = explore(tiny_model(), TOKENIZER, {"split": [("What is 2 + 3? The", "re are 5.")]}, encoding="trl")
    made.ablate(0.5, ["L0H1"])
    assert done(made)["error"] == ""
    assert made.ablation["generation"]["prompt"] == "What is 2 + 3?"


def test_a_task_can_be_a_path(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "2 + 3 =", "completion": " 5"}\n')
    for tasks in (file, [file], {str(file): file}):
        sources = TaskSources(tasks)
        assert sources.names == [str(file)]
        assert len(sources.load(str(file), n=1, seed=0)) == 1


def test_heads_and_task_of_an_ablation_can_be_text(explorer):
    explorer.ablate(0.5, "L1H2, l0h1", "words")
    assert done(explorer)["error"] == ""
    expected = ablate(tiny_model(), TOKENIZER, WORDS, "L0H1,L1H2", 0.5)
    np.testing.assert_allclose(explorer.ablations["words"]["change"], expected["change"], atol=1e-5)
    with pytest.raises(HeadnbError, match="is not a head"):
        explorer.ablate(0.5, "L1H2 words")


def test_text_before_and_after_continues_the_sample_in_the_attention_view_if_it_is_scored_still(explorer):
    send(explorer, do="run")
    done(explorer)
    send(explorer, do="attend", head="L1H2", place=29)
    done(explorer)
    send(explorer, do="ablate", factor=0.0, heads=["L0H1"], tasks=["sums"], controls=0)
    assert done(explorer)["error"] == ""
    assert explorer.ablation["generation"]["sample"] == "29"
    explorer.samples = 4
    send(explorer, do="run")
    done(explorer)
    scored = [str(sample) for sample in explorer.scores["sample"].values]
    assert "29" not in scored
    send(explorer, do="ablate", factor=0.0, heads=["L0H1"], tasks=["sums"], controls=0)
    assert done(explorer)["error"] == ""
    assert explorer.ablation["generation"]["sample"] in scored


def test_head_of_a_task_that_is_not_scored_shows_no_samples_of_another(explorer):
    send(explorer, do="run")
    done(explorer)
    explorer.selected = ["L1H2"]
    assert explorer.head["task"] == "sums"
    explorer.set_state({"task": "words"})
    assert explorer.head == {}
    explorer.set_state({"task": "sums"})
    assert explorer.head["task"] == "sums"


def test_stop_during_generation_is_heard(explorer):
    gates = []

    def hold(change):
        if change["new"]["rows"] and not gates:  # the losses are complete, and the generation is next
            gates.append(Gate(explorer._session.model, free=4))

    explorer.observe(hold, "ablation")
    explorer.ablate(0.0, ["L0H1"], ["words"])
    while not gates:
        assert explorer._worker.busy
        time.sleep(0.01)
    (gate,) = gates
    assert gate.reached.wait(SECONDS)
    explorer.stop()
    gate.opened.set()
    assert done(explorer)["note"] == "stopped"
    assert -gate.left == 1
    assert len(explorer.ablation["rows"]) == 1
    assert explorer.ablation["generation"] is None


def test_scores_open_without_their_model_and_say_what_needs_it():
    scores = score_heads(tiny_model(), TOKENIZER, WORDS)
    explorer = scores.heads.explore()
    explorer.selected = ["L0H3"]
    assert explorer.head["samples"] == 3
    assert explorer.head["strongest"][0]["place"] == -1
    for command in ({"do": "run"}, {"do": "attend", "head": "L0H3", "place": 0}):
        send(explorer, **command)
        assert "needs the model" in explorer.status["error"]


def test_scores_open_with_their_model_and_task():
    model = tiny_model()
    scores = score_heads(model, TOKENIZER, headnb.load_task(WORDS, name="words"))
    explorer = scores.heads.explore(model, TOKENIZER, WORDS)
    explorer.selected = ["L0H3"]
    assert {found["completion"] for found in explorer.head["strongest"]} == {completion for _, completion in WORDS}
    send(explorer, do="attend", head="L0H3", place=1)
    assert done(explorer)["error"] == ""
    assert "".join(explorer.attention["tokens"]) == "def square(n):\n    return n * n</s>"


def test_results_without_one_score_per_sample_and_head_open_as_grids():
    scores = [score_heads(tiny_model(seed=seed), TOKENIZER, SUMS[:8]) for seed in range(2)]
    roles = headnb.head_roles(tiny_model(), None, sequences=1, length=8)
    by_step = xr.concat(scores, xr.DataArray([0, 10], dims="step", name="step"), combine_attrs="override")
    gates = score_heads(tiny_model(), TOKENIZER, SUMS[:8], method="gates", options={"steps": 1})
    for result, panels in (
        (scores[0].heads.pattern(), 1),
        (headnb.compare(*scores), 1),
        (roles, roles.sizes["role"]),
        (by_step, 2),
        (gates, 1),
    ):
        explorer = result.heads.explore()
        explorer.selected = ["L1H1"]
        assert explorer.head == {}
        assert len(explorer.payload["panels"]) == panels


def test_encoded_samples_need_no_tokenizer():
    tokens = [{"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]}] * 4
    explorer = explore(tiny_model(), None, {"tokens": tokens})
    explorer.run()
    done(explorer)
    explorer.selected = ["L0H0"]
    assert explorer.head["strongest"][0]["completion"] == "7 8 9"
    explorer.attend(place=2)
    done(explorer)
    explorer.ablate()
    assert done(explorer)["error"] == ""
    assert explorer.ablation["generation"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": [3]}, "has no name"),
        ({"tasks": 3}, "not int"),
        ({"tasks": {"a": []}}, "no samples"),
        ({"tasks": ["gsm8k"], "method": "activatoin"}, "did you mean 'activation'"),
        ({"tasks": ["gsm8k"], "batch_token": 3}, "did you mean 'batch_tokens'"),
    ],
)
def test_what_cannot_be_explored_is_said_at_once(arguments, message):
    with pytest.raises(HeadnbError, match=message):
        explore(tiny_model(), TOKENIZER, **arguments)


def test_a_given_tokenizer_is_used_with_a_model_that_is_loaded(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    own = framing_tokenizer()
    for tokenizer, expected in ((own, own), (None, TOKENIZER)):
        made = explore(str(tmp_path), tokenizer, {"words": WORDS})
        made.run()
        assert done(made)["error"] == ""
        tokens = score_heads(tiny_model(), expected, WORDS)["fingerprint"]
        np.testing.assert_array_equal(made.scores["fingerprint"], tokens)


def test_explorer_needs_something_to_explore():
    with pytest.raises(HeadnbError, match="a model or results"):
        Explorer()
    with pytest.raises(HeadnbError, match="max_length: only with a model"):
        Explorer(max_length=3)


def test_gradient_mode_of_the_notebook_is_its_own(explorer):
    with torch.no_grad():
        send(explorer, do="run")
        assert done(explorer)["error"] == ""
        assert not torch.is_grad_enabled()
