"""Notebooks of the package: their folder, their execution with papermill, and their export to HTML pages."""

from __future__ import annotations

import contextlib
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.display.page import grid_figure, page_script
from headnb.display.payload import MIME_TYPE
from headnb.display.templating import script_source
from headnb.errors import HeadnbError, first_line, optional_import, unknown_name
from headnb.suite.parameters import check_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from traitlets.config import Config

QUICKSTART = "00_quickstart.ipynb"

# An exported page needs no network; nbconvert's template would load RequireJS, MathJax and Mermaid.
_TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block extra_css %}
<meta http-equiv="Content-Security-Policy" content="default-src 'none';script-src {{ resources.script_source }};\
style-src 'unsafe-inline';img-src data: blob:;font-src data:">
<style>
body.jp-Notebook, main { max-width: 62rem; margin: 0 auto; }
.drawn > .still { display: none; }
@media print {
  .live { display: none; }
  .drawn > .still { display: block; }
  .jp-OutputArea-child, .jp-InputArea { break-inside: avoid; }
  h2 { break-after: avoid; }
}
</style>
{% endblock %}
"""
_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]


def notebooks_folder() -> Path:
    """Folder of the package's notebooks: inside the package in a wheel, next to it in a clone.

    Raises:
        HeadnbError: neither folder exists.
    """
    package = Path(str(files("headnb")))
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / QUICKSTART).is_file():
            return folder
    raise HeadnbError("headnb's notebooks are not installed; install headnb again from a wheel or a clone")


def notebook_parameters(notebook: Path) -> Mapping[str, Mapping[str, Any]]:
    """Parameter -> what papermill finds in the notebook's cell tagged `parameters`: type, default, help.

    Raises:
        HeadnbError: the extra `suite` is missing, or the file is not a notebook.
    """
    with optional_import("suite"):
        import papermill  # noqa: PLC0415
    try:
        return papermill.inspect_notebook(str(notebook))  # type: ignore[no-any-return]
    except Exception as error:  # papermill does not wrap the errors of nbformat and json
        raise HeadnbError(f"{notebook} cannot be read as a notebook: {first_line(error)}") from error


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
    given, known = dict(parameters or {}), notebook_parameters(notebook)
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
    _reduce_paths(executed)
    return executed


def _reduce_paths(executed: Path) -> None:
    """Reduce the paths in papermill's metadata to file names: one has the folder where headnb is installed."""
    import nbformat  # noqa: PLC0415

    notebook = nbformat.read(executed, as_version=4)
    facts = notebook.metadata.papermill
    facts.update({name: Path(facts[name]).name for name in ("input_path", "output_path")})
    nbformat.write(notebook, executed)


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
    """Write a notebook as one HTML file that needs no network; return `page`.

    Grids are interactive, and static pictures without scripts. The page omits what the kernel wrote to stderr, such as
    warnings with paths of this machine, and the numbers of cells.

    Raises:
        HeadnbError: nbconvert is not installed, or the front end is not built.
    """
    with optional_import("suite"):
        import nbformat  # noqa: PLC0415
        from nbconvert import HTMLExporter  # noqa: PLC0415
    from traitlets.config import Config  # noqa: PLC0415

    settings = Config()
    settings.NbConvertBase.display_data_priority = _PRIORITY
    settings.TemplateExporter.exclude_input_prompt = settings.TemplateExporter.exclude_output_prompt = True
    exporter = HTMLExporter(config=settings, raw_template=_TEMPLATE)  # type: ignore[no-untyped-call]
    executed = nbformat.read(notebook, as_version=4)
    for cell in executed.cells:
        if "outputs" in cell:
            cell.outputs = [_for_page(output) for output in cell.outputs if output.get("name") != "stderr"]
    script = page_script()
    resources = {"metadata": {"name": notebook.stem}, "script_source": script_source(script)}
    body, _ = exporter.from_notebook_node(executed, resources)
    text, end, rest = body.rpartition("</body>")
    page.write_text(f"{text}<script>{script}</script>\n{end}{rest}", encoding="utf-8")
    return page


def _for_page(output: Any) -> Any:
    """The output with an interactive grid in its HTML form, if it is a grid."""
    forms = output.get("data", {})
    if MIME_TYPE in forms:
        forms["text/html"] = grid_figure(forms[MIME_TYPE], forms.get("text/html", ""))
    return output
