"""Magics in a real IPython shell: results, variables, drawing, completion and error messages."""

from __future__ import annotations

import gc
import re
import signal
import sys
import weakref
from typing import TYPE_CHECKING, Any

import datasets
import headnb
import numpy as np
import polars as pl
import pytest
import xarray as xr
from headnb.display.grid import HeadGrid
from headnb.notebook.magics import HeadMagics
from headnb.notebook.sft_magic import TuningMagics
from headnb.scoring import one_pass
from IPython.core.error import UsageError
from IPython.utils.capture import capture_output

from ipython_shells import PAIRS, completions, error_of, other_tokenizer, raising, run, scores_of
from mock_datasets import mock_load_dataset
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell


def test_headscore_returns_the_scores_of_the_same_call_in_python(shell: InteractiveShell) -> None:
    run(shell, "scores = %headscore model pairs --seed 3")
    task = headnb.load_task(PAIRS, seed=3)
    expected = headnb.score_heads(tiny_model(), tiny_tokenizer(), task, seed=3)
    xr.testing.assert_equal(shell.user_ns["scores"], expected)


@pytest.mark.parametrize("words", ["-n 3 model pairs", "model -n 3 pairs", "model pairs -n 3"])
def test_options_may_stand_anywhere(shell: InteractiveShell, words: str) -> None:
    run(shell, f"scores = %headscore {words}")
    assert shell.user_ns["scores"].sizes["sample"] == 3


def test_headscore_into_binds_a_variable(shell: InteractiveShell) -> None:
    run(shell, "%headscore model pairs --into mine")
    assert shell.user_ns["mine"].sizes == {"sample": 4, "layer": 2, "head": 4}


@pytest.mark.parametrize("line", ["%headscore model pairs", "x = %headscore model pairs", "%headscore model pairs;"])
def test_headscore_draws_once(shell: InteractiveShell, line: str) -> None:
    _, captured = run(shell, line)
    assert captured.stdout.count("Reliability ") == 1
    assert "xarray.Dataset" not in captured.stdout
    assert captured.outputs == []


def test_a_cell_goes_on_drawing_its_other_values(shell: InteractiveShell) -> None:
    _, captured = run(shell, "%headscore model pairs\n6 * 7")
    assert "42" in captured.stdout
    assert "Reliability " in captured.stdout


def test_methods_and_settings_reach_the_engine(shell: InteractiveShell) -> None:
    run(shell, "%config HeadMagics.method = 'taylor-token'")
    run(shell, "%config HeadMagics.samples = 3")
    run(shell, "a = %headscore model gsm_symbolic")
    run(shell, "b = %headscore model gsm_symbolic -n 2 --method activation --loss sum")
    assert (shell.user_ns["a"].attrs["method"], shell.user_ns["a"].sizes["sample"]) == ("taylor-token", 3)
    b = shell.user_ns["b"]
    assert (b.attrs["method"], b.attrs["loss_reduction"], b.sizes["sample"]) == ("activation", "sum", 2)


def test_options_of_the_method_reach_the_engine(shell: InteractiveShell) -> None:
    run(shell, "a = %headscore model pairs --method attattr --options steps=3 --encoding trl")
    expected = headnb.score_heads(
        tiny_model(), tiny_tokenizer(), PAIRS, method="attattr", options={"steps": 3}, encoding="trl"
    )
    xr.testing.assert_equal(shell.user_ns["a"], expected)


def test_several_methods_give_the_scores_and_a_grid_of_each(shell: InteractiveShell) -> None:
    line = "found = %headscore model pairs --method activation,attattr --options attattr.steps=3"
    _, captured = run(shell, line)
    found = shell.user_ns["found"]
    assert list(found) == ["activation", "attattr"]
    for method, options in (("activation", None), ("attattr", {"steps": 3})):
        expected = headnb.score_heads(tiny_model(), tiny_tokenizer(), PAIRS, method=method, options=options)
        xr.testing.assert_equal(found[method], expected)
        assert f"[{method}]" in captured.stdout
    assert "activation level (nats)" in captured.stdout
    assert "attattr (probability)" in captured.stdout
    assert captured.stdout.count("Reliability") == 2
    _, drawn = run(shell, "%headgrid found")
    assert drawn.outputs[0].data["text/plain"].count("Reliability") == 2
    assert "unknown method 'entropi'" in error_of(shell, "%headscore model pairs --method activation,entropi")


def test_a_pair_of_model_and_tokenizer_may_be_one_variable(shell: InteractiveShell) -> None:
    shell.user_ns["both"] = (shell.user_ns.pop("model"), shell.user_ns.pop("tokenizer"))
    run(shell, "scores = %headscore both pairs")
    assert shell.user_ns["scores"].sizes["sample"] == 4


def test_the_tokenizer_beside_a_model_comes_before_the_variable_of_another(
    shell: InteractiveShell, tmp_path: Any
) -> None:
    shell.user_ns["model"].name_or_path = str(tmp_path)
    shell.user_ns["tokenizer"].save_pretrained(tmp_path)
    shell.user_ns["tokenizer"] = other_tokenizer()
    _, captured = run(shell, "scores = %headscore model pairs")
    expected = headnb.score_heads(tiny_model(), tiny_tokenizer(), PAIRS)
    np.testing.assert_array_equal(shell.user_ns["scores"].score, expected.score)
    assert f"the tokenizer is the one in {tmp_path}, not the variable tokenizer" in captured.stdout


def test_a_tokenizer_of_another_model_is_taken_with_a_line_that_says_so(shell: InteractiveShell) -> None:
    shell.user_ns["model"].name_or_path = "somebody/tuned"
    shell.user_ns["tokenizer"].name_or_path = "somebody/base"
    _, captured = run(shell, "scores = %headscore model pairs")
    assert "the tokenizer belongs to somebody/base, but the model is somebody/tuned" in captured.stdout
    assert shell.user_ns["scores"].sizes["sample"] == 4


@pytest.mark.parametrize("name", ["somebody/base", ""])
def test_a_tokenizer_of_the_same_name_or_of_none_needs_no_words(shell: InteractiveShell, name: str) -> None:
    shell.user_ns["model"].name_or_path = shell.user_ns["tokenizer"].name_or_path = name
    _, captured = run(shell, "scores = %headscore model pairs")
    assert "the tokenizer is" not in captured.stdout


def test_variables_of_text_stand_for_their_text(shell: InteractiveShell) -> None:
    shell.user_ns["task"] = "gsm_symbolic"
    run(shell, "scores = %headscore model task -n 2")
    assert shell.user_ns["scores"].attrs["task"] == "gsm_symbolic"


@pytest.mark.parametrize("kind", ["pandas", "polars", "stream"])
def test_frames_and_streams_are_tasks(shell: InteractiveShell, kind: str) -> None:
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS]
    shell.user_ns["mine"] = {
        "pandas": lambda: datasets.Dataset.from_list(rows).to_pandas(),
        "polars": lambda: pl.DataFrame(rows),
        "stream": lambda: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    }[kind]()
    run(shell, "scores = %headscore model mine")
    expected = headnb.score_heads(tiny_model(), tiny_tokenizer(), PAIRS)
    np.testing.assert_array_equal(shell.user_ns["scores"]["score"], expected["score"])


def test_config_and_split_of_a_small_hub_data_set(
    shell: InteractiveShell, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = mock_load_dataset(monkeypatch, [{"prompt": "a", "completion": "b"}] * 3)
    run(shell, "scores = %headscore model org/few --config main --split test[:50%]")
    assert calls == [{"path": "org/few", "streaming": False, "split": "test[:50%]", "name": "main"}]
    assert shell.user_ns["scores"].sizes["sample"] == 3  # fewer than the default number of samples
    assert "has 3 samples" in error_of(shell, "%headscore model org/few -n 4")


def test_split_chooses_a_part_of_a_variable_with_several(shell: InteractiveShell) -> None:
    rows = datasets.Dataset.from_dict({"prompt": ["a"], "completion": ["b"]})
    shell.user_ns["both"] = datasets.DatasetDict(train=datasets.concatenate_datasets([rows, rows]), test=rows)
    run(shell, "scores = %headscore model both --split train")
    assert shell.user_ns["scores"].sizes["sample"] == 2


def test_a_small_file_keeps_its_order(shell: InteractiveShell, tmp_path: Path) -> None:
    lines = [f"{i} + {i} = ,{2 * i}" for i in range(9)]
    (tmp_path / "sums.csv").write_text("\n".join(["prompt,completion", *lines]), encoding="utf-8")
    run(shell, f"scores = %headscore model {tmp_path / 'sums.csv'}")
    assert shell.user_ns["scores"]["sample"].values.tolist() == list(range(9))


def test_the_same_call_works_after_its_result_took_the_tasks_name(shell: InteractiveShell) -> None:
    for _ in range(2):
        run(shell, "gsm_symbolic = %headscore model gsm_symbolic -n 2")
    assert shell.user_ns["gsm_symbolic"].attrs["task"] == "gsm_symbolic"


def test_typed_samples_in_their_three_forms(shell: InteractiveShell) -> None:
    cell = """%%headscore model --into typed
The sky is => blue
One, two, => three

Question: What is
12 + 30?
Answer: The answer
is 42.

{"prompt": "2 + 3 = ", "completion": "5"}
"""
    run(shell, cell)
    expected = headnb.score_heads(
        tiny_model(),
        tiny_tokenizer(),
        [
            ("The sky is", " blue"),
            ("One, two,", " three"),
            ("Question: What is\n12 + 30?\nAnswer: ", "The answer\nis 42."),
            ("2 + 3 = ", "5"),
        ],
    )
    np.testing.assert_array_equal(shell.user_ns["typed"].score, expected.score)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("a => b\nno arrow", "line 3 has no =>"),
        ("a => b => c", "line 2 has more than one =>"),
        ("a => ", "line 2: the completion is empty"),
        ("a => b\n\nQuestion: why?\nBecause.", "line 5: the question has no line that starts with Answer:"),
        ("Question: why?\n\nAnswer: so.", "line 2: the question has no line"),
        ("Answer: so.", "line 2 is an answer without a question"),
        ("Question: a\nAnswer: b\nQuestion: c\nAnswer: d", "line 5 is a second answer"),
        ('\n{"prompt": "a", "completion": }', "line 3 is not JSON"),
        ('{"prompt": "a"}', "line 2 lacks 'completion'"),
        ("\n   \n", "the cell has no samples"),
    ],
)
def test_what_is_wrong_with_typed_samples_is_said_with_the_line(shell: InteractiveShell, cell: str, said: str) -> None:
    assert said in error_of(shell, f"%%headscore model\n{cell}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%headscore", "required: MODEL"),
        ("%headscore model", "needs a model and a task"),
        ("%headscore model gsm_symbolc", "did you mean 'gsm_symbolic'"),
        ("%headscore model pairs --metod taylor-token", "unknown option --metod; did you mean --method?"),
        ("%headscore model pairs --method taylor-tokens", "did you mean 'taylor-token'"),
        ("%headscore model pairs --loss sums", "did you mean 'sum'"),
        ("%headscore model pairs -n many", "argument -n/--samples: 'many' is not a whole number"),
        ("%headscore model pairs -n 5", "fewer than n=5"),
        ("%headscore model pairs --encodng trl", "unknown option --encodng; did you mean --encoding?"),
        ("%headscore model pairs --options steps=5,steps=6", "--options 'steps=5,steps=6': steps is given twice"),
        ("%headscore model pairs --options steps=many", "--options 'steps=many': write NAME=NUMBER"),
        ("%headscore model pairs --options steps=5", "unknown option of activation 'steps'"),
        ("%headscore model pairs more", "unknown task 'more'"),
        ("%headscore model -n 3 pairs gsm_symbolc", "unknown task 'gsm_symbolc'; did you mean 'gsm_symbolic'?"),
        ("%headscore model pairs pairs", "the task pairs is given twice"),
        ("%headscore model pairs more_pairs --out x.zarr", "out is a folder with one store for each task"),
        ("%headablate model pairs more --heads L0H1", "unexpected argument 'more'"),
        ("%headgrid scores nothing", "'nothing' is neither a variable nor a file that can be drawn"),
        ("%headgrid scores drawn", "drawn is a saved grid, which is drawn alone"),
        ("%headdiff scores other --scale-free", "--scale-free applies to scores of one task"),
        ("%headscore model --metod taylor-token pairs", "unknown option --metod; did you mean --method?"),
        ("%headscore 'model pairs", "unclosed quote"),
        ("%headscore model pairs --into 3x", "--into 3x"),
        ("%headscore model pairs --into class", "--into class"),
        ("%headscore model pairs --batch-tokens 0", "batch_tokens must be at least 1, not 0"),
        ("%headscore model pairs --batch-tokens -5", "batch_tokens must be at least 1, not -5"),
        ("%headscore model pairs --max-length 0", "max_length must be at least 1"),
        ("%headscore model pairs -n 0", "n must be a whole number of samples, 1 or more, not 0"),
        ("%headscore model pairs -n -3", "n must be a whole number of samples, 1 or more, not -3"),
        ("%headscore model pairs --seed -1", "seed must be from 0 to 18446744073709551615, not -1"),
        ("%headscore model gsm_symbolic --seed -1", "seed must be from 0 to 18446744073709551615, not -1"),
        ("%headscore model gsm_symbolic --seed 1180591620717411303424", "seed must be from 0 to 18446744073709551615"),
        ("%headscore model pairs --seed 1.5", "argument --seed: '1.5' is not a whole number"),
        ("%headscore model pairs --until nan", "until='nan' is not a relative standard error"),
        ("%%headscore model --seed -1\na => b", "seed must be from 0 to 18446744073709551615, not -1"),
        ("%headdiff scores scores --alpha nan", "alpha must lie between 0 and 1"),
        ("%headdiff scores scores --alpha 2", "alpha must lie between 0 and 1"),
        ("%headablate model pairs --heads L0H1 --seed -1", "seed must be from 0 to 18446744073709551615, not -1"),
        ("%headablate model pairs --heads L0H1 --controls -1", "controls must be at least 0, not -1"),
        ("%headablate model pairs --heads L0H1 --factor nan", "factor must be a finite number, not nan"),
        ("%headablate model pairs --heads L0H1 --batch-tokens 0", "batch_tokens must be at least 1, not 0"),
        ("%headscore scores pairs", "the variable scores has type Dataset, not a model"),
        (
            "%headscore model pairs --config main",
            "--config applies only when a task is loaded, but pairs is already loaded",
        ),
        (
            "%headscore model task --split test",
            "--split applies only when a task is loaded, but task is already loaded",
        ),
        (
            "%headscore model pairs task --config main",
            "--config applies only when a task is loaded, but pairs is already",
        ),
        (
            "%headroles model task --split train",
            "--split applies only when a task is loaded, but task is already loaded",
        ),
        ("%headscore model tokenizer", "the variable tokenizer has type "),
        ("%headscore model pairs --dtype float16", "is already loaded"),
        ("%headscore ./no/such/folder pairs", "no such file or folder"),
        ("%%headscore model pairs\na => b", "not both"),
        ("%headscore model pairs -n 2 --samples=3", "--samples is given twice"),
        ("%headscore model pairs -n 1 -n2", "--samples is given twice"),
        ("%headscore model pairs -n1 -n2", "--samples is given twice"),
        ("%headscore model pairs --samp 2", "unknown option --samp; did you mean --samples?"),
        ("%headscore model pairs --method activation,", "write names with commas and no spaces"),
        ("%headscore model pairs --method activation, entropy", "no spaces, such as activation,entropy"),
        ("%headablate model pairs --heads L0H1 --heads L0H2", "--heads is given twice"),
        ("%headgrid nothing", "'nothing' is neither a variable nor a file that can be drawn"),
        ("%headgrid nothing", "such variables: drawn, other, scores"),
        ("%headdiff nothing scores", "neither a variable nor a file with scores"),
        ("%headgrid model", "model has type LlamaForCausalLM; give a variable or a file that can be drawn"),
        ("%headdiff scoers scores", "did you mean scores?"),
        ("%headfree gpt2", "'gpt2' is not loaded"),
        ("%headtasks nosuchword", "no task has 'nosuchword'"),
    ],
)
def test_a_users_error_is_one_line(shell: InteractiveShell, line: str, said: str) -> None:
    shell.user_ns["scores"] = scores_of(shell)
    shell.user_ns["other"] = shell.user_ns["scores"].assign_attrs(task="other")
    shell.user_ns["drawn"] = shell.user_ns["scores"].heads.grid()
    shell.user_ns["more_pairs"] = PAIRS[:3]
    shell.user_ns["task"] = headnb.load_task(PAIRS)
    assert said in error_of(shell, line)


@pytest.mark.parametrize(
    "typo", ["--method activaton", "--loss sums", "--encoding tlr", "--method gates --options step=5"]
)
def test_a_typo_is_found_before_a_model_is_loaded(shell: InteractiveShell, typo: str) -> None:
    assert "did you mean" in error_of(shell, f"%headscore ./no/such/folder pairs {typo}")


def test_after_an_error_the_right_call_works(shell: InteractiveShell) -> None:
    error_of(shell, "%headscore model pairs --method nonsense")
    run(shell, "scores = %headscore model pairs")
    assert shell.user_ns["scores"].attrs["complete"] == 1


def test_an_interrupt_keeps_what_is_scored_and_says_so(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.user_ns["pairs"] = [(f"{i} + {i} = ", f"{2 * i}") for i in range(40)]
    score, batches = one_pass.run_pass, iter(range(40))

    def score_until_control_c(*args: Any, **options: Any) -> Any:
        if next(batches) == 9:
            signal.raise_signal(signal.SIGINT)
        return score(*args, **options)

    with capture_output() as captured, monkeypatch.context() as patch:
        patch.setattr(one_pass, "run_pass", score_until_control_c)
        ended = shell.run_cell("whole = %headscore model pairs --batch-tokens 1 --into part\nnext_cell = 1")
    assert isinstance(ended.error_in_exec, UsageError)  # the kernel replies with an error, so "Run All" stops
    assert not {"whole", "next_cell"} & set(shell.user_ns)
    part = shell.user_ns["part"]
    assert part is shell.user_ns["_"]
    assert captured.stderr.strip().endswith("interrupted; the scores so far are in part")
    assert part.sizes["sample"] == 9
    assert part.attrs["complete"] == 0
    said = captured.stdout + captured.stderr
    assert said.count("9 of 40 samples are scored") == said.lower().count("interrupted") == 1
    assert "Traceback" not in captured.stdout + captured.stderr
    run(shell, "whole = %headscore model pairs")
    assert shell.user_ns["whole"].sizes["sample"] == 40
    whole = shell.user_ns["whole"].sel(sample=part.sample)
    np.testing.assert_allclose(part.score, whole.score, rtol=1e-4, atol=1e-7)


def test_an_interrupt_of_the_picture_keeps_the_scores_and_says_so(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeadGrid, "of", raising(KeyboardInterrupt()))
    ended, captured = run(shell, "%headscore model pairs --into mine")
    assert isinstance(ended.error_in_exec, UsageError)
    assert "interrupted; the scores are in mine" in captured.stderr
    assert "finished, but not drawn" in captured.stderr
    xr.testing.assert_equal(shell.user_ns["mine"], scores_of(shell))
    assert shell.user_ns["mine"] is shell.user_ns["_"]


def test_scores_that_cannot_be_drawn_are_returned(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadGrid, "of", raising(ValueError("no ink")))
    _, captured = run(shell, "scores = %headscore model pairs --into mine")
    assert "finished, but not drawn: no ink" in captured.stderr
    assert shell.user_ns["scores"] is shell.user_ns["mine"]
    xr.testing.assert_equal(shell.user_ns["scores"], scores_of(shell))


def test_headgrid_draws_variables_and_files(shell: InteractiveShell, tmp_path: Any) -> None:
    shell.user_ns["scores"] = scores_of(shell)
    saved = tmp_path / "a b.heads.json"
    _, drawn = run(shell, f"grid = %headgrid scores --title 'two words' --save '{saved}'")
    _, again = run(shell, f"other = %headgrid '{saved}'")
    assert drawn.outputs[0].data["text/plain"].startswith("two words")
    assert shell.user_ns["grid"].payload["title"] == "two words"
    assert shell.user_ns["other"] == HeadGrid.open(saved)
    assert [len(captured.outputs) for captured in (drawn, again)] == [1, 1]


def test_headgrid_and_headdiff_take_urls(shell: InteractiveShell, tmp_path: Any) -> None:
    scores = scores_of(shell)
    for name in ("a.nc", "a.heads.json"):
        scores.heads.save(f"memory://magics/{name}")
    run(shell, "grid = %headgrid memory://magics/a.heads.json")
    run(shell, "drawn = %headgrid memory://magics/a.nc")
    assert shell.user_ns["drawn"] == HeadGrid.of(scores)
    assert shell.user_ns["grid"].payload["kind"] == shell.user_ns["drawn"].payload["kind"]
    run(shell, "change = %headdiff memory://magics/a.nc memory://magics/a.nc")
    assert (shell.user_ns["change"]["difference"] == 0).all()
    assert "there are no scores at memory://magics/b.nc" in error_of(shell, "%headgrid memory://magics/b.nc")


def test_headgrid_as_last_value_is_drawn_once(shell: InteractiveShell) -> None:
    shell.user_ns["scores"] = scores_of(shell)
    _, captured = run(shell, "%headgrid scores")
    assert len(captured.outputs) == 1
    assert captured.stdout == ""


def test_headdiff_returns_the_comparison_of_after_with_before(shell: InteractiveShell) -> None:
    before = scores_of(shell)
    after = before.copy(deep=True)
    after["score"][:, 1, 2] *= 3
    shell.user_ns.update(before=before, after=after)
    _, captured = run(shell, "change = %headdiff after before")
    expected = 2 * np.abs(before.score[:, 1, 2].values.astype(float)).mean()
    assert shell.user_ns["change"].difference[1, 2].item() == pytest.approx(expected, rel=1e-6)
    assert len(captured.outputs) == 1
    assert captured.outputs[0].data["text/plain"].splitlines()[0].endswith(" · samples · after − before")
    _, captured = run(shell, "%headdiff before after --title mine")
    assert captured.outputs[0].data["text/plain"].splitlines()[0] == "mine"


def test_several_tasks_give_a_study_that_is_drawn_once(shell: InteractiveShell) -> None:
    shell.user_ns["few"] = headnb.load_task(PAIRS[:3], name="few")
    _, captured = run(shell, "study = %headscore model pairs few -n 3 --into same")
    study = shell.user_ns["study"]
    tasks = [headnb.load_task(source, n=3) for source in (PAIRS, shell.user_ns["few"])]
    expected = headnb.score_tasks(tiny_model(), tiny_tokenizer(), tasks)
    xr.testing.assert_equal(study, expected)
    assert shell.user_ns["same"] is study
    assert captured.stdout.count("[few]") == 1
    assert captured.outputs == []


def test_tasks_with_one_name_are_called_as_typed(shell: InteractiveShell) -> None:
    shell.user_ns["others"] = PAIRS[:3]
    run(shell, "study = %headscore model pairs others")
    assert list(shell.user_ns["study"]["task"].values) == ["pairs", "others"]


def test_headgrid_draws_several_side_by_side(shell: InteractiveShell, tmp_path: Any) -> None:
    one = shell.user_ns["one"] = scores_of(shell)
    shell.user_ns["other"] = one.assign_attrs(task="other")
    headnb.score_heads(tiny_model(), tiny_tokenizer(), PAIRS, out=tmp_path / "stored.zarr")
    for line, titles in [
        ("one other", ["samples", "other"]),
        ("one one", ["one (1)", "one (2)"]),
        (f"one {tmp_path}/stored.zarr", ["one", "stored"]),
    ]:
        result, _ = run(shell, f"%headgrid {line}")
        assert [panel["title"] for panel in result.result.payload["panels"]] == titles


def test_headdiff_across_tasks_draws_the_difference_of_ranks(shell: InteractiveShell) -> None:
    one = shell.user_ns["one"] = scores_of(shell)
    shell.user_ns["other"] = one.isel(sample=slice(3)).assign_attrs(task="other")
    _, captured = run(shell, "change = %headdiff other one")
    xr.testing.assert_identical(shell.user_ns["change"], headnb.rank_difference(one, shell.user_ns["other"]))
    text = captured.outputs[0].data["text/plain"]
    assert "difference of ranks, other − samples" in text
    assert "no head is tested" in text


def test_models_stay_loaded_until_headfree(shell: InteractiveShell, tmp_path: Any) -> None:
    folder = tmp_path / "tiny"
    shell.user_ns["model"].save_pretrained(folder)
    shell.user_ns["tokenizer"].save_pretrained(folder)
    run(shell, f"%headscore {folder} pairs")
    magics = shell.magics_manager.registry["HeadMagics"]
    cached = next(iter(magics.model_cache))
    run(shell, f"%headscore {folder} pairs")
    assert [one.model for one in magics.model_cache] == [cached.model]
    assert cached.size == sum(p.numel() * 4 for p in cached.model.parameters()) + sum(
        b.nbytes for b in cached.model.buffers()
    )
    _, listed = run(shell, "%headmodels")
    assert str(folder) in listed.outputs[0].data["text/html"]
    _, freed = run(shell, "%headfree")
    assert "unloaded" in freed.stdout
    assert list(magics.model_cache) == []
    assert "no model was loaded" in run(shell, "%headfree")[1].stdout


@pytest.mark.parametrize(
    ("code", "among"),
    [
        ("%headscore smo", "smollm2-135m"),
        ("%headscore mod", "model"),
        ("%headscore meta-llama/Llama-3.1", "meta-llama/Llama-3.1-8B"),
        ("ap = %headscore smo", "smollm2-135m"),
        ("x = 1\nap = %headscore smo", "smollm2-135m"),
        ("%%headscore mo", "model"),
        ("%headscore model gsm_s", "gsm_symbolic"),
        ("%headscore model pai", "pairs"),
        ("%headscore --method activation -n 3 model gsm_s", "gsm_symbolic"),
        ("%headscore model pairs --meth", "--method"),
        ("%headscore model pairs --method tay", "taylor-token"),
        ("%headscore model pairs --method=tay", "taylor-token"),
        ("%headscore model pairs --method att", "attattr"),
        ("%headscore model pairs --method first-token-", "first-token-ln"),
        ("%headscore model pairs --loss b", "batch-mean"),
        ("%headscore model pairs --encoding t", "trl"),
        ("%headablate model pairs --dtype bf", "bfloat16"),
        ("%headscore model pairs gsm_s", "gsm_symbolic"),
        ("%headgrid scores sco", "scores"),
        ("%headgrid sco", "scores"),
        ("%headdiff scores sco", "scores"),
        ("%headtasks log", "logic"),
    ],
)
def test_tab_completes(shell: InteractiveShell, code: str, among: str) -> None:
    shell.user_ns["scores"] = scores_of(shell)
    found = completions(shell, code)
    assert among in found
    prefix = re.split(r"[\s=]", code)[-1]
    assert all(word.startswith(prefix) for word in found)


def test_names_that_ipython_sets_are_not_suggested(shell: InteractiveShell) -> None:
    scores = shell.user_ns["mine"] = scores_of(shell)
    shell.user_ns["Out"] = {1: scores, 2: scores}  # drawable as two panels, like any mapping of scores
    assert "Out" not in completions(shell, "%headgrid O")
    error = error_of(shell, "%headgrid Oute")
    assert "mine" in error
    assert "Out" not in error.replace("'Oute'", "")


def test_reloading_replaces_magics_and_completion(shell: InteractiveShell) -> None:
    shell.run_line_magic("reload_ext", "headnb")
    for kind in (HeadMagics, TuningMagics):
        assert sum(isinstance(one, kind) for one in shell.configurables) == 1
    assert completions(shell, "%headscore smo") == ["smollm2-135m"]


@pytest.mark.parametrize("magic", ["reload_ext", "unload_ext"])
def test_reloading_and_unloading_free_the_loaded_models(shell: InteractiveShell, tmp_path: Any, magic: str) -> None:
    shell.user_ns["model"].save_pretrained(tmp_path)
    shell.user_ns["tokenizer"].save_pretrained(tmp_path)
    run(shell, f"%headscore {tmp_path} pairs -n 2")
    completions(shell, "%headscore smo")
    magics = shell.magics_manager.registry["HeadMagics"]
    (loaded,) = magics.model_cache
    freed = [weakref.ref(one) for one in (magics, loaded.model, shell.magics_manager.registry["TuningMagics"])]
    del magics, loaded
    shell.run_line_magic(magic, "headnb")
    gc.collect()
    assert [one() for one in freed] == [None] * 3
    shell.run_line_magic("load_ext", "headnb")
    assert "no model was loaded" in run(shell, "%headfree")[1].stdout


def test_unloading_removes_magics_settings_and_completion(shell: InteractiveShell) -> None:
    shell.run_line_magic("unload_ext", "headnb")
    assert [name for table in shell.magics_manager.magics.values() for name in table if name.startswith("head")] == []
    assert not {"HeadMagics", "TuningMagics"} & {type(one).__name__ for one in shell.configurables}
    assert not any(getattr(one, "matcher_identifier", "") == "headnb" for one in shell.Completer.custom_matchers)


@pytest.mark.parametrize("line", ["%headtasks math", "%headmodels", "%headmethods"])
def test_lists_are_drawn_once_and_returned(shell: InteractiveShell, line: str) -> None:
    _, captured = run(shell, f"table = {line}")
    assert len(captured.outputs) == 1
    table = shell.user_ns["table"]
    assert all(name in captured.outputs[0].data["text/html"] for name in table.names)
    assert len(run(shell, line)[1].outputs) == 1


def test_a_tables_text_is_escaped() -> None:
    from headnb.notebook.tables import NameTable

    table = NameTable(("a",), (("<script>alert(1)</script>",),), caption="<b>")
    assert "<script>" not in table._repr_html_()
    assert "<b>" not in table._repr_html_()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_cuts_long_rows_and_a_pipe_gets_them_whole(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    from headnb.notebook.tables import NameTable

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    rows = (("short", "a few words"), ("long", "word " * 30 + "end"))
    lines = repr(NameTable(("name", "description"), rows)).splitlines()
    assert len(lines) == 3
    assert (max(map(len, lines)) == 40) == terminal
    assert lines[-1].endswith("…" if terminal else "end")


def test_headscore_documents_itself() -> None:
    said = HeadMagics.headscore.__doc__
    assert all(option in said for option in ("--method", "--out", "--into", "%%headscore smollm2-135m"))


def test_the_interrupt_before_the_first_sample_is_one_line(shell: InteractiveShell) -> None:
    class Interrupted(list[Any]):
        """Task whose reading is interrupted."""

        def __getitem__(self, index: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError

    shell.user_ns["pairs"] = Interrupted(PAIRS)
    assert "interrupted before the first sample" in error_of(shell, "%headscore model pairs")
