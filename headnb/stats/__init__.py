"""Statistics of patterns, as pure functions on arrays, and the identity of results."""

from __future__ import annotations
