"""Notebook parameters: text that papermill passes is rejected if another type is expected."""

from __future__ import annotations

import ast

import nbformat
import papermill
import pytest
from headnb.errors import HeadnbError
from headnb.suite import notebooks
from headnb.suite.parameters import check_parameters
from papermill.cli import _resolve_type  # how `papermill -p NAME VALUE` parses a value
from papermill.exceptions import PapermillExecutionError

CELLS = [
    "tasks: list[str] = ['gcd', 'lcm']\nfull: bool = False\nn: int = 3\nrate: float = 0.1  # of what\nname: str = 'x'",
    "other: Strange = 1\nprint(other)",
    "%load_ext headnb",
]
RIGHT = {"tasks": ["gcd", "lcm"], "full": False, "n": 3, "rate": 0.1, "name": "x", "other": 1}
NOTEBOOKS = sorted(notebooks.notebooks_folder().glob("*.ipynb"))


@pytest.mark.parametrize(
    ("name", "text"), [("full", "True"), ("n", "4"), ("rate", "2e-4"), ("rate", "1"), ("name", "y")]
)
def test_right_values_pass(name, text):
    check_parameters({"In": CELLS, **RIGHT, name: _resolve_type(text)})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("full", "false", "parameter full must be bool, not 'false' (papermill takes -p full True or -p full False)"),
        ("full", "true", "parameter full must be bool, not 'true'"),
        ("full", "0", "parameter full must be bool, not 0"),
        ("n", "many", "parameter n must be int, not 'many'"),
        ("n", "2.5", "parameter n must be int, not 2.5"),
        ("n", "True", "parameter n must be int, not True"),
        ("n", "None", "parameter n must be int, not None"),
        ("rate", "fast", "parameter rate must be float, not 'fast'"),
        ("name", "2024", "must be str, not 2024 (papermill takes text that looks like a number as -r name 2024)"),
        ("tasks", "gcd", "parameter tasks must be list[str], not 'gcd' (papermill takes lists as -y \"tasks: [gcd]\")"),
        ("tasks", '["gcd"]', "parameter tasks must be list[str], not '[\"gcd\"]'"),
    ],
)
def test_text_of_another_type_is_refused_in_one_line(name, text, message):
    with pytest.raises(HeadnbError) as refused:
        check_parameters({"In": CELLS, **RIGHT, name: _resolve_type(text)})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_task_that_is_listed_twice_is_refused():
    with pytest.raises(HeadnbError, match="parameter tasks lists 'gcd' twice"):
        check_parameters({"In": CELLS, **RIGHT, "tasks": ["gcd", "lcm", "gcd"]})


def test_a_changed_parameters_cell_counts():
    check_parameters({"In": [*CELLS, "n: str = 'a'"], **RIGHT, "n": "a"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_checks_its_parameters_before_it_does_anything(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    index = next(index for index, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    lines = cells[index + 1].source.splitlines()
    before = ast.parse("\n".join(lines[: lines.index("check_parameters(globals())")]))
    assert all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in before.body)
    defaults = {}
    exec(cells[index].source, defaults)  # the defaults must pass
    check_parameters({**defaults, "In": ["", cells[index].source]})
    with pytest.raises(HeadnbError):
        check_parameters({**defaults, "In": ["", cells[index].source], "run_folder": 3, "run_folders": 3, "out": 3})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"full": "false"}, "parameter full of 02_finetune.ipynb must be bool, not 'false'"),
        ({"steps": "3"}, "parameter steps of 02_finetune.ipynb must be int, not '3'"),
        ({"track_steps": [0, 1, 1]}, "parameter track_steps of 02_finetune.ipynb lists 1 twice"),
    ],
)
def test_run_notebook_refuses_them_before_it_starts_a_kernel(tmp_path, given, message):
    with pytest.raises(HeadnbError) as refused:
        notebooks.run_notebook(notebooks.notebooks_folder() / "02_finetune.ipynb", tmp_path / "ran.ipynb", given)
    assert str(refused.value) == message
    assert not (tmp_path / "ran.ipynb").exists()


def test_papermill_itself_stops_before_anything_is_trained(tmp_path):
    source = notebooks.notebooks_folder() / "02_finetune.ipynb"
    values = {"full": _resolve_type("false"), "run_folder": str(tmp_path)}
    with pytest.raises(PapermillExecutionError) as stopped:
        papermill.execute_notebook(source, tmp_path / "ran.ipynb", values, kernel_name="python3", progress_bar=False)
    assert stopped.value.ename == "HeadnbError"
    assert "parameter full must be bool, not 'false'" in stopped.value.evalue
