"""Parameters of notebooks: what papermill hands on as text is refused where another type is expected."""

from __future__ import annotations

import ast

import nbformat
import papermill
import pytest
from headnb.errors import HeadnbError
from headnb.suite import notebooks
from headnb.suite.parameters import check_parameters
from papermill.cli import _resolve_type  # what `papermill -p NAME VALUE` makes of a value
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
    ("name", "text", "said"),
    [
        ("full", "false", "parameter full is bool, not 'false' (papermill takes -p full True or -p full False)"),
        ("full", "true", "parameter full is bool, not 'true'"),
        ("full", "0", "parameter full is bool, not 0"),
        ("n", "many", "parameter n is int, not 'many'"),
        ("n", "2.5", "parameter n is int, not 2.5"),
        ("n", "True", "parameter n is int, not True"),
        ("n", "None", "parameter n is int, not None"),
        ("rate", "fast", "parameter rate is float, not 'fast'"),
        ("name", "2024", "is str, not 2024 (papermill takes text that looks like a number as -r name 2024)"),
        ("tasks", "gcd", "parameter tasks is list[str], not 'gcd' (papermill takes lists as -y \"tasks: [gcd]\")"),
        ("tasks", '["gcd"]', "parameter tasks is list[str], not '[\"gcd\"]'"),
    ],
)
def test_text_of_another_type_is_refused_in_a_line(name, text, said):
    with pytest.raises(HeadnbError) as refused:
        check_parameters({"In": CELLS, **RIGHT, name: _resolve_type(text)})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_task_that_is_given_twice_is_refused():
    with pytest.raises(HeadnbError, match="parameter tasks has 'gcd' twice"):
        check_parameters({"In": CELLS, **RIGHT, "tasks": ["gcd", "lcm", "gcd"]})


def test_a_changed_parameters_cell_counts():
    check_parameters({"In": [*CELLS, "n: str = 'a'"], **RIGHT, "n": "a"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_checks_its_parameters_before_it_does_anything(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    place = next(place for place, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    lines = cells[place + 1].source.splitlines()
    before = ast.parse("\n".join(lines[: lines.index("check_parameters(globals())")]))
    assert all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in before.body)
    defaults = {}
    exec(cells[place].source, defaults)  # its own values pass
    check_parameters({**defaults, "In": ["", cells[place].source]})
    with pytest.raises(HeadnbError):
        check_parameters({**defaults, "In": ["", cells[place].source], "run_folder": 3, "out": 3})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"full": "false"}, "parameter full of 02_finetune.ipynb is bool, not 'false'"),
        ({"steps": "3"}, "parameter steps of 02_finetune.ipynb is int, not '3'"),
        ({"track_steps": [0, 1, 1]}, "parameter track_steps of 02_finetune.ipynb has 1 twice"),
    ],
)
def test_run_notebook_refuses_them_before_it_starts_a_kernel(tmp_path, given, said):
    with pytest.raises(HeadnbError) as refused:
        notebooks.run_notebook(notebooks.notebooks_folder() / "02_finetune.ipynb", tmp_path / "ran.ipynb", given)
    assert str(refused.value) == said
    assert not (tmp_path / "ran.ipynb").exists()


def test_papermill_itself_stops_before_anything_is_trained(tmp_path):
    source = notebooks.notebooks_folder() / "02_finetune.ipynb"
    values = {"full": _resolve_type("false"), "run_folder": str(tmp_path)}
    with pytest.raises(PapermillExecutionError) as stopped:
        papermill.execute_notebook(source, tmp_path / "ran.ipynb", values, kernel_name="python3", progress_bar=False)
    assert stopped.value.ename == "HeadnbError"
    assert "parameter full is bool, not 'false'" in stopped.value.evalue
