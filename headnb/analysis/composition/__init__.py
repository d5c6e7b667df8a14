"""Composition: is a complex task's change a combination of basic tasks' changes? Finding 2 of arXiv 2409.15820."""

from __future__ import annotations
