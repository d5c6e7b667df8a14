"""Head grids in a site built by Sphinx with MyST-NB, whose configuration does not mention headnb."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import nbformat
import pytest
from headnb.display.grid import HeadGrid
from headnb.display.page import page_script
from nbformat import v4
from playwright.sync_api import expect

import grids
from head_grid import Drawn
from paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.long
MARKUP = ROOT / "tests" / "fixtures" / "payloads" / "valid" / "markup-in-every-text.heads.json"
OTHER_DATA = '<p id="other"></p><script type="application/json">{"not": "a grid"}</script>'
CONFIGURATION = 'extensions = ["myst_nb"]\nnb_execution_mode = "off"\nroot_doc = "grids"\n'


def output(grid: HeadGrid) -> nbformat.NotebookNode:
    return v4.new_output("display_data", data=grid._repr_mimebundle_())


def build(folder: Path, outputs: list[nbformat.NotebookNode], builder: str = "html", *flags: str) -> tuple[Path, str]:
    """Build a site of one notebook; returns its folder and what Sphinx wrote to stderr."""
    source = folder / "source"
    source.mkdir()
    (source / "conf.py").write_text(CONFIGURATION)
    cells = [v4.new_markdown_cell("# Grids\n\n" + OTHER_DATA), v4.new_code_cell("draw()", outputs=outputs)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=metadata), source / "grids.ipynb")
    sphinx = [sys.executable, "-m", "sphinx", "-q", *flags, "-b", builder, str(source), str(folder / builder)]
    done = subprocess.run(sphinx, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / builder, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = [grids.grid(), grids.change(), HeadGrid.open(MARKUP)]
    return build(tmp_path_factory.mktemp("site"), [output(grid) for grid in shown], "html", "-W")[0] / "grids.html"


def test_each_grid_answers_the_pointer(page: Page, site: Path) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(site.as_uri())
    hosts = page.locator(".headnb-grid .live")
    expect(hosts).to_have_count(3)
    for host, grid, head in ((hosts.nth(0), grids.grid(), (5, 2)), (hosts.nth(1), grids.change(), (11, 9))):
        drawn = Drawn(page, host, grid)
        drawn.hover(*head)
        expect(drawn.tooltip).to_contain_text("L{}H{}".format(*head))
    expect(page.locator(".headnb-grid .still").first).to_be_hidden()
    assert page.locator("#other").inner_html() == ""
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_script_is_in_the_page_once(site: Path) -> None:
    assert site.read_text(encoding="utf-8").count(page_script()) == 1
    assert page_script() not in (site.parent / "search.html").read_text(encoding="utf-8")


def test_pictures_without_scripts(browser: Browser, site: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(site.as_uri())
    expect(page.locator(".headnb-grid .still img").first).to_be_visible()
    expect(page.get_by_text("Reliability 0.87").first).to_be_visible()
    page.close()


def test_other_formats_use_the_other_forms(tmp_path: Path) -> None:
    pages, _ = build(tmp_path, [output(grids.grid())], "text", "-W")
    text = (pages / "grids.txt").read_text(encoding="utf-8")
    assert "Reliability 0.87" in text
    assert "headnb-grid" not in text


def test_a_grid_that_cannot_be_drawn_is_a_warning(tmp_path: Path) -> None:
    broken = output(grids.grid())
    (kind,) = (name for name in broken.data if "headnb" in name)
    broken.data[kind]["version"] = 2
    pages, warnings = build(tmp_path, [broken])
    assert "head grid not drawn: " in warnings
    assert "<img" in (pages / "grids.html").read_text(encoding="utf-8")  # the picture that the notebook stores
