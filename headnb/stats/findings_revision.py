"""Findings revision: a number that is raised whenever the same scores give other findings than before.

Findings of a run folder carry it, beside the scoring revision of the run, and so do the keys of a suite's notebooks
that write findings: those of another revision are made again. Opening an old finding works, and warns; nothing new is
computed from it.

Raise `FINDINGS_REVISION` by one with every change that alters a test, an interval, a verdict or a statistic of a study,
and add a line to this list:

1. Everything written without the number.
2. Which heads changed over several training runs: run noise is at most as even as samples can tell. Composition:
   patterns in units of the heads' levels, less shift and scale of each layer.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FINDINGS_REVISION = 2
FINDINGS_KEY = "findings_revision"  # the name it has in files
_FIRST = 1  # of what does not say


def check_findings(path: Path, stored: Mapping[Any, Any], notebook_name: str, *, current: bool) -> None:
    """Say that the findings at `path` are of another revision.

    Args:
        path: of the findings.
        stored: their numbers or attributes.
        notebook_name: the notebook that makes them.
        current: refuse them, since something new is computed from them.

    Raises:
        HeadnbError: they are of another revision, and `current`.
    """
    found = int(stored.get(FINDINGS_KEY, _FIRST))
    if found == FINDINGS_REVISION:
        return
    said = (
        f"{path} holds findings of revision {found}, and this version of headnb computes revision {FINDINGS_REVISION}, "
        f"whose tests and verdicts may differ; run notebook {notebook_name} again"
    )
    if current:
        raise HeadnbError(said)
    warnings.warn(said, stacklevel=4)
