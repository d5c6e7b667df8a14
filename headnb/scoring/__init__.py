"""Head scores: `run.score_heads`, the registry of methods, and one module for each family of scores."""

from __future__ import annotations
