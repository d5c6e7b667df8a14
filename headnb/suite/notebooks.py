"""Notebooks of the package: their folder, their execution with papermill, and their export to HTML."""

from __future__ import annotations

import contextlib
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, optional_import, unknown_name
from headnb.suite.parameters import check_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from traitlets.config import Config

QUICKSTART = "00_quickstart.ipynb"

# An exported page needs no network and no script; nbconvert's template would load RequireJS, MathJax and Mermaid.
_TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
# headnb's JSON output is for the JupyterLab renderer; a page shows the HTML output instead.
_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]


def notebooks_folder() -> Path:
    """Folder of the package's notebooks: inside the package in a wheel, next to it in a clone.

    Raises:
        HeadnbError: neither folder exists.
    """
    package = Path(str(resources.files("headnb")))
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / QUICKSTART).is_file():
            return folder
    raise HeadnbError("headnb's notebooks are not installed; install headnb again from a wheel or a clone")


def run_notebook(
    notebook: Path, executed: Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True
) -> Path:
    """Execute a notebook with parameters; the working directory is the folder of the executed notebook.

    Args:
        notebook: a notebook with a cell tagged `parameters`.
        executed: path of the executed notebook, with outputs.
        parameters: name -> value; other parameters keep the notebook's defaults.
        progress: show a progress bar on stderr.

    Returns:
        `executed`.

    Raises:
        HeadnbError: an extra is missing, a parameter is unknown or has another type, or a cell failed.
    """
    with optional_import("suite"):
        import ipykernel  # noqa: F401, PLC0415  the kernel that papermill starts
        import papermill  # noqa: PLC0415
        from papermill.exceptions import PapermillExecutionError  # noqa: PLC0415
    given = dict(parameters or {})
    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # papermill does not wrap the errors of nbformat and json
        reason = " ".join(str(error).split())
        raise HeadnbError(f"{notebook} cannot be read as a notebook: {reason:.200}") from error
    for name, value in given.items():
        if name not in known:
            raise unknown_name("parameter", name, known)
        kind = known[name]["inferred_type_name"]
        if kind != "None":  # it has an annotation
            check_parameter(name, value, kind, notebook.name)
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _private_sockets() as config:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters=given,
                kernel_name="python3",
                cwd=str(executed.parent),
                progress_bar=progress,
                config=config,
            )
    except PapermillExecutionError as error:
        raise HeadnbError(
            f"{notebook.name} failed in cell [{error.exec_count}], {error.ename}: {error.evalue}; see {executed}"
        ) from None
    return executed


@contextlib.contextmanager
def _private_sockets() -> Iterator[Config]:
    """Settings that connect to a kernel over Unix sockets in a private folder, if the system has them.

    TCP ports are visible to all users of the machine, and two kernels that start together may choose the same port.
    """
    from traitlets.config import Config  # noqa: PLC0415

    config = Config()
    with tempfile.TemporaryDirectory(prefix="headnb-", ignore_cleanup_errors=True) as folder:
        if os.name == "posix" and len(folder) < 90:  # a socket path may have 104 to 108 characters
            config.KernelManager.transport = "ipc"
            config.KernelManager.ip = f"{folder}/kernel"
        yield config


def html_page(notebook: Path, page: Path) -> Path:
    """Write a notebook as one HTML file that needs neither a network nor scripts; return `page`.

    Raises:
        HeadnbError: nbconvert is not installed.
    """
    with optional_import("suite"):
        from nbconvert import HTMLExporter  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    settings = Config()
    settings.NbConvertBase.display_data_priority = _PRIORITY
    exporter = HTMLExporter(config=settings, raw_template=_TEMPLATE)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_filename(str(notebook))
    page.write_text(body, encoding="utf-8")
    return page
