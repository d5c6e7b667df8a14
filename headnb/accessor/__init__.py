"""`.heads` accessors of xarray objects: statistics, selection and pictures of scores, comparisons and patterns.

`import headnb` imports this package, so its modules import what computes only when a method is called.
"""

from __future__ import annotations

from headnb.accessor.pattern_heads import PatternHeads
from headnb.accessor.scores_heads import ScoresHeads

__all__ = ["PatternHeads", "ScoresHeads"]
