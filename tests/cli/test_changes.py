"""Commands compare, ablate, finetune and export: the same results as the Python functions, and errors in one line."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING

import headnb
import pytest
import xarray as xr
from headnb.display.grid import HeadGrid
from headnb.storage.method_results import MethodResults
from headnb.tuning.tracking import HeadScoreCallback

from commands import run
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7"), ("3 + 3 = ", "6")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, scores of it before and after a change, and scores of other samples."""
    folder = tmp_path_factory.mktemp("results")
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    task = headnb.load_task(PAIRS, name="sums")
    headnb.score_heads(model, tokenizer, task, out=folder / "before.zarr")
    with headnb.scale_heads(model, {"L0H1": 0.2}):
        headnb.score_heads(model, tokenizer, task, out=folder / "after.zarr")
    headnb.score_heads(model, tokenizer, headnb.load_task([("a", "b"), ("c", "d")], name="other")).to_netcdf(
        folder / "other.nc"
    )
    return folder


def test_compare_shows_the_paired_differences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    grid = tmp_path / "x.heads.json"
    words = ("compare", folder / "before.zarr", folder / "after.zarr", "--alpha", 0.2, "--scale-free", "--save", grid)
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    scores = (headnb.open_scores(folder / f"{name}.zarr") for name in ("before", "after"))
    expected = headnb.compare(*scores, alpha=0.2, scale_free=True)
    top = expected.heads.top(1)
    assert HeadGrid.open(grid).payload["panels"] == HeadGrid.of(expected).payload["panels"]
    assert "q_value" in said
    assert said.splitlines()[0].endswith(" · sums · after − before")
    row = next(line for line in said.splitlines() if line.startswith(top.index[0]))
    assert f"{top['difference'].iloc[0]:.3g}" in row.split()
    assert f"{top['q_value'].iloc[0]:.3g}" in row.split()
    assert said.endswith(f"wrote {grid}\n")


def test_compare_show_and_export_take_urls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    before, after = ((folder / f"{name}.zarr").as_uri() for name in ("before", "after"))
    grid = tmp_path / "x.heads.json"
    assert run(monkeypatch, "compare", before, after, "--save", grid) == 0
    assert run(monkeypatch, "export", before, tmp_path / "x.csv") == 0
    capsys.readouterr()
    said = []
    for source in (before, folder / "before.zarr", grid.as_uri(), grid):
        assert run(monkeypatch, "show", source) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2] == said[3]
    assert run(monkeypatch, "show", "nosuch://user:secret@host/a.zarr") == 1
    assert "cannot open nosuch://host/a.zarr" in capsys.readouterr().err


def test_scores_of_one_file_name_are_told_apart_by_their_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    for name in ("before", "after"):
        shutil.copytree(folder / f"{name}.zarr", tmp_path / name / "x.zarr")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "compare", "before/x.zarr", "after/x.zarr") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(" · after/x.zarr − before/x.zarr")


def test_compare_needs_one_method(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    scores = headnb.open_scores(folder / "before.zarr")
    MethodResults({"activation": scores, "entropy": scores.assign_attrs(method="entropy")}).save(tmp_path / "om")
    assert run(monkeypatch, "compare", tmp_path / "om", tmp_path / "om") == 1
    assert "om has results of several methods; give those of one, such as" in capsys.readouterr().err


def test_compare_of_two_tasks_shows_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert run(monkeypatch, "compare", folder / "before.zarr", folder / "other.nc") == 0
    said = capsys.readouterr().out
    expected = headnb.rank_difference(
        headnb.open_scores(folder / "before.zarr"), headnb.open_scores(folder / "other.nc")
    ).heads.top(1)
    assert "difference of ranks, other − sums" in said
    assert "no head is tested" in said
    assert any(line.split()[:4] == [expected.index[0], *expected.astype(str).iloc[0]] for line in said.splitlines()), (
        said
    )


def test_ablate_says_what_the_python_call_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    words = ("--heads", "L0H1,L1H0", "-n", 4, "--factor", 0.5, "--controls", 2, "--seed", 3, "--tokens", 2)
    assert run(monkeypatch, "ablate", folder / "tiny", "gsm_symbolic", *words) == 0
    said = capsys.readouterr().out
    task = headnb.load_task("gsm_symbolic", n=4, seed=3)
    expected = headnb.ablate(tiny_model(), tiny_tokenizer(), task, "L0H1,L1H0", 0.5, controls=2, seed=3)
    change = f"{float(expected['mean_change']):+#.3g}".replace("-", "−")
    assert f"change {change} nats (95% interval" in said
    assert "in 2 draws" in said
    assert "\nbefore: " in said


def test_losses_are_kept_if_the_texts_are_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headnb.scoring.ablation.generate_both", interrupt)
    assert run(monkeypatch, "ablate", folder / "tiny", "gsm_symbolic", "--heads", "L0H1", "-n", 3) == 130
    said = capsys.readouterr()
    assert "change " in said.out
    assert "headnb: interrupted" in said.err


def test_finetune_saves_the_study_and_the_adapter_of_the_python_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    words = ("--steps", 2, "--every", "0,2", "-n", 4, "--batch-size", 2, "--learning-rate", 0.01, "--max-length", 300)
    words += ("--track", "gsm_symbolic", "--track", "sentence_reordering", "--out", tmp_path / "run")
    assert run(monkeypatch, "finetune", folder / "tiny", "gsm_symbolic", *words) == 0
    said = capsys.readouterr().out
    found = headnb.open_study(tmp_path / "run")
    names = ("gsm_symbolic", "sentence_reordering")
    expected = headnb.finetune(
        *headnb.load_model(folder / "tiny"),
        "gsm_symbolic",
        steps=2,
        every=[0, 2],
        batch_size=2,
        learning_rate=0.01,
        max_length=300,
        track=[headnb.load_task(name, n=4) for name in names],
    )
    xr.testing.assert_equal(found.patterns, expected.patterns)
    assert found.adapter == tmp_path / "run" / "adapter"
    assert "before (step 0)" in said
    assert "sentence_reordering" in said
    assert said.endswith(f"wrote {tmp_path / 'run'}\n")
    assert run(monkeypatch, "finetune", folder / "tiny", "gsm_symbolic", *words) == 1
    assert "already contains this fine-tuning" in capsys.readouterr().err


def test_files_of_one_name_are_tracked_under_their_paths(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    files = [tmp_path / name / "sums.jsonl" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text('{"prompt": "2 + 3 =", "completion": " 5"}\n' * 2)
    words = ("--steps", 1, "--every", 1, "--track", files[0], "--track", files[1], "--out", tmp_path / "run")
    assert run(monkeypatch, "finetune", folder / "tiny", files[0], *words) == 0
    assert list(headnb.open_study(tmp_path / "run").scores) == list(map(str, files))


@pytest.mark.parametrize(("last", "advice"), [(1, ""), (2, "; repeat the command with --resume to continue")])
def test_an_interrupted_finetune_resumes_and_says_so_if_there_is_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
    last: int,
    advice: str,
) -> None:
    words = ("finetune", folder / "tiny", "gsm_symbolic", "--steps", 3, "--every", 1, "-n", 3, "--batch-size", 1)
    words += ("--out", tmp_path / "run")
    on_step_end = HeadScoreCallback.on_step_end

    def interrupt(self: HeadScoreCallback, args: object, state: object, *rest: object, **options: object):
        on_step_end(self, args, state, *rest, **options)
        if state.global_step == last:
            raise KeyboardInterrupt  # before the checkpoint of this step is saved

    with monkeypatch.context() as patch:
        patch.setattr(HeadScoreCallback, "on_step_end", interrupt)
        assert run(patch, *words) == 130
    assert f" of 3 steps are done{advice}\n" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint-1").exists() == (last == 2)
    assert run(monkeypatch, *words, "--resume") == 0
    assert headnb.open_study(tmp_path / "run").study["step"].values.tolist() == [0, 1, 2, 3]


def test_export_writes_each_format_that_a_grid_has(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    names = ("x.csv", "x.png", "x.heads.json", "x.svg")
    assert run(monkeypatch, "export", folder / "before.zarr", *(tmp_path / name for name in names)) == 0
    pattern = headnb.open_scores(folder / "before.zarr").heads.pattern()
    with (tmp_path / "x.csv").open() as file:
        values = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    assert values["L1H2"] == pytest.approx(float(pattern.sel(layer=1, head=2)), rel=5e-3)  # a grid has three digits
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert run(monkeypatch, "export", tmp_path / "x.heads.json", tmp_path / "y.svg") == 0
    assert (tmp_path / "y.svg").read_bytes() == (tmp_path / "x.svg").read_bytes()


def test_export_writes_nothing_if_a_format_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    assert run(monkeypatch, "export", folder / "before.zarr", tmp_path / "x.csv", tmp_path / "x.gif") == 1
    assert "file format from the name 'x.gif'" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["compare", "nowhere.zarr", "b.zarr"], 1, "there are no scores at nowhere.zarr"),
        (["compare", "a.zarr", "b.zarr", "--save", "x.gif"], 1, "file format from the name 'x.gif'"),
        (["compare", "a.zarr"], 2, "Missing argument"),
        (["ablate", "./nowhere", "gsm_symbolic"], 2, "Missing option"),
        (["ablate", "./nowhere", "gsm_symbolic", "--heads", "3.5"], 1, "'3.5'"),
        (["ablate", "./nowhere", "gsm_symbolic", "--heads", "L3H5"], 1, "no such file or folder"),
        (["finetune", "./nowhere", "gsm_symbolic"], 2, "Missing option"),
        (["finetune", "./nowhere", "gsm_symbolic", "--out", "x", "--every", "often"], 2, "a list such as 0,1,2,5,10"),
        (["finetune", "./nowhere", "gsm_symbolc", "--out", "x"], 1, "did you mean 'gsm_symbolic'"),
        (["export", "nowhere.zarr", "x.csv"], 1, "nowhere.zarr does not exist"),
    ],
)
def test_errors_name_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert run(monkeypatch, *words) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    if code == 1:
        assert captured.err.count("\n") == 1


def test_ablation_of_the_command_reports_progress(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The display counts samples, as for scoring."""
    states = []
    monkeypatch.setattr("headnb.display.live.LiveGrid.show", lambda _, state: states.append((state.done, state.total)))
    assert run(monkeypatch, "ablate", folder / "tiny", "gsm_symbolic", "--heads", "L0H1", "-n", 3, "--tokens", 0) == 0
    assert states[-1] == (3, 3)
