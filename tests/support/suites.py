"""Small suites of notebooks that need no model; each notebook runs in about a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nbformat
import yaml
from headnb.suite.checks import check_suite
from headnb.suite.definition import read_suite
from headnb.suite.graph import build_graph

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.suite.graph import Node

START = (
    'run_folder: str = "run"\nmodel: str = ""\ntasks: list[str] = []\nscale: float = 1.0',
    'from pathlib import Path\nPath(run_folder, "start.txt").write_text(f"{model} {scale}")',
)
TRAIN = (
    'run_folder: str = "run"\ntask: str = ""\nseed: int = 0\nsteps: int = 2',
    "import os, time\nfrom pathlib import Path",
    'folder = Path(run_folder, "sft", task, f"seed{seed}")\nfolder.mkdir(parents=True, exist_ok=True)',
    'gate = Path(os.environ.get("SUITE_TEST_GATE", "nowhere"), f"{task}{seed}")',
    'start = Path(run_folder, "start.txt").read_text()',
    # A test pauses the notebook here by a file with the suffix .wait.
    'gate.with_suffix(".here").write_text(str(os.getpid())) if gate.with_suffix(".wait").exists() else None',
    'while gate.with_suffix(".wait").exists():\n    time.sleep(0.05)',
    '(folder / "result.txt").write_text(f"{start} {task} {seed} {steps * 7}")',
)
END = (
    'run_folder: str = "run"\ntasks: list[str] = []\nseeds: list[int] = []\ncompositions: dict[str, list[str]] = {}',
    "from pathlib import Path",
    'texts = [Path(run_folder, "sft", t, f"seed{s}", "result.txt").read_text() for t in tasks for s in seeds]',
    'Path(run_folder, "end.txt").write_text("\\n".join(texts))',
)
NOTEBOOKS: dict[str, Any] = {
    "start": {"file": "start.ipynb", "writes": ["start.txt"]},
    "train": {
        "file": "train.ipynb",
        "for": ["task", "seed"],
        "after": ["start"],
        "writes": ["sft/{task}/seed{seed}"],
    },
    "end": {"file": "end.ipynb", "after": ["train"], "writes": ["end.txt"]},
}
PROFILE: dict[str, Any] = {
    "models": ["smollm2-135m"],
    "tasks": ["gcd", "lcm"],
    "seeds": [0, 1],
    "parameters": {"steps": 3},
}


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """Write a notebook with a parameters cell and further code cells."""
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *map(nbformat.v4.new_code_cell, cells),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(notebook, path)
    return path


def write_suite(folder: Path, *, notebooks: dict[str, Any] | None = None, **profile: Any) -> Path:
    """Write suite.yaml with its notebooks and one profile, `tiny`; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, cells in (("start", START), ("train", TRAIN), ("end", END)):
        write_notebook(folder / f"{name}.ipynb", *cells)
    path = folder / "suite.yaml"
    content = {"notebooks": notebooks or NOTEBOOKS, "profiles": {"tiny": PROFILE | profile}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def graph(suite: Path, out: Path, **settings: Any) -> list[Node]:
    """The graph nodes of a suite written by `write_suite`."""
    return build_graph(*check_suite(read_suite(suite, "tiny", settings)), out)


def results(out: Path) -> dict[str, str]:
    """Relative path -> content of every text file written by the notebooks of a suite."""
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*.txt"))}
