"""Values that hypothesis draws for what strangers may have written, and what may come of reading them."""

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
    """Each case drawn anew on every machine alike; `examples` of them."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(found, call):
    """Count whether `call` is refused in one line of bearable length, or goes through; nothing else may come of it."""
    try:
        result = call()
    except HeadnbError as error:
        one_line(error)
        found["refused"] += 1
        return None
    found["read"] += 1
    return result
