"""Build the documentation: prepare its sources in `docs/_build/source`, then run Sphinx on them.

The sources are a copy of `docs/` with what is not in the repository: executed notebooks, pages of API
reference, and help texts of the magics.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import papermill
from api_pages import write_api_pages
from magic_texts import write_magic_texts

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BUILD = DOCS / "_build"
SOURCE = BUILD / "source" / "docs"
EXECUTED = BUILD / "executed"
NOTEBOOKS = {  # page -> notebook, which has no outputs in the repository
    "gallery": DOCS / "gallery.ipynb",
    "tutorials/quickstart": ROOT / "notebooks" / "00_quickstart.ipynb",
    **{f"tutorials/{path.stem}": path for path in sorted((DOCS / "tutorials").glob("*.ipynb"))},
}
INCLUDED = ("SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
CHECKS = ("-W", "--keep-going", "-n")  # warnings and missing references are errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reuse", action="store_true", help="execute only notebooks that changed since the last build")
    reuse = parser.parse_args().reuse
    os.environ["HEADNB_PROGRESS"] = "0"  # kernels inherit it: pages have no progress bars
    pages = BUILD / "html"
    shutil.rmtree(pages, ignore_errors=True)
    prepare(reuse=reuse)
    sphinx = [sys.executable, "-m", "sphinx", "-q", *CHECKS, "-b", "html", "-d", str(BUILD / "doctrees")]
    if subprocess.run([*sphinx, str(SOURCE), str(pages)], check=False).returncode:
        sys.exit("the documentation has errors: see the warnings above")
    print(f"documentation: {pages / 'index.html'}")


def prepare(*, reuse: bool) -> None:
    """Write everything that Sphinx reads."""
    shutil.rmtree(SOURCE.parent, ignore_errors=True)
    ignored = shutil.ignore_patterns("_build", "__pycache__", "*.ipynb")
    shutil.copytree(
        DOCS, SOURCE, ignore=ignored, copy_function=shutil.copy
    )  # new times, so that Sphinx reads every page
    for name in INCLUDED:
        shutil.copy(ROOT / name, SOURCE.parent)
    for page, notebook in NOTEBOOKS.items():
        executed = EXECUTED / f"{page}.ipynb"
        if not (reuse and executed.is_file() and executed.stat().st_mtime > notebook.stat().st_mtime):
            execute(notebook, executed)
        shutil.copy(executed, SOURCE / f"{page}.ipynb")
    write_api_pages(ROOT / "headnb" / "__init__.pyi", SOURCE / "api")
    write_magic_texts(SOURCE / "magics.txt")


def execute(notebook: Path, executed: Path) -> None:
    """Run a notebook in a folder of its own; the executed notebook is written only if it succeeds."""
    print(f"executing {notebook.name}", flush=True)
    folder = executed.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    book = papermill.execute_notebook(notebook, None, cwd=folder, kernel_name="python3", progress_bar=False)
    book.metadata = {name: book.metadata[name] for name in ("kernelspec", "language_info")}
    executed.write_text(json.dumps(book), encoding="utf-8")


if __name__ == "__main__":
    main()
