"""Head scores: `run.score_heads`, one module per family of scores, and the registry of methods."""

from __future__ import annotations
