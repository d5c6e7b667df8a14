"""Notebooks as runs and as pages: where the package's own lie, how one is executed, how it becomes HTML."""

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

# A page opens without a network and runs no script: nbconvert's own would fetch RequireJS, MathJax and Mermaid.
_TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
# Our JSON is for JupyterLab's renderer; a page shows the picture made of HTML.
_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]


def notebooks_folder() -> Path:
    """Where the package's notebooks lie: inside it when it is installed from a wheel, else beside it.

    Raises:
        HeadnbError: neither of the two exists.
    """
    package = Path(str(resources.files("headnb")))
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / QUICKSTART).is_file():
            return folder
    raise HeadnbError("headnb's notebooks are not installed; install headnb again from a wheel or a clone")


def run_notebook(
    notebook: Path, executed: Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True
) -> Path:
    """Execute a notebook with parameters, in the folder that the executed one is written to.

    Args:
        notebook: a notebook with a cell tagged `parameters`.
        executed: where to write it with its outputs.
        parameters: name -> value; others keep what the notebook says.
        progress: show a bar on stderr.

    Returns:
        `executed`.

    Raises:
        HeadnbError: an extra is missing, the notebook has no such parameter or one of another type, or a cell of it
            failed.
    """
    with optional_import("suite"):
        import ipykernel  # noqa: F401, PLC0415  the kernel that papermill starts
        import papermill  # noqa: PLC0415
        from papermill.exceptions import PapermillExecutionError  # noqa: PLC0415
    given = dict(parameters or {})
    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # papermill lets through what nbformat and json raise
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
    """Settings by which a kernel is spoken to over sockets in a folder of its own, where the system has such.

    Ports are seen by everybody on the machine, and two kernels that start at once may choose the same.
    """
    from traitlets.config import Config  # noqa: PLC0415

    config = Config()
    with tempfile.TemporaryDirectory(prefix="headnb-", ignore_cleanup_errors=True) as folder:
        if os.name == "posix" and len(folder) < 90:  # the system's limit is 104 to 108, with the socket's name
            config.KernelManager.transport = "ipc"
            config.KernelManager.ip = f"{folder}/kernel"
        yield config


def html_page(notebook: Path, page: Path) -> Path:
    """Write a notebook as one HTML file that needs neither a network nor a script; returns `page`.

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
