"""Command line: `headnb ...`."""

from __future__ import annotations
