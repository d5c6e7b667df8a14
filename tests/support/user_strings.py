"""All texts for users, as a list to review. `python tests/support/user_strings.py` writes it.

The list has the string literals of at least three words in headnb/ (errors, notes, labels, help), with {} for inserted
values, and the prose of the notebooks. It does not include docstrings.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "fixtures" / "user_strings.txt"


def user_strings() -> str:
    """One line per text, below a line with the name of the file."""
    lines = []
    for path in sorted((ROOT / "headnb").rglob("*.py")):
        texts = sorted({" ".join(text.split()) for text in _texts(path.read_text())})
        texts = [text for text in texts if text.count(" ") >= 2]
        if texts:
            lines += ["", path.relative_to(ROOT).as_posix(), *(f"    {text}" for text in texts)]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
        prose = [" ".join("".join(cell["source"]).split()) for cell in cells]
        lines += ["", path.relative_to(ROOT).as_posix(), *(f"    {text}" for text in prose)]
    return "\n".join(lines).strip() + "\n"


def _texts(source: str) -> Iterator[str]:
    """String literals and f-strings without docstrings; implicitly concatenated strings are one text."""
    tree = ast.parse(source)
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        if isinstance(node, ast.JoinedStr):
            skipped.update(ast.walk(node))
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.value


if __name__ == "__main__":
    SNAPSHOT.write_text(user_strings())
