"""The command line of headnb, run in this process."""

from __future__ import annotations

import sys

import pytest
from headnb.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `headnb arguments...` and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["headnb", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main.main()
    return int(exit_.value.code or 0)
