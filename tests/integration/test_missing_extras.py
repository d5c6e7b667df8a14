# ruff: noqa: F811  a test's argument is the fixture of that name
"""Without an extra, each entry point that needs it raises a one-line error with the install command."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError
from headnb.analysis.mixtures import mixture
from headnb.display.charts import plots
from headnb.display.report import ReportContents, Section, page
from headnb.errors import optional_import
from headnb.explorer.task_sources import TaskSources
from headnb.suite import notebooks
from headnb.suite.execution import run_suite
from headnb.tasks import procedural
from headnb.tasks.registry import CARDS
from headnb.tuning.learning import finetune_and_merge
from peft import LoraConfig, get_peft_model

import suites
from blocked_imports import blocked
from commands import run as run_command
from ipython_shells import error_of, shell  # noqa: F401  a fixture
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headnb.display.charts.chart import Chart

PAIRS = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7")]


@dataclass
class Place:
    """Arguments for the entry points."""

    model: Any
    tokenizer: Any
    folder: Path
    """Folder of the model."""
    adapter: Path
    tuned: headnb.FineTuned
    tmp_path: Path

    @property
    def suite(self) -> Path:
        return suites.write_suite(self.tmp_path / "suite")


@pytest.fixture(scope="module")
def tuned() -> headnb.FineTuned:
    return headnb.finetune(tiny_model(), tiny_tokenizer(), PAIRS, steps=1, track=[], batch_size=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a model and of an adapter; tests do not change them."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_model().save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    base, _ = headnb.load_model(folder / "tiny")
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder / "lora")
    return folder / "tiny", folder / "lora"


@pytest.fixture
def place(model, tokenizer, saved, tuned, tmp_path) -> Place:
    return Place(model, tokenizer, *saved, tuned, tmp_path)


def applied(place: Place) -> None:
    with place.tuned.applied(place.model):
        pass


def track_checkpoints(place: Place) -> None:
    checkpoint = shutil.copytree(place.adapter, place.tmp_path / "checkpoint-3")
    headnb.track_checkpoints(checkpoint, PAIRS, base=place.model, tokenizer=place.tokenizer)


def chart() -> Chart:
    return plots.distribution({"sums": xr.DataArray(np.ones((2, 3)), dims=("layer", "head"))})


def run_graph(place: Place) -> None:
    out = place.tmp_path / "out"
    nodes = suites.graph(place.suite, out)
    run_suite(nodes, out)


def run_notebook(place: Place) -> None:
    notebook = suites.write_notebook(place.tmp_path / "x.ipynb", "n: int = 1", "n")
    notebooks.run_notebook(notebook, place.tmp_path / "out.ipynb", progress=False)


def html_page(place: Place) -> None:
    notebook = suites.write_notebook(place.tmp_path / "x.ipynb", "n: int = 1", "n")
    notebooks.html_page(notebook, place.tmp_path / "x.html")


PYTHON: dict[str, tuple[Callable[[Place], object], list[str], str]] = {
    "finetune": (lambda at: headnb.finetune(at.model, at.tokenizer, PAIRS, steps=1), ["trl", "peft"], "train"),
    "finetune in place": (
        lambda at: headnb.finetune(at.model, at.tokenizer, PAIRS, steps=1, inplace=True),
        ["trl", "peft"],
        "train",
    ),
    "learn": (
        lambda at: finetune_and_merge(at.model, at.tokenizer, PAIRS, full=False, steps=1),
        ["trl", "peft"],
        "train",
    ),
    "load_model of an adapter": (lambda at: headnb.load_model(at.adapter), ["peft"], "train"),
    "load_model with an adapter": (lambda at: headnb.load_model(at.folder, adapter=at.adapter), ["peft"], "train"),
    "track_checkpoints": (track_checkpoints, ["peft"], "train"),
    "FineTuned.applied": (applied, ["peft"], "train"),
    "score_heads on a cluster": (
        lambda at: headnb.score_heads(at.model, at.tokenizer, PAIRS, client=object()),
        ["distributed"],
        "suite",
    ),
    "run_notebook": (run_notebook, ["papermill", "nbclient", "ipykernel"], "suite"),
    "html_page": (html_page, ["nbconvert"], "suite"),
    "read_suite": (lambda at: suites.graph(at.suite, at.tmp_path), ["yaml", "papermill"], "suite"),
    "run_suite": (run_graph, ["distributed", "dask", "cryptography"], "suite"),
    "Chart.bokeh": (lambda _: chart().bokeh(), ["bokeh"], "suite"),
    "Chart.interactive": (lambda _: chart().interactive(), ["bokeh"], "suite"),
    "report": (lambda _: page(ReportContents("x", (Section("x", charts=(chart(),)),))), ["bokeh"], "suite"),
    "load_task": (lambda _: headnb.load_task("gcd", n=3), ["reasoning_gym", "pycosat"], "tasks"),
    "evaluate": (lambda at: headnb.evaluate(at.model, at.tokenizer, "gcd"), ["reasoning_gym"], "tasks"),
    "mixture": (lambda _: mixture({"gcd": 1.0}, 8, {"gcd": "gcd"}), ["reasoning_gym"], "tasks"),
    "explorer": (lambda _: TaskSources().load("gcd", 3, 0), ["reasoning_gym"], "tasks"),
    "suite of a procedural task": (lambda at: suites.graph(at.suite, at.tmp_path), ["reasoning_gym"], "tasks"),
}
NAMES = {"reasoning_gym": "reasoning-gym", "pycosat": "reasoning-gym", "yaml": "pyyaml"}


def cases(entries: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(entry, package, extra, id=f"{name}-{package}")
        for name, (entry, packages, extra) in entries.items()
        for package in packages
    ]


def check_line(message: str, package: str, extra: str) -> None:
    assert f"this needs {NAMES.get(package, package)}: pip install 'headnb[{extra}]'" in message
    assert "\n" not in message.strip()


@pytest.mark.usefixtures("nothing_outside")
@pytest.mark.parametrize(("entry", "package", "extra"), cases(PYTHON))
def test_a_python_call_says_what_to_install(entry, package, extra, place):
    with blocked(package), pytest.raises(HeadnbError) as caught:
        entry(place)
    check_line(str(caught.value), package, extra)


COMMANDS = {
    "score --adapter": (["score", "{folder}", "gsm_symbolic", "--adapter", "{adapter}"], ["peft"], "train"),
    "score an adapter": (["score", "{adapter}", "gsm_symbolic"], ["peft"], "train"),
    "score": (["score", "{folder}", "gcd", "-n", "3"], ["reasoning_gym"], "tasks"),
    "demo": (["demo", "--out", "{tmp_path}"], ["papermill", "ipykernel"], "suite"),
    "suite plan": (["suite", "plan", "{suite}", "--profile", "tiny"], ["papermill", "yaml"], "suite"),
    "suite run": (
        ["suite", "run", "{suite}", "--profile", "tiny", "--out", "{tmp_path}/o"],
        ["papermill", "distributed"],
        "suite",
    ),
    "suite of a procedural task": (["suite", "plan", "{suite}", "--profile", "tiny"], ["reasoning_gym"], "tasks"),
}


@pytest.mark.usefixtures("nothing_outside")
@pytest.mark.parametrize(("words", "package", "extra"), cases(COMMANDS))
def test_a_command_says_what_to_install(words, package, extra, place, monkeypatch, capsys):
    words = [
        word.format(suite=place.suite, **{name: getattr(place, name) for name in ("folder", "adapter", "tmp_path")})
        for word in words
    ]
    with blocked(package):
        assert run_command(monkeypatch, *words) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("headnb: ") == 1
    check_line(error.splitlines()[-1], package, extra)


MAGICS = {
    "%headsft": ("%headsft model pairs --steps 2", ["trl", "peft"], "train"),
    "%headsft on a procedural task": ("%headsft model gcd --steps 2", ["reasoning_gym"], "tasks"),
    "%headscore": ("%headscore model gcd -n 2", ["reasoning_gym"], "tasks"),
    "%headscore --adapter": ("%headscore {folder} pairs --adapter {adapter}", ["peft"], "train"),
    "%headablate": ("%headablate model gcd --heads L0H1", ["reasoning_gym"], "tasks"),
}


@pytest.mark.usefixtures("nothing_outside")
@pytest.mark.parametrize(("line", "package", "extra"), cases(MAGICS))
def test_a_magic_says_what_to_install(line, package, extra, place, shell):
    with blocked(package):
        message = error_of(shell, line.format(folder=place.folder, adapter=place.adapter))
    check_line(message, package, extra)


@pytest.mark.parametrize("package", ["reasoning_gym", "datasets", "trl"])
@pytest.mark.parametrize("name", ["gsm_symbolc", "no such task"])
@pytest.mark.usefixtures("nothing_outside")
def test_an_unknown_task_is_never_a_missing_module(name, package):
    with blocked(package), pytest.raises(HeadnbError, match="unknown task"):
        headnb.load_task(name)


@pytest.mark.usefixtures("nothing_outside")
def test_a_registered_task_without_datasets_is_one_line():
    with blocked("datasets"), pytest.raises(HeadnbError, match=r"datasets cannot be imported.*pip install datasets$"):
        headnb.load_task("gsm8k")


def test_a_broken_package_is_not_called_missing():
    with (
        blocked("trl", ImportError("libfoo.so.1: cannot open shared object file", name="trl")),
        pytest.raises(HeadnbError, match=r"headnb\[train\] cannot be imported: libfoo.so.1: .*; `headnb doctor`"),
        optional_import("train"),
    ):
        import trl  # noqa: F401


@pytest.mark.parametrize(("name", "split"), procedural.BUNDLED)
@pytest.mark.parametrize("n", [None, 1, 32, 64])
def test_bundled_samples_are_those_that_reasoning_gym_makes(name, split, n, monkeypatch):
    with blocked("reasoning_gym"):
        bundled = headnb.load_task(name, split=split, n=n)
    monkeypatch.setattr(procedural, "question_answers", procedural.generated)
    assert bundled == headnb.load_task(name, split=split, n=n)


@pytest.mark.parametrize(("version", "imported"), [(procedural.BUNDLED_VERSION, False), ("0.2.0", True)])
def test_bundled_samples_need_no_import_of_the_reasoning_gym_that_made_them(version, imported, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    with blocked("reasoning_gym"), pytest.raises(HeadnbError) if imported else contextlib.nullcontext():
        assert len(headnb.load_task("gsm_symbolic", n=8)) == 8


@pytest.mark.parametrize("asked", [{"n": 65}, {"n": 8, "seed": 1}, {"n": 8, "split": "validation"}])
def test_other_samples_than_the_bundled_ones_name_the_extra_and_what_there_is(asked):
    with blocked("reasoning_gym"), pytest.raises(HeadnbError) as caught:
        headnb.load_task("gsm_symbolic", **asked)
    check_line(str(caught.value), "reasoning_gym", "tasks")
    assert "64 samples with seed 0 of gsm_symbolic (test)" in str(caught.value)


def test_the_data_files_equal_the_output_of_the_script():
    import write_procedural

    assert write_procedural.samples() == procedural.SAMPLES.read_text()
    assert write_procedural.task_list() == procedural.TASKS.read_text()


def test_all_tasks_are_listed_without_reasoning_gym():
    with blocked("reasoning_gym"):
        listed = set(headnb.tasks.loading.known_tasks())
    assert {"gcd", "gsm_symbolic", "sentence_reordering"} | set(CARDS) <= listed


@pytest.mark.usefixtures("nothing_outside")
def test_a_task_that_this_reasoning_gym_lacks_is_one_line(monkeypatch):
    import reasoning_gym

    def unknown(name, **_):
        raise ValueError(f"Dataset '{name}' not registered")

    monkeypatch.setattr(reasoning_gym, "create_dataset", unknown)
    with pytest.raises(HeadnbError, match="reasoning-gym cannot make the task 'gcd': Dataset 'gcd' not registered"):
        headnb.load_task("gcd")
