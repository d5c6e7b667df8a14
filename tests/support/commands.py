"""The command line, run in this process."""

from __future__ import annotations

import sys

import pytest
from headnb.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit status of `headnb words...` in this process."""
    monkeypatch.setattr(sys, "argv", ["headnb", *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        main.main()
    return int(exit_.value.code or 0)
