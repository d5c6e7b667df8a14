"""Seeds of random choices for several tasks.

One seed for all tasks would choose the same heads, or samples at the same ranks, in every task. Their effects would be
correlated between tasks, and intervals over tasks, which assume independence, would be too narrow.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np


def seed_of_task(seed: int, task: str) -> int:
    """A task's own seed: a deterministic function of `seed` and the task's name."""
    return int(np.random.SeedSequence([seed, crc32(task.encode())]).generate_state(1, np.uint64)[0])
