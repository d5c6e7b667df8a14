"""Run folder: files are read back as written, files are never incomplete, and errors name the notebook to run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.errors import HeadnbError
from headnb.experiments.folder import Run, Settings
from headnb.storage.files import read_json, remove_folder, safe_file_name, write_json

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings("tiny", ("gsm_symbolic", "gcd"), n=4, max_length=256, seed=3)


def test_a_run_is_reopened_with_its_settings(tmp_path: Path) -> None:
    Run.create(tmp_path, SETTINGS)
    again = Run(str(tmp_path))
    assert again.settings == SETTINGS
    assert again.versions["headnb"] == headnb.__version__


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path, SETTINGS)
    with pytest.raises(HeadnbError, match="n 4, not 5"):
        Run.create(tmp_path, Settings("tiny", ("gsm_symbolic", "gcd"), n=5, max_length=256, seed=3))
    assert Run.create(tmp_path, SETTINGS).settings == SETTINGS


def test_scores_before_and_after_are_those_of_the_runs_samples(tmp_path: Path, model, tokenizer) -> None:
    run = Run.create(tmp_path, SETTINGS)
    run.score(model, tokenizer, "gcd", run.paths.before("gcd"))
    run.score(model, tokenizer, "gcd", run.paths.after("gcd", 1, "gcd"))
    write_json(run.paths.finetuning("gcd", 1) / "result.json", {})
    task = headnb.load_task("gcd", n=4, seed=3)
    expected = headnb.score_heads(model, tokenizer, task, max_length=256, seed=3)
    ((before, after),) = run.pairs("gcd")
    np.testing.assert_array_equal(before.score, expected.score)
    np.testing.assert_array_equal(after.sample, before.sample)
    assert run.trained == {"gcd": (1,)}


def test_a_fine_tuning_counts_only_when_it_is_complete(tmp_path: Path) -> None:
    run = Run.create(tmp_path, SETTINGS)
    run.paths.finetuning("gcd", 0).mkdir(parents=True)
    write_json(run.paths.finetuning("gcd", 10) / "result.json", {"loss": 1.0})
    write_json(run.paths.finetuning("gcd", 2) / "result.json", {"loss": 2.0})
    assert run.trained == {"gcd": (2, 10)}
    assert run.result("gcd", 10) == {"loss": 1.0}


@pytest.mark.parametrize(
    ("read", "notebook"),
    [
        (lambda run: run.before("gcd"), "01_patterns"),
        (lambda run: run.after("gcd", 0, "gcd"), "02_finetune for gcd, seed 0"),
        (lambda run: run.seeds("gcd"), "02_finetune"),
        (lambda run: run.findings.numbers("composition"), "04_composition"),
        (lambda run: run.findings.arrays("rapid_change"), "05_rapid_change"),
    ],
)
def test_an_error_about_a_missing_file_names_the_notebook_to_run(tmp_path: Path, read, notebook: str) -> None:
    with pytest.raises(HeadnbError, match=notebook):
        read(Run.create(tmp_path, SETTINGS))


def test_a_folder_without_a_run_names_the_first_notebook(tmp_path: Path) -> None:
    with pytest.raises(HeadnbError, match="01_patterns"):
        _ = Run(tmp_path / "nowhere").settings


def test_the_error_for_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    run = Run.create(tmp_path, SETTINGS)
    with pytest.raises(HeadnbError, match="did you mean 'gsm_symbolic'"):
        run.samples.scored("gsm_symbolc")
    with pytest.raises(HeadnbError, match="did you mean 'selectivity'"):
        run.findings.numbers("selectivty")


def test_a_finding_keeps_numbers_and_arrays(tmp_path: Path) -> None:
    run = Run.create(tmp_path, SETTINGS)
    arrays = xr.Dataset({"gini": ("task", np.array([0.3, 0.5]))}, coords={"task": ["a", "b"]})
    values = {"r2": np.float32(0.5), "bad": math.nan, "tasks": np.array([1, 2]), "nested": {"x": (np.int64(1),)}}
    run.findings.save("selectivity", values, arrays)
    assert run.findings.numbers("selectivity") == {"r2": 0.5, "bad": None, "tasks": [1, 2], "nested": {"x": [1]}}
    xr.testing.assert_identical(run.findings.arrays("selectivity"), arrays)


def test_a_full_disk_leaves_what_was_there_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_json(tmp_path / "x.json", {"a": 1})
    monkeypatch.setattr("pathlib.Path.write_text", _no_space)
    with pytest.raises(HeadnbError, match=r"cannot write .*x\.json: No space left on device"):
        write_json(path, {"a": 2})
    assert read_json(path, "") == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def _no_space(*_args: object, **_kwargs: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("gsm8k", "gsm8k"),
        ("owner/data set", "owner-data-set"),
        ("../x/my.jsonl", "x-my"),
        ("/x/m-1.5b", "m-1.5b"),
        ("..", "unnamed"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_any_task_or_model_has_a_file_name(task: str, name: str) -> None:
    assert safe_file_name(task) == name


@pytest.mark.parametrize(
    "tasks",
    [("/a/x.jsonl", "/b/x.jsonl"), ("owner/x", "owner-x"), ("cafe\u0301", "caf\u00e9"), ("GCD", "gcd")],
    ids=["two folders", "a slash", "two Unicode forms", "capital letters"],
)
def test_two_tasks_whose_answers_would_share_a_file_are_refused(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    with pytest.raises(HeadnbError, match="two tasks have the same file name"):
        Run.create(tmp_path, Settings("tiny", tasks))
    stored = {"format": 1, "model": "tiny", "tasks": list(tasks), "n": 4, "max_length": 256, "seed": 3}
    write_json(tmp_path / "run.json", stored)  # as an earlier version wrote it
    with pytest.raises(HeadnbError, match="two tasks have the same file name"):
        _ = Run(tmp_path).settings


def test_an_interrupted_removal_leaves_no_partial_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "trainer"

    def fill() -> None:
        (folder / "checkpoint-2").mkdir(parents=True)
        (folder / "checkpoint-2" / "weights").touch()

    def killed(path: Path, **_: object) -> None:
        if path.exists():
            (path / "checkpoint-2" / "weights").unlink()
            raise KeyboardInterrupt

    fill()
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(folder)
    assert not folder.exists()
    fill()
    remove_folder(folder)  # the leftovers of the interrupted removal do not matter
    assert list(tmp_path.iterdir()) == []
