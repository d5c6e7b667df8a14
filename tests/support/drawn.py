"""Hypothesis strategies for untrusted input, and the allowed outcomes of reading it."""

from __future__ import annotations

from headnb import HeadnbError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from stores import one_line

FEW = 20
MANY = 5000

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=12)
    | st.sampled_from([10**400, -1, 2**63, "\ud800", "../x", "/etc/x", "\x1b[2J", "<script>", "a\0b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def tried(examples):
    """Settings of hypothesis for this number of examples, the same on every machine."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(found, call):
    """Count whether `call` succeeds or raises HeadnbError with one line of limited length; anything else fails."""
    try:
        result = call()
    except HeadnbError as error:
        one_line(error)
        found["refused"] += 1
        return None
    found["read"] += 1
    return result
