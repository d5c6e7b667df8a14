"""docs/methods.md lists every method with its unit and options."""

from __future__ import annotations

import re

import pytest
from headnb.scoring.registry import _METHODS

from paths import ROOT

TABLE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", _METHODS)
def test_the_table_has_each_method_with_its_unit_and_options(name: str):
    (row,) = [row for row in ROWS if f"`{name}`" in row[0]]
    method = _METHODS[name]
    assert row[3] == method.units
    assert dict(re.findall(r"`(\w+)` ([\d.]+)", row[5])) == {key: str(value) for key, value in method.options.items()}
