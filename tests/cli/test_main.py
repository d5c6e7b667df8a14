"""Commands of `headnb`: files, exit codes, stdout and stderr."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import headnb
import pytest
import xarray as xr
from headnb.cli import doctor
from headnb.display.grid import HeadGrid
from headnb.scoring import one_pass

from blocked_imports import blocked
from commands import run
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_score_writes_what_the_python_call_returns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    store, grid = tmp_path / "x.zarr", tmp_path / "x.heads.json"
    code = run(monkeypatch, "score", folder, "gsm_symbolic", "-n", 5, "--seed", 2, "--out", store, "--save", grid)
    said = capsys.readouterr()
    task = headnb.load_task("gsm_symbolic", n=5, seed=2)
    expected = headnb.score_heads(tiny_model(), tiny_tokenizer(), task, seed=2)
    assert code == 0
    xr.testing.assert_equal(headnb.open_scores(store), expected)
    assert HeadGrid.open(grid).payload["panels"][0]["samples"] == 5
    assert "(5 samples)" in said.out
    assert f"wrote {store}\nwrote {grid}" in said.out
    assert "Reliability" not in said.err


def test_score_of_several_tasks_writes_a_store_for_each_and_show_draws_them_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    out, grid = tmp_path / "run", tmp_path / "x.heads.json"
    assert run(monkeypatch, "score", folder, "gsm_symbolic", "gcd", "-n", 5, "--out", out, "--save", grid) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    drawn = HeadGrid.open(grid).payload
    assert [panel["title"] for panel in drawn["panels"]] == ["gsm_symbolic", "gcd"]
    stores = [out / "gsm_symbolic.zarr", out / "gcd.zarr"]
    assert [headnb.open_scores(store).sizes["sample"] for store in stores] == [5, 5]
    assert run(monkeypatch, "show", *stores, "--save", grid) == 0
    assert [panel["values"] for panel in HeadGrid.open(grid).payload["panels"]] == [
        panel["values"] for panel in drawn["panels"]
    ]
    assert run(monkeypatch, "show", stores[0], grid) == 1
    assert "is drawn alone" in capsys.readouterr().err


def test_score_takes_the_encoding_and_the_options_of_the_method(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    words = ("--encoding", "trl", "--method", "attattr", "--options", "steps=3", "--out", tmp_path / "x.zarr")
    assert run(monkeypatch, "score", folder, "gsm_symbolic", "-n", 3, *words) == 0
    task = headnb.load_task("gsm_symbolic", n=3)
    expected = headnb.score_heads(
        tiny_model(), tiny_tokenizer(), task, encoding="trl", method="attattr", options={"steps": 3}
    )
    found = headnb.open_scores(tmp_path / "x.zarr")
    xr.testing.assert_equal(found, expected)
    assert (found.attrs["encoding"], found.attrs["option_steps"]) == ("trl", 3)


def test_score_loads_the_revision(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {}

    def load(model: str, **options: Any) -> None:
        asked.update(options, model=model)
        raise headnb.HeadnbError("not loaded here")

    monkeypatch.setattr("headnb.models.loading.load_model", load)
    words = ("--revision", "v2", "--adapter", "./a", "--dtype", "float32")
    assert run(monkeypatch, "score", "somebody/model", "gsm_symbolic", "-n", 3, *words) == 1
    assert "not loaded here" in capsys.readouterr().err
    expected = {"model": "somebody/model", "revision": "v2", "adapter": "./a", "device": "auto", "dtype": "float32"}
    assert asked == expected


def test_a_second_score_with_other_settings_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    words = ("score", folder, "gsm_symbolic", "-n", 4, "--out", tmp_path / "x.zarr")
    assert run(monkeypatch, *words) == 0
    assert run(monkeypatch, *words, "--method", "taylor-token") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "method 'activation', not 'taylor-token'" in last


def test_control_c_keeps_what_is_scored_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    words = ("score", folder, "gsm_symbolic", "-n", 5, "--batch-tokens", 1, "--out", tmp_path / "x.zarr")
    score, batches = one_pass.run_pass, iter(range(9))

    def score_until_control_c(*args: Any, **options: Any) -> Any:
        if next(batches) == 2:
            signal.raise_signal(signal.SIGINT)
        return score(*args, **options)

    monkeypatch.setattr(one_pass, "run_pass", score_until_control_c)
    assert run(monkeypatch, *words) == 130
    said = f"interrupted; the scores so far are in {tmp_path / 'x.zarr'}; run the same command to continue"
    assert said in capsys.readouterr().err
    assert headnb.open_scores(tmp_path / "x.zarr").sizes["sample"] == 2
    assert run(monkeypatch, *words) == 0
    assert headnb.open_scores(tmp_path / "x.zarr").attrs["complete"] == 1
    assert next(batches) == 6  # only the interrupted batch was scored again


def test_control_c_before_the_first_sample_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    monkeypatch.setattr("headnb.models.loading.load_model", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert run(monkeypatch, "score", folder, "gsm_symbolic", "-n", 5) == 130
    assert capsys.readouterr().err.strip() == "headnb: interrupted"


def test_control_c_while_the_picture_is_made_says_that_the_store_has_the_scores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(HeadGrid, "of", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert run(monkeypatch, "score", folder, "gsm_symbolic", "-n", 3, "--out", tmp_path / "x.zarr") == 130
    message = f"headnb: interrupted; the scores are in {tmp_path / 'x.zarr'}"
    assert message in capsys.readouterr().err
    assert headnb.open_scores(tmp_path / "x.zarr").attrs["complete"] == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["score", "./nowhere", "gsm_symbolic"], 1, "no such file or folder"),
        (["score", "./nowhere", "gsm_symbolic", "--method", "activaton"], 1, "did you mean 'activation'"),
        (["score", "./nowhere", "gsm_symbolic", "--encoding", "tlr"], 1, "did you mean 'trl'"),
        (["score", "./nowhere", "gsm_symbolic", "--options", "steps"], 2, "write NAME=NUMBER"),
        (["score", "./nowhere", "gsm_symbolic", "--options", "steps=5,steps=6"], 2, "steps is given twice"),
        (["score", "./nowhere", "gsm_symbolic", "--method", "gates", "--options", "step=5"], 1, "did you mean 'steps'"),
        (["score", "./nowhere", "gsm_symbolic", "--encodng", "trl"], 2, "--encoding"),
        (["score", "./nowhere", "gsm_symbolic", "--method", "activation,"], 2, "no spaces, such as activation,entropy"),
        (["score", "./nowhere", "gsm_symbolic", "--split", "trian"], 1, "did you mean 'train'"),
        (["score", "./nowhere", "gsm_symbolic", "--config", "main"], 1, "config applies to data sets of the hub"),
        (["roles", "./nowhere", "--copy", "retreival"], 2, "did you mean 'retrieval'"),
        (["suite", "plan", "--set", "n"], 2, "--set 'n' must be NAME=VALUE"),
        (["score", "./nowhere", "gsm_symbolic", "--save", "x.gif"], 1, "file format from the name 'x.gif'"),
        (["score", "./nowhere", "gsm_symbolic", "--save", "no/folder/x.svg"], 1, "there is no folder no/folder"),
        (["score", "smollm2-135m", "gsm_symbolic", "svmp"], 1, "did you mean 'svamp'"),
        (["score", "smollm2-135m", "gsm_symbolc"], 1, "did you mean 'gsm_symbolic'"),
        (["show", "nowhere.zarr"], 1, "nowhere.zarr does not exist"),
        (["tasks", "nosuchword"], 1, "no task has 'nosuchword'"),
        (["scor"], 2, "No such command 'scor'"),
        (["score", "smollm2-135m"], 2, "Missing argument"),
        (["score", "a", "b", "-n", "many"], 2, "valid int"),
    ],
)
def test_errors_are_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert run(monkeypatch, *words) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    if code == 1:
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("headnb: ")


def test_show_draws_scores_and_grids_and_writes_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scores = headnb.score_heads(tiny_model(), tiny_tokenizer(), [("2 + 3 = ", "5"), ("a", "b"), ("c", "d"), ("e", "f")])
    scores.to_netcdf(tmp_path / "x.nc")
    files = [
        f"--{form}={tmp_path / 'y'}{ending}"
        for form, ending in (("svg", ".svg"), ("html", ".html"), ("save", ".heads.json"))
    ]
    assert run(monkeypatch, "show", tmp_path / "x.nc", *files) == 0
    first = capsys.readouterr().out
    assert run(monkeypatch, "show", tmp_path / "y.heads.json") == 0
    second = capsys.readouterr().out
    top = scores.heads.top(1).index[0]
    assert f"Top heads: {top} " in first
    assert "layer   1 " in first
    assert first.startswith(second)
    assert ET.parse(tmp_path / "y.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    page = (tmp_path / "y.html").read_text()
    assert 'id="headnb-grid"' in page
    assert "default-src 'none'" in page.replace("&#x27;", "'")


@pytest.mark.parametrize(
    ("name", "start"), [("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.csv", b"name,layer,head,value")]
)
def test_show_saves_the_grid_by_the_suffix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, start: bytes
) -> None:
    HeadGrid.of(headnb.score_heads(tiny_model(), tiny_tokenizer(), [("a", "b")])).save(tmp_path / "x.heads.json")
    assert run(monkeypatch, "show", tmp_path / "x.heads.json", "--save", tmp_path / name) == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_show_refuses_a_picture_of_another_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    HeadGrid.of(headnb.score_heads(tiny_model(), tiny_tokenizer(), [("a", "b")])).save(tmp_path / "x.heads.json")
    assert run(monkeypatch, "show", tmp_path / "x.heads.json", "--svg", tmp_path / "x.png") == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("command", "name"), [("tasks", "gsm8k"), ("models", "smollm2-135m"), ("methods", "activation")]
)
def test_lists_name_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    assert run(monkeypatch, command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(name) for line in lines)
    assert not any(line.endswith("…") for line in lines)  # in a pipe, rows are not cut


def test_doctor_names_what_is_missing_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in {"trl", "scipy"} else found(name))
    monkeypatch.setenv("HEADNB_DATA", str(tmp_path / "nowhere"))
    report = {finding.name: finding for finding in doctor.diagnose()}
    assert report["scipy"].remedy == "pip install scipy"
    assert report["[train]"].remedy == "pip install 'headnb[train]'"
    assert "trl" in report["[train]"].found
    assert report["torch"].remedy == ""
    assert "no such folder" in report["HEADNB_DATA"].remedy
    assert report["cpu"].remedy == ""


def test_doctor_finds_nothing_wrong_here() -> None:
    """This also imports every package that the project requires; lm_eval is not in the extra `all`."""
    report = {finding.name: finding for finding in doctor.diagnose()}
    assert {"[train]", "[tasks]", "[suite]", "[lab]", "[plot]", "[harness]"} <= report.keys()
    allowed = set() if find_spec("lm_eval") else {"[harness]"}
    assert {name for name, finding in report.items() if finding.remedy} == allowed


@pytest.mark.parametrize(
    ("broken", "line", "remedy"),
    [
        ("headnb.tuning.finetuning", "[train]", "pip install --force-reinstall --no-deps headnb"),
        ("headnb.experiments", "[suite]", "pip install --force-reinstall --no-deps headnb"),
        ("headnb.notebook.magics", "headnb", "pip install --force-reinstall --no-deps headnb"),
        ("trl", "[train]", "pip install --force-reinstall trl"),
        ("bokeh", "[suite]", "pip install --force-reinstall bokeh"),
        ("reasoning_gym", "[tasks]", "pip install --force-reinstall reasoning-gym"),
        ("netCDF4", "netcdf4", "pip install --force-reinstall netcdf4"),
    ],
)
def test_doctor_tries_what_it_reports_on(broken: str, line: str, remedy: str) -> None:
    """Each package is installed, so only the import fails."""
    with blocked(broken, ImportError(f"{broken} is broken")):
        report = {finding.name: finding for finding in doctor.diagnose()}
    assert f"{broken} is broken" in report[line].found
    assert "complete" not in report[line].found
    assert report[line].remedy == remedy


def test_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"headnb {importlib.metadata.version('headnb')}\n"
    assert headnb.__version__ == importlib.metadata.version("headnb")


def test_help_imports_neither_torch_nor_transformers() -> None:
    program = (
        "import sys; from headnb.cli import main\n"
        "try: main.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'zarr', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "score" in done.stdout


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["suite", "plan", "--set", "n=3", "--set", "n = 4"], "--set 'n'"),
        (["suite", "status", "--profile", "demo", "--profile=small"], "--profile"),
        (["show", "x.heads.json", "--html", "a.html", "--html", "b.html"], "--html"),
        (["score", "smollm2-135m", "gcd", "-n", 3, "--samples", 4], "-n"),
        (["score", "smollm2-135m", "gcd", "-n", 1, "-n2"], "-n"),
    ],
)
def test_an_option_given_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[Any], option: str
) -> None:
    assert run(monkeypatch, *words) == 2
    assert capsys.readouterr().err.endswith(f"{option} is given twice\n")
