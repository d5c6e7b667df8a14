"""Output of the commands."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from headnb.cli.output import echo

if TYPE_CHECKING:
    import pytest


def test_a_line_is_written_with_its_end_so_that_lines_of_two_threads_do_not_mix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []

    class Recording(io.StringIO):
        def write(self, text: str, /) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Recording())
    echo("a notebook: started", err=True)
    assert written == ["a notebook: started\n"]
