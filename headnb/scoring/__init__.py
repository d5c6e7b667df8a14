"""Head scores: `score_heads`, and one module per family of scores behind one registry."""

from __future__ import annotations

from headnb.scoring.progress import Progress, ScoringInterrupted
from headnb.scoring.registry import methods
from headnb.scoring.run import check_settings, score_heads

__all__ = ["Progress", "ScoringInterrupted", "check_settings", "methods", "score_heads"]
