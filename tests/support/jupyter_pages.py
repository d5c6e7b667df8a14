"""Notebooks of the test server, opened in a browser."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nbformat
from headnb.display.grid import HeadGrid
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import expect

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode
    from nbformat.sign import NotebookNotary
    from playwright.sync_api import Locator, Page

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_names = itertools.count()


@dataclass(frozen=True)
class Jupyter:
    """A running server with JupyterLab and Notebook 7, its root folder `files` and its environment variables."""

    address: str
    token: str
    files: Path
    notary: NotebookNotary
    environment: dict[str, str]

    def save(self, notebook: NotebookNode, *, trusted: bool = False) -> str:
        """Write a notebook under a unique name; a trusted notebook is signed as if this user had run it."""
        name = f"notebook{next(_names)}.ipynb"
        if trusted:
            self.notary.sign(notebook)
        nbformat.write(notebook, self.files / name)
        return name

    def open_lab(self, page: Page, name: str) -> None:
        """Open a file in a new workspace, so that JupyterLab restores no tab of another test."""
        page.goto(f"{self.address}/lab/workspaces/w{next(_names)}/tree/{name}?token={self.token}")
        page.wait_for_selector("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current")

    def open_notebook(self, page: Page, name: str) -> None:
        page.goto(f"{self.address}/notebooks/{name}?token={self.token}")
        page.wait_for_selector(".jp-Notebook")


def shown_notebook(*grids: object, kernel: bool = False) -> NotebookNode:
    """A notebook with one saved output per grid, as Jupyter stores it."""
    cells = []
    for grid in grids:
        bundle = grid if isinstance(grid, dict) else HeadGrid.of(grid)._repr_mimebundle_()
        output = new_output("display_data", data=json.loads(json.dumps(bundle)))
        cells.append(new_code_cell("grid", outputs=[output], execution_count=1))
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL} if kernel else {})


def notebook(*sources: str) -> NotebookNode:
    """A notebook that has not been run."""
    return new_notebook(cells=[new_code_cell(source) for source in sources], metadata={"kernelspec": KERNEL})


def no_kernel(page: Page) -> None:
    """Answer JupyterLab's kernel dialog with "No Kernel"."""
    page.get_by_role("dialog").get_by_role("button", name="No Kernel").click()


def run_all(page: Page) -> None:
    kernel_ready(page)
    command(page, "notebook:run-all-cells")


def kernel_ready(page: Page) -> None:
    """Wait for the connection to the kernel; without it, JupyterLab would ask for another kernel."""
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'",
    )


def start_cell(page: Page, cell: int) -> Locator:
    """Start a cell of the open notebook; returns its output area."""
    kernel_ready(page)
    page.evaluate("cell => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = cell; }", cell)
    command(page, "notebook:run-cell")
    return page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")


def finished(page: Page, cell: int) -> None:
    """Wait until a cell shows its execution count; the notebook runs from top to bottom."""
    prompt = page.locator(".jp-CodeCell").nth(cell).locator(".jp-InputPrompt").first
    expect(prompt).to_have_text(f"[{cell + 1}]:")


def run_cell(page: Page, cell: int) -> Locator:
    """Run a cell to its end; returns its output area."""
    output = start_cell(page, cell)
    finished(page, cell)
    return output


def command(page: Page, name: str, arguments: dict[str, Any] | None = None) -> None:
    """Start a command of JupyterLab or Notebook 7."""
    page.evaluate("([name, args]) => { window.jupyterapp.commands.execute(name, args); }", [name, arguments or {}])


def quiet_settings(folder: Path) -> None:
    """Disable the dialog about news, which would block every test."""
    settings_folder = folder / "@jupyterlab" / "apputils-extension"
    settings_folder.mkdir(parents=True)
    settings = {"fetchNews": "false", "checkForUpdates": False}
    (settings_folder / "notification.jupyterlab-settings").write_text(json.dumps(settings))
