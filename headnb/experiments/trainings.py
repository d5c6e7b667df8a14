"""Names from other packages that the notebooks use to train one model several times."""

from __future__ import annotations

from headnb.models.restore import restore_weights
from headnb.tuning.learning import finetune_and_merge

__all__ = ["finetune_and_merge", "restore_weights"]
