"""Seeds of what is drawn for several tasks.

Random heads or samples that one seed draws for every task are the same ones, or at the same places of a ranking; so
what they do is alike in all tasks, and intervals over tasks, which take them as independent, are too narrow.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np


def seed_of_task(seed: int, task: str) -> int:
    """A task's own seed, always the same one."""
    return int(np.random.SeedSequence([seed, crc32(task.encode())]).generate_state(1, np.uint64)[0])
