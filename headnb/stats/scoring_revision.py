"""Scoring revision: a number that is raised whenever the same call gives other scores than before.

Scores, fits, studies and run folders carry it as the attribute `scoring_revision`. Scores of different revisions are
never mixed: a store of another revision is not resumed, and a comparison of two revisions is refused. Opening works,
and says which revision it is.

Raise `SCORING_REVISION` by one with every change that alters scores or tokens, and add a line to this list:

1. Everything written without the attribute.
2. Rows with masks or positions of their own, chat rows with tools, calls or reasoning, prompts that hold their own
   beginning-of-sequence token, data sets with a transform; layers of zamba and of models whose layers were removed or
   reordered; calls inside autocast. CHANGELOG.md has each under "Fixed".
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, one_line
from headnb.stats.results import MADE_BY, RESULT_ID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCORING_REVISION = 2
FIRST_REVISION = 1  # of what does not say
REVISION = "scoring_revision"  # the attribute
# Attributes that the same call may change; which weights were scored is told by their fingerprint, and label and units
# by the method: earlier versions did not always write them.
_RUN_ATTRS = {"versions", "created", "weights_source", "method_label", "units", REVISION, RESULT_ID, MADE_BY}


def revision_of(attrs: Mapping[Any, Any]) -> int:
    """The scoring revision that attributes or settings tell."""
    return int(attrs.get(REVISION, FIRST_REVISION))


def check_revision(path: Path, stored: Mapping[Any, Any], wanted: Mapping[Any, Any], what: str) -> None:
    """Refuse to go on with what lies at `path` if it was computed under another revision than is wanted.

    Raises:
        HeadnbError: it was.
    """
    found, now = revision_of(stored), revision_of(wanted)
    if found != now:
        raise HeadnbError(
            f"{path} holds {what} of scoring revision {found}, and this version of headnb computes revision {now}: the "
            "numbers may differ and are not mixed; choose another place, or remove it to compute it again (opening it "
            "still works)"
        )


def check_same_settings(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise HeadnbError unless what made the scores at `path` is what is wanted now, but for `_RUN_ATTRS`."""
    check_revision(path, stored, wanted, "scores")
    different = [
        f"{name} {stored.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted((stored.keys() | wanted.keys()) - _RUN_ATTRS)
        if stored.get(name) != wanted.get(name)
    ]
    if different:
        raise HeadnbError(f"{path} holds scores with {'; '.join(different)}; choose another `out` or remove it")


def check_same_revision(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> None:
    """Raise HeadnbError if attributes of two results tell two revisions."""
    if REVISION in one and REVISION in other and one[REVISION] != other[REVISION]:
        old, new = sorted((revision_of(one), revision_of(other)))
        raise HeadnbError(
            f"these scores are of two scoring revisions, {old} and {new}, whose numbers may differ; score the same "
            f"samples again to replace those of revision {old}"
        )


def revision_note(attrs: Mapping[Any, Any]) -> str:
    """What a reader must know about scores of another revision; empty for the current one."""
    found = revision_of(attrs)
    if found == SCORING_REVISION or not {REVISION, "versions"} & attrs.keys():  # numbers of somebody's own
        return ""
    age = "an earlier" if found < SCORING_REVISION else "a later"
    return (
        f"Scored by {age} version of headnb (scoring revision {found}, this version has {SCORING_REVISION}): score "
        "again before comparing with new scores."
    )


def warn_of_revision(path: Path, attrs: Mapping[Any, Any]) -> None:
    """Say on opening that scores at `path` are of another revision."""
    if note := revision_note(attrs):
        warnings.warn(f"{one_line(path)}: {note}", stacklevel=3)
