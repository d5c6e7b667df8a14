"""Composition: is a complex task's change made of basic tasks' changes (finding 2 of arXiv 2409.15820)."""

from __future__ import annotations
