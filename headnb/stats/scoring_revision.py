"""Scoring revision: a version number of scores, raised whenever the same call gives different scores.

Scores, fits, studies and run folders carry it as the attribute `scoring_revision`. Scores of different revisions are
never mixed: a store of another revision is not resumed, and a comparison of two revisions is an error. Opening works
with a warning that names the revision.

Raise `SCORING_REVISION` by one with every change that alters scores or tokens, and add a line to this list:

1. All scores written without the attribute.
2. Rows with their own masks or positions, chat rows with tools, calls or reasoning, prompts that contain a
   beginning-of-sequence token, data sets with a transform; layers of zamba and of models with removed or reordered
   layers; calls inside autocast. CHANGELOG.md lists what is affected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, one_line, warn_user
from headnb.stats.results import MADE_BY, RESULT_ID, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCORING_REVISION = 2
FIRST_REVISION = 1  # of scores without the attribute
REVISION = "scoring_revision"  # name of the attribute
# Attributes that may differ between equal calls. The fingerprint identifies the weights. The method determines label
# and units, which earlier versions did not always write.
_RUN_ATTRS = {"versions", "created", "weights_source", "method_label", "units", REVISION, RESULT_ID, MADE_BY}


def revision_of(attrs: Mapping[Any, Any]) -> int:
    """The scoring revision of attributes or settings."""
    return whole_number(attrs, REVISION, FIRST_REVISION)


def check_revision(path: Path, stored: Mapping[Any, Any], wanted: Mapping[Any, Any], what: str) -> None:
    """Raise if the contents of `path` (`what`) have another revision than wanted.

    Raises:
        HeadnbError: the revisions differ.
    """
    revision, current = revision_of(stored), revision_of(wanted)
    if revision != current:
        raise HeadnbError(
            f"{path} contains {what} of scoring revision {revision}, and this version of headnb computes revision "
            f"{current}, whose numbers may differ; choose another path, or remove it to recompute (opening it still "
            "works)"
        )


def check_same_settings(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise HeadnbError unless the scores at `path` have the wanted settings, apart from `_RUN_ATTRS`."""
    check_revision(path, stored, wanted, "scores")
    different = [
        f"{name} {stored.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted((stored.keys() | wanted.keys()) - _RUN_ATTRS)
        if stored.get(name) != wanted.get(name)
    ]
    if different:
        raise HeadnbError(f"{path} contains scores with {'; '.join(different)}; choose another `out` or remove it")


def check_same_revision(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> None:
    """Raise HeadnbError if the attributes of two results have different revisions."""
    if REVISION in one and REVISION in other and one[REVISION] != other[REVISION]:
        old, new = sorted((revision_of(one), revision_of(other)))
        raise HeadnbError(
            f"these scores have different scoring revisions, {old} and {new}, and their numbers may differ; score the "
            f"samples of revision {old} again"
        )


def revision_note(attrs: Mapping[Any, Any]) -> str:
    """A note about scores of another revision; empty for the current one."""
    revision = revision_of(attrs)
    if revision == SCORING_REVISION or not {REVISION, "versions"} & attrs.keys():  # not made by headnb
        return ""
    age = "an earlier" if revision < SCORING_REVISION else "a later"
    return (
        f"Scored by {age} version of headnb (scoring revision {revision}, this version has {SCORING_REVISION}). Score "
        "again before comparing with new scores."
    )


def warn_of_revision(path: str | Path, attrs: Mapping[Any, Any]) -> None:
    """Warn on opening scores of another revision at `path`."""
    if note := revision_note(attrs):
        warn_user(f"{one_line(path)}: {note}")
