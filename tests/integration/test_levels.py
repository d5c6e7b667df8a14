"""Layout rules that import-linter does not check: use of the accessor, and the content of the top-level package."""

from __future__ import annotations

import ast

import pytest
from headnb.accessor import PatternHeads, ScoresHeads

from paths import ROOT

PACKAGE = ROOT / "headnb"
MODULES = {
    *("__init__", "_background_imports", "_lazy_names", "_version", "atomic_files", "call_checks", "errors"),
    *("head_names", "hub"),
}
PACKAGES = {
    *("accessor", "analysis", "cli", "display", "engine", "experiments", "explorer", "models"),
    *("notebook", "scoring", "stats", "storage", "suite", "tasks", "tuning"),
}
ABOVE = {"accessor", "cli", "experiments", "notebook"}
METHODS = {name for kind in (PatternHeads, ScoresHeads) for name in vars(kind) if not name.startswith("_")}


def test_nothing_but_the_modules_and_packages_of_the_layout_lies_at_the_top():
    assert {path.stem for path in PACKAGE.glob("*.py")} == MODULES
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == PACKAGES


@pytest.mark.parametrize("package", sorted(PACKAGES - ABOVE))
def test_packages_below_the_accessor_do_not_use_it(package: str):
    used = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (PACKAGE / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in METHODS
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "heads"
    ]
    assert used == []
