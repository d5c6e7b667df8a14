"""Snapshots of the public API and of user-visible texts, so that review shows each change."""

from __future__ import annotations

import pytest

import public_api
import user_strings


@pytest.mark.parametrize(
    ("made", "path"),
    [(public_api.public_api, public_api.SNAPSHOT), (user_strings.user_strings, user_strings.SNAPSHOT)],
    ids=["public API", "texts"],
)
def test_snapshot_is_as_committed(made, path):
    assert made() == path.read_text(), f"to accept the change, run python tests/support/{path.stem}.py"
