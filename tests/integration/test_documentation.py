"""Examples, notebooks and generated pages of the documentation.

The Python examples of a page run in order in one IPython session, in a new folder. README uses the default model; the
other pages a random one of its shape, so that they take seconds. A comment `<!-- not run: reason -->` before an example
leaves it out.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import nbformat
import pytest
from headnb._lazy_names import public_modules

from forks import forked, run_in_ipython
from paths import ROOT
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
EXAMPLE = re.compile(
    r"^(?P<before>[^\n]*)\n(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
FEWER_SAMPLES = re.compile(r"(\bn=|-n )(?:32|64)\b")  # what an example shows does not depend on how many it scores
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")


def examples(page: Path) -> list[tuple[str, str]]:
    """The code of each example of a page, with the reason why it is not run ("" if it is)."""
    found = []
    for example in EXAMPLE.finditer("\n" + page.read_text(encoding="utf-8")):
        reason = NOT_RUN.search(example["before"])
        found.append((textwrap.dedent(example["code"]), reason["reason"] if reason else ""))
    return found


RUN_ELSEWHERE = {"logging.md", "sharing.md", "your_data.md"}  # with trackers, a hub and files of their own tests
SOURCES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if path.name not in RUN_ELSEWHERE)]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in SOURCES if examples(path)}
PAGES = {name: path for name, path in PAGES.items() if "_build" not in name}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random model with as many layers and heads as the default model."""
    folder = tmp_path_factory.mktemp("models") / "narrow"
    tiny_model(layers=30, heads=9, kv_heads=3, hidden=72, context=8192).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_examples_run(name: str, narrow: Path, tmp_path: Path) -> None:
    codes = [FEWER_SAMPLES.sub(r"\g<1>4", code) for code, reason in examples(PAGES[name]) if not reason]
    if not codes:
        pytest.skip("no example is run")
    if name != "README.md":
        codes = [code.replace("smollm2-135m", str(narrow)) for code in codes]
    forked(run_in_ipython, codes, tmp_path)


def test_most_examples_are_run() -> None:
    found = [(name, reason) for name, page in PAGES.items() for _, reason in examples(page)]
    left_out = [f"{name}: {reason}" for name, reason in found if reason]
    assert len(left_out) < len(found) / 3, "\n".join(left_out)


def test_an_example_after_a_comment_is_left_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na\n```\n\n<!-- not run: slow -->\n```python\nb\n```\n\n- item\n  ```python\n  c\n  ```\n"
    )
    assert examples(page) == [("a\n", ""), ("b\n", "slow"), ("c\n", "")]


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import the modules that build the documentation."""
    monkeypatch.syspath_prepend(DOCS)


@pytest.mark.parametrize(
    "notebook", [*sorted(DOCS.glob("[!_]*/*.ipynb")), DOCS / "gallery.ipynb"], ids=lambda path: path.stem
)
def test_notebooks_have_no_outputs(notebook: Path) -> None:
    cells = nbformat.read(notebook, as_version=4).cells
    assert [cell.source for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.usefixtures("builder")
def test_every_public_name_is_in_the_reference(tmp_path: Path) -> None:
    from api_pages import write_api_pages

    write_api_pages(ROOT / "headnb" / "__init__.pyi", tmp_path / "api")
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (tmp_path / "api").iterdir())
    documented = re.findall(r"^\.\. auto(?:class|function):: headnb\.(\w+)$", pages, re.MULTILINE)
    assert sorted(documented) == sorted(public_modules())
    assert "headnb.accessor.ScoresHeads.reliability" in pages


@pytest.mark.usefixtures("builder")
def test_every_magic_has_its_help_text(tmp_path: Path) -> None:
    from magic_texts import write_magic_texts

    write_magic_texts(tmp_path / "magics.txt")
    text = (tmp_path / "magics.txt").read_text(encoding="utf-8")
    named = set(re.findall(r"%head[a-z]+", (DOCS / "magics.md").read_text(encoding="utf-8")))
    assert set(re.findall(r"^## `(.+)`$", text, re.MULTILINE)) == named
    assert "Number of samples." in text


@pytest.mark.usefixtures("builder")
def test_docstrings_become_restructured_text() -> None:
    from docstrings import as_restructured_text

    lines = ["Norm |x|, see `a|b`.", "", "    norm = f(*x)", "", "Args:", "    x: a|b, `grid`."]
    assert as_restructured_text(lines, {"grid"}) == [
        *("Norm \\|x\\|, see `a|b`.", ""),
        *(".. code-block:: python", "", "    norm = f(*x)", ""),
        *("Args:", "    x: a\\|b, :py:obj:`grid <headnb.grid>`."),
    ]
    listed = ["Args:", "    x: one of:", "", "        - a path that", "          goes on;", "        - a frame."]
    assert as_restructured_text(listed) == listed
