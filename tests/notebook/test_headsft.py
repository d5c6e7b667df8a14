# ruff: noqa: F811  a test's argument is the fixture of that name
"""`%headsft` in a real IPython shell: training, drawing, partial results and messages."""

from __future__ import annotations

import signal
import threading
import time

import headnb
import headnb.engine.tokenization
import numpy as np
import pytest
import xarray as xr
from headnb.display import live
from headnb.display.payload import MIME_TYPE
from headnb.notebook.live_tuning import LiveStudy
from IPython.core.error import UsageError
from IPython.utils.capture import capture_output

from ipython_shells import PAIRS, completions, error_of, raising, run, shell  # noqa: F401  a fixture
from tiny import tiny_model, tiny_tokenizer

TUNE = "%headsft model pairs --steps 4 --every 2 --batch-size 2"


def test_returns_what_the_same_call_in_python_gives_and_draws_once(shell):
    before = {name: weight.clone() for name, weight in shell.user_ns["model"].state_dict().items()}
    result, captured = run(shell, f"{TUNE} --learning-rate 0.01 --seed 3 --into kept")
    found = result.result
    assert shell.user_ns["kept"] is found
    expected = headnb.finetune(
        tiny_model(), tiny_tokenizer(), PAIRS, steps=4, every=2, batch_size=2, learning_rate=0.01, seed=3
    )
    for name in ("level", "eval_loss", "train_loss", "movement"):
        xr.testing.assert_equal(found.study[name], expected.study[name])
    assert found.study["step"].values.tolist() == [0, 2, 4]
    assert float(abs(found.study["level"].diff("step")).max()) > 0
    assert all((weight == before[name]).all() for name, weight in shell.user_ns["model"].state_dict().items())
    assert captured.outputs == []  # in a terminal the grid is text
    for title in ("[before (step 0)]", "[after (step 4)]", "[difference (step 4 − step 0)]"):
        assert captured.stdout.count(title) == 1
    assert captured.stdout.startswith("LlamaForCausalLM fine-tuned on pairs\n")
    assert "FineTuned(" not in captured.stdout


def test_tracked_tasks_and_steps_are_those_named(shell):
    run(shell, "result = " + TUNE.replace("--every 2", "--every 0,1,3") + " --track gsm_symbolic --track pairs -n 3")
    result = shell.user_ns["result"]
    assert result.study["step"].values.tolist() == [0, 1, 3, 4]
    assert list(result.scores) == ["gsm_symbolic", "samples"]
    assert {scores.sizes["sample"] for scores in result.scores.values()} == {3}


def test_two_lists_of_samples_are_tracked_under_the_names_of_their_variables(shell):
    shell.user_ns["few"] = PAIRS[:3]
    result, _ = run(shell, f"{TUNE} --track pairs --track few")
    assert list(result.result.scores) == ["pairs", "few"]


def test_a_named_task_is_trained_on_one_split_and_tracked_on_another(shell):
    run(shell, "result = %headsft model gsm_symbolic --steps 2 --every 2 --batch-size 2 -n 3")
    scores = shell.user_ns["result"].scores["gsm_symbolic"]
    test = headnb.score_heads(tiny_model(), tiny_tokenizer(), headnb.load_task("gsm_symbolic", n=3))
    np.testing.assert_allclose(scores.sel(step=0)["loss"], test["loss"], rtol=1e-5)
    assert shell.user_ns["result"].study.attrs["trained_on"] == "gsm_symbolic"


def test_full_tuning_changes_the_variables_model_and_no_shared_one(shell):
    before = shell.user_ns["model"].lm_head.weight.clone()
    result, _ = run(shell, f"{TUNE} --full --learning-rate 0.01")
    assert result.result.adapter is None
    assert (shell.user_ns["model"].lm_head.weight != before).any()


def test_report_to_logs_to_a_tracker(shell, tmp_path):
    pytest.importorskip("tensorboard")
    assert "needs output_dir='FOLDER' (--out FOLDER)" in error_of(shell, f"{TUNE} --report-to tensorboard")
    result, _ = run(shell, f"{TUNE} --report-to tensorboard --out {tmp_path / 'run'}")
    assert result.success
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_full_tuning_of_a_model_that_the_magics_share_is_refused(shell, tmp_path):
    shell.user_ns["model"].save_pretrained(tmp_path)
    shell.user_ns["tokenizer"].save_pretrained(tmp_path)
    assert "load your own" in error_of(shell, f"%headsft {tmp_path} pairs --full --steps 2")


def interrupt_at(model, step):
    """Interrupt the forward pass of optimizer step `step` (the first is 1) by a signal."""
    module, passes = model.model.layers[1], []

    def interrupt(*_):
        passes.append(module.training)
        if passes.count(True) == step:
            threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
            for _ in range(1000):  # until the signal, which a longer sleep would not notice
                time.sleep(0.05)

    module.register_forward_pre_hook(interrupt)


@pytest.mark.parametrize(("every", "tracked"), [(2, [0, 2]), (30, [0])])
def test_an_interrupt_keeps_what_is_trained_ends_the_cell_and_says_how_far_it_is(shell, every, tracked):
    interrupt_at(shell.user_ns["model"], 4)
    line = f"%headsft model pairs --steps 40 --every {every} --batch-size 2 --into kept"
    result, captured = run(shell, f"whole = {line}\nnext_cell = 1")
    assert isinstance(result.error_in_exec, UsageError)  # the kernel replies with an error, so "Run All" stops
    assert not {"whole", "next_cell"} & set(shell.user_ns)
    assert "interrupted; the result so far is in kept" in captured.stderr
    assert "Interrupted: 3 of 40 steps are done." in captured.stdout
    assert "Traceback" not in captured.stdout + captured.stderr
    kept = shell.user_ns["kept"]
    assert kept is shell.user_ns["_"]
    assert kept.study["step"].values.tolist() == tracked
    assert kept.study.attrs["steps_done"] == 3
    assert ", 3 steps" in repr(kept)
    with kept.applied(tiny_model()) as tuned:
        assert headnb.score_heads(tuned, tiny_tokenizer(), PAIRS).sizes["sample"] == 4


def test_an_interrupt_says_how_to_continue_if_there_is_a_checkpoint(shell, tmp_path):
    interrupt_at(shell.user_ns["model"], 4)
    line = f"%headsft model pairs --steps 6 --every 2 --batch-size 2 --out {tmp_path / 'run'}"
    _, captured = run(shell, line)
    assert "the result so far is in _; repeat the command with --resume to continue" in captured.stderr
    assert "Interrupted: 3 of 6 steps are done." in " ".join(captured.stdout.split())
    shell.user_ns["model"] = tiny_model()  # the same weights, without the interrupt
    result, _ = run(shell, f"{line} --resume")
    assert result.result.study["step"].values.tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("track", ["", "--track others"])
def test_samples_that_max_length_leaves_out_or_cuts_are_counted_under_the_grid(shell, track):
    shell.user_ns["others"] = [("a b", " c"), ("a " * 50, " b")]
    shell.user_ns["pairs"] = [("a b", " c d e f g h i j k l m n o p"), ("a b", " c"), ("a b " * 50, " c")]
    lengths = headnb.engine.tokenization.encode_task(
        headnb.load_task(shell.user_ns["pairs"]), tiny_tokenizer(), max_length=12
    )
    assert (len(lengths.left_out), lengths.truncated) == (1, 1)
    result, captured = run(shell, f"%headsft model pairs --steps 1 --batch-size 2 --max-length 12 {track}")
    assert result.success
    said = " ".join(captured.stdout.split())
    assert "Training: 1 sample(s) without an answer token after truncation left out, 1 sample(s) truncated." in said
    assert "Excluded: 1 sample(s) without an answer token after truncation." in said
    assert ("Truncated: 1 sample(s)." in said) == (not track)


def test_an_interrupt_before_anything_is_tracked_is_one_line(shell):
    def interrupt(*_):
        raise KeyboardInterrupt

    shell.user_ns["model"].register_forward_pre_hook(interrupt)
    assert "interrupted before the first step was tracked" in error_of(shell, TUNE)


def test_what_is_trained_is_returned_when_it_cannot_be_drawn(shell, monkeypatch):
    monkeypatch.setattr("headnb.display.live.HeadGrid.of", raising(ValueError("no ink")))
    _, captured = run(shell, f"result = {TUNE} --into kept")
    assert shell.user_ns["result"].study["step"].values.tolist() == [0, 2, 4]
    assert shell.user_ns["result"] is shell.user_ns["kept"]
    assert "finished, but not drawn: no ink" in captured.stderr


def test_an_interrupt_of_the_picture_keeps_what_is_trained_and_ends_the_cell(shell, monkeypatch):
    monkeypatch.setattr("headnb.display.live.HeadGrid.of", raising(KeyboardInterrupt()))
    result, captured = run(shell, f"{TUNE} --into kept")
    assert isinstance(result.error_in_exec, UsageError)
    assert "interrupted; the result is in kept" in captured.stderr
    assert "finished, but not drawn" in captured.stderr
    assert shell.user_ns["kept"].study["step"].values.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%headsft model", "required: TASK"),
        ("%headsft model gsm_symbolc", "did you mean 'gsm_symbolic'"),
        ("%headsft model pairs --stps 3", "unknown option --stps; did you mean --steps?"),
        (
            "%headsft model pairs --every soon",
            "--every must be a number of steps or a list such as 0,1,2,5,10, not 'soon'",
        ),
        ("%headsft model pairs --every 0", "every must be a number of steps"),
        ("%headsft model pairs --every -2", "every must be a number of steps"),
        ("%headsft model pairs --steps 0", "steps must be a whole number of at least 1, not 0"),
        ("%headsft model pairs --batch-size 0", "batch_size must be a whole number of at least 1, not 0"),
        ("%headsft model pairs --seed -1", "seed must be from 0 to 18446744073709551615, not -1"),
        ("%headsft model pairs --seed 4294967296", "seed must be from 0 to 4294967295, not 4294967296"),
        ("%headsft model pairs -n 0", "n must be a whole number of samples, 1 or more, not 0"),
        ("%headsft model pairs --learning-rate nan", "learning_rate must be a finite number, not nan"),
        ("%headsft model pairs --learning-rate -1", "learning_rate must not be negative, got -1"),
        ("%headsft model pairs --max-length 0", "max_length must be at least 1"),
        ("%headsft model pairs --track gsm_symbolc", "did you mean 'gsm_symbolic'"),
        ("%headsft model pairs --method activatoin", "did you mean 'activation'"),
        ("%headsft model pairs --into 3x", "--into 3x"),
        ("%headsft model pairs --track pairs --track pairs", "the task pairs is given twice"),
    ],
)
def test_an_error_is_one_line(shell, line, said):
    assert said in error_of(shell, line)


def test_tasks_models_and_options_are_completed(shell):
    assert "--steps" in completions(shell, "%headsft model pairs --st")
    assert "pairs" in completions(shell, "%headsft model pa")
    assert "gsm_symbolic" in completions(shell, "x = %headsft model pairs --track gsm_s")
    assert "smollm2-135m" in completions(shell, "%headsft smol")


def test_question_mark_explains(shell):
    with capture_output() as captured:
        shell.run_cell("%headsft?")
    shown = captured.stdout + "".join(str(output.data) for output in captured.outputs)
    assert "--track" in shown
    assert "slider over the steps" in shown


def test_each_update_in_a_notebook_is_the_grid_so_far_and_the_end_is_one_output(monkeypatch):
    sent = []
    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(live._NotebookOutput, "_publish", lambda _, bundle: sent.append(bundle))
    now = [0.0]
    shown = LiveStudy("m on t", clock=lambda: now[0])

    def follow(progress):
        now[0] += 100  # updates are far enough apart to be shown
        shown.update_tuning(progress)

    result = headnb.finetune(tiny_model(), tiny_tokenizer(), PAIRS, steps=3, every=2, batch_size=2, on_progress=follow)
    assert all(set(bundle) == {MIME_TYPE, "text/html", "text/plain"} for bundle in sent if MIME_TYPE in bundle)
    assert all("<svg" not in bundle["text/html"] for bundle in sent)
    words = [bundle["text/plain"] for bundle in sent]
    scored = [line for line in words if "scoring samples before training" in line]
    assert "0 of 4 samples" in scored[0]
    assert "4 of 4 samples" in scored[-1]
    assert "left" in scored[-1]  # an estimate after the first batch
    assert any("training step 1 of 3" in line for line in words)
    assert any("scoring samples at step 2: 4 of 4 samples · loss" in line for line in words)
    on_the_way = [bundle[MIME_TYPE] for bundle in sent if MIME_TYPE in bundle]
    assert {each["progress"]["unit"] for each in on_the_way} == {"steps"}
    studies = [each for each in on_the_way if each["dimension"] == "step"]  # before: the first scoring so far
    titles = [[panel["title"] for panel in each["panels"]] for each in studies]
    assert list(dict.fromkeys(map(tuple, titles))) == [
        ("step 0",),
        ("step 0", "step 2"),
        ("step 0", "step 2", "step 3"),
    ]
    assert {panel["samples"] for each in studies for panel in each["panels"]} == {4}
    assert [curve["label"] for curve in on_the_way[-1]["curves"]] == ["training loss", "loss on samples"]
    shown.finish(result.study, note="Interrupted.")
    final = sent[-1][MIME_TYPE]
    assert "progress" not in final
    assert [panel["samples"] for panel in final["panels"]] == [4, 4, 4]
    assert "Interrupted." in final["panels"][-1]["notes"]
    level = result.study["level"].sel(step=3).isel(task=0)
    np.testing.assert_allclose(np.array(final["panels"][-1]["values"], float), level, rtol=1e-3)


def test_the_result_is_drawn_as_before_after_and_difference_of_the_paired_samples(shell):
    result, _ = run(shell, f"{TUNE} --learning-rate 0.01")
    bundle = result.result._repr_mimebundle_()
    assert bundle["text/plain"].startswith("FineTuned(")
    scores = result.result.scores["samples"]
    change = headnb.compare(scores.sel(step=0), scores.sel(step=4))
    drawn = bundle[MIME_TYPE]["panels"][-1]["change"]
    np.testing.assert_allclose(np.array(drawn["values"], float), change["difference"], rtol=1e-3)
    np.testing.assert_allclose(np.array(drawn["low"], float), change["low"], rtol=1e-2)
    assert drawn["significant"] == change["significant"].values.astype(int).tolist()
    assert drawn["samples"] == 4
    assert drawn["reliability"] == pytest.approx(change.attrs["reliability"], rel=1e-3)
    for name in ("before (step 0)", "after (step 4)", "difference (step 4 − step 0)"):
        assert name in bundle["text/html"]
