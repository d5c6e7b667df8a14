"""What the notebooks use of other packages to train one model several times."""

from __future__ import annotations

from headnb.models.state import weights_kept
from headnb.tuning.learning import learn

__all__ = ["learn", "weights_kept"]
