"""Findings revision: a version number of findings, raised whenever the same scores give different findings.

The findings of a run folder carry it, in addition to the run's scoring revision. The keys of a suite's notebooks that
write findings carry it too, so that findings of another revision are recomputed. Opening an old finding works with a
warning; nothing new is computed from it.

Raise `FINDINGS_REVISION` by one with every change that alters a test, an interval, a verdict or a statistic of a study,
and add a line to this list:

1. All findings written without the number.
2. Heads that changed over several training runs: d0, the evenness of run noise over heads, is at most n - 1.
   Composition: patterns in units of the heads' levels, without shift and scale of each layer.
3. Means over several training runs: heads whose run noise does not follow that of the other heads, and fewer than 50
   heads, are tested with their own runs only; sample noise is at least the interaction of samples and runs.
4. Several verdicts of reports.
5. Forgetting: no test of the correlation of pattern distance with the loss. Reports: composition with some evidence,
   rapid change that the mean level causes, and layers without change are undecided. Intervals over few runs are wider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, warn_user
from headnb.stats.results import whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FINDINGS_REVISION = 5
FINDINGS_KEY = "findings_revision"  # its key in files
_FIRST = 1  # of findings without the number


def check_findings(path: Path, stored: Mapping[Any, Any], notebook_name: str, *, current: bool) -> None:
    """Warn, or raise, if the findings at `path` are of another revision.

    Args:
        path: path of the findings.
        stored: their numbers or attributes.
        notebook_name: the notebook that writes them.
        current: raise instead of warning, because something new is computed from them.

    Raises:
        HeadnbError: the findings are of another revision and `current` is true.
    """
    revision = whole_number(stored, FINDINGS_KEY, _FIRST)
    if revision == FINDINGS_REVISION:
        return
    message = (
        f"{path} contains findings of revision {revision}, and this version of headnb computes revision "
        f"{FINDINGS_REVISION}, whose tests and verdicts may differ; run notebook {notebook_name} again"
    )
    if current:
        raise HeadnbError(message)
    warn_user(message)
