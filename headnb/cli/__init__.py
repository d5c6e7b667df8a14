"""Command line interface `headnb`."""

from __future__ import annotations
