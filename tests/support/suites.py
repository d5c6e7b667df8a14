"""Small suites of notebooks that need no model: a second each."""

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
    'said = Path(os.environ.get("SUITE_TEST_GATE", "nowhere"), f"{task}{seed}")',
    'given = Path(run_folder, "start.txt").read_text()',
    # Waits where a test wants to see it in the middle.
    'said.with_suffix(".here").write_text(str(os.getpid())) if said.with_suffix(".wait").exists() else None',
    'while said.with_suffix(".wait").exists():\n    time.sleep(0.05)',
    '(folder / "result.txt").write_text(f"{given} {task} {seed} {steps * 7}")',
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
    """A notebook of a parameters cell and others."""
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
    """suite.yaml with its notebooks and one profile, `tiny`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, cells in (("start", START), ("train", TRAIN), ("end", END)):
        write_notebook(folder / f"{name}.ipynb", *cells)
    path = folder / "suite.yaml"
    content = {"notebooks": notebooks or NOTEBOOKS, "profiles": {"tiny": PROFILE | profile}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def graph(suite: Path, out: Path, **settings: Any) -> list[Node]:
    """The nodes of a suite that `write_suite` wrote."""
    return build_graph(*check_suite(read_suite(suite, "tiny", settings)), out)


def results(out: Path) -> dict[str, str]:
    """Every text that the notebooks of a suite wrote."""
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*.txt"))}
