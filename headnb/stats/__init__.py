"""Statistics of patterns as pure functions on arrays."""

from __future__ import annotations
