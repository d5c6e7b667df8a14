"""Notebooks in a real kernel: outputs per cell, and execution and HTML export of the quickstart notebook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from headnb.display.grid import HeadGrid
from headnb.display.payload import MIME_TYPE
from headnb.errors import HeadnbError
from headnb.suite import notebooks
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from synthetic_results import random_pattern
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("forked_kernels")
SECONDS = 600  # for a cell or an answer of a kernel, on a busy machine
NOTEBOOKS = sorted(notebooks.notebooks_folder().glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def executed(*cells: str) -> list[list[Any]]:
    """Run the cells in one kernel, and return the outputs of each cell."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3", timeout=SECONDS).execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_cell_has_one_output_updated_in_place(folder: Path) -> None:
    score = f"%headscore {folder} gsm_symbolic -n 8"
    _, last_value, bound, typed, grid, table, value = executed(
        "%load_ext headnb",
        score,
        f"scores = {score}",
        f"%%headscore {folder}\nThe sky is => blue\nOne, two, => three",
        "%headgrid scores",
        "%headmethods",
        "scores.heads.grid()",
    )
    for outputs in (last_value, bound, typed, grid):
        assert [output.output_type for output in outputs] == ["display_data"]
        bundle = outputs[0].data
        assert {MIME_TYPE, "text/html", "image/png", "text/plain"} <= set(bundle)
        assert "progress" not in bundle[MIME_TYPE]
    assert last_value[0].data[MIME_TYPE] == bound[0].data[MIME_TYPE] == grid[0].data[MIME_TYPE]
    assert [output.output_type for output in table] == ["display_data"]
    assert [output.output_type for output in value] == ["execute_result"]


def test_a_users_error_stops_a_batch_run_with_one_line(folder: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"%load_ext headnb\n%headscore {folder} gsm_symbolc")]
    )
    with pytest.raises(Exception, match="UsageError"):
        NotebookClient(notebook, kernel_name="python3", timeout=SECONDS).execute()
    streams = [output for output in notebook.cells[0].outputs if output.output_type == "stream"]
    assert [output.text.strip() for output in streams] == [
        "UsageError: unknown task 'gsm_symbolc'; did you mean 'gsm_symbolic'?"
    ]


def test_the_kernel_answers_complete_requests() -> None:
    manager, client = start_new_kernel(startup_timeout=SECONDS, kernel_name="python3")
    try:
        client.execute("%load_ext headnb", reply=True, timeout=SECONDS)
        code = "ap = %headscore smollm2-135m gsm_s"
        reply = client.complete(code, reply=True, timeout=SECONDS)["content"]
        assert reply["matches"] == ["gsm_symbolic"]
        assert code[reply["cursor_start"] :] == "gsm_s"
        manager.interrupt_kernel()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_in_the_repository_are_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    typed = papermill.inspect_notebook(str(path))
    assert typed
    assert all(parameter["inferred_type_name"] != "None" for parameter in typed.values())


def test_the_quickstart_runs_and_becomes_a_page(folder: Path, tmp_path: Path) -> None:
    source = notebooks.notebooks_folder() / notebooks.QUICKSTART
    out = tmp_path / "results"
    ran = notebooks.run_notebook(
        source, tmp_path / "ran.ipynb", {"model": str(folder), "n": 6, "out": str(out)}, progress=False
    )
    notebook = nbformat.read(ran, as_version=4)
    assert not [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"
    ]
    drawn = [
        cell
        for cell in notebook.cells
        if any(MIME_TYPE in output.get("data", {}) for output in cell.get("outputs", []))
    ]
    assert [len(cell.outputs) for cell in drawn] == [1] * 4
    assert {file.name for file in out.iterdir()} == {"gsm_symbolic.nc", "gsm_symbolic.heads.json"}
    page = notebooks.html_page(ran, tmp_path / "ran.html").read_text()
    before_script = page.partition("<script>")[0]
    grids = before_script.split('data-shows="grid"')[:-1]
    assert [bool(re.search(r'<img alt="[^"]+ heads', grid)) for grid in grids] == [True] * 4
    assert page.count("<script>") == 1
    assert not re.search(r"<link|(src|href)=\"(?!https://arxiv|#|data:)", page)
    assert not re.search(r"(?<!\w)-\d", " ".join(_markdown_outputs(notebook)))  # real minus signs


def _markdown_outputs(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return [output["data"]["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]


def test_a_page_leaves_out_warnings_and_keeps_data_as_text(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>"
    payload = HeadGrid.of(random_pattern(2, 2), title=hostile).payload
    data = {MIME_TYPE: payload, "text/html": "<p>the picture</p>"}
    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="/home/someone/x.py:1: Warning"),
        nbformat.v4.new_output("display_data", data=data),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)])
    nbformat.write(notebook, tmp_path / "x.ipynb")
    page = notebooks.html_page(tmp_path / "x.ipynb", tmp_path / "x.html").read_text()
    assert "/home/someone" not in page
    assert "alert(1)</script>" not in page
    assert "<p>the picture</p>" in page
    (data_in_page,) = re.findall(r'<script[^>]*data-shows="grid"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert json.loads(data_in_page) == payload


def test_a_misspelt_parameter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadnbError, match="did you mean 'other_task'"):
        notebooks.run_notebook(
            notebooks.notebooks_folder() / notebooks.QUICKSTART, tmp_path / "x.ipynb", {"other_tsk": "gcd"}
        )
    assert not (tmp_path / "x.ipynb").exists()


def test_a_failing_cell_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(HeadnbError, match=r"failed in cell \[3\], HeadnbError: unknown model .*ran\.ipynb$"):
        notebooks.run_notebook(
            notebooks.notebooks_folder() / notebooks.QUICKSTART,
            tmp_path / "ran.ipynb",
            {"model": "./nowhere"},
            progress=False,
        )


@pytest.mark.slow
def test_a_wheel_holds_the_notebooks(tmp_path: Path) -> None:
    root = Path(notebooks.__file__).parent.parent
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(root)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert f"headnb/notebooks/{notebooks.QUICKSTART}" in zipfile.ZipFile(wheel).namelist()
