"""Every Python example of the documentation runs.

The examples of a page run in order in one IPython session, in a new folder. A comment `<!-- not run: reason -->` before
an example leaves it out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^(?P<before>[^\n]*)\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")
MOST_NOT_RUN = 8
RUN = """
import sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for example in sys.argv[1:]:
    shell.run_cell(example).raise_error()
"""


def examples(page: Path) -> list[tuple[str, str]]:
    """The code of each example of a page, with the reason why it is not run ("" if it is)."""
    found = []
    for example in EXAMPLE.finditer("\n" + page.read_text(encoding="utf-8")):
        reason = NOT_RUN.search(example["before"])
        found.append((example["code"], reason["reason"] if reason else ""))
    return found


PAGES = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "docs").rglob("*.md")) if examples(path)}
PAGES = {name: path for name, path in PAGES.items() if "_build" not in name}


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_examples_run(name: str, tmp_path: Path) -> None:
    codes = [code for code, reason in examples(PAGES[name]) if not reason]
    if not codes:
        pytest.skip("no example is run")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *codes], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_few_examples_are_left_out() -> None:
    left_out = [f"{name}: {reason}" for name, page in PAGES.items() for _, reason in examples(page) if reason]
    assert len(left_out) <= MOST_NOT_RUN, "\n".join(left_out)


def test_an_example_after_a_comment_is_left_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\na\n```\n\n<!-- not run: slow -->\n```python\nb\n```\n\ntext\n\n```python\nc\n```\n")
    assert examples(page) == [("a\n", ""), ("b\n", "slow"), ("c\n", "")]
