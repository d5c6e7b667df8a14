"""How often the registered rule (docs/experiment.md) gives each verdict in simulated studies of its size.

    python tests/benchmarks/fair_rule.py --studies 10

Worlds are those of `tests/support/simulated_compositions.py`, with 30 layers of 9 heads, 3 runs of each task, and 16
groups of samples. The controls of the rule are not simulated.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from headnb.experiments.fair.decision import FIRST_LEVEL, Study, decide
from headnb.experiments.fair.design import Family
from headnb.experiments.fair.results import GROUPS

from simulated_compositions import TASKS, study

WORLDS = {
    "null": ("null", {}),
    "noise only": ("noise only", {}),
    "a change common to all tasks": ("multiplicative", {}),
    "a format that target and basics share": ("format", {}),
    "composed, a quarter of the change": ("composed", {"share": 0.25}),
    "composed, half of the change": ("composed", {"share": 0.5}),
}


def verdict(world: str, number: int, run_noise: float, options: dict[str, float]) -> str:
    """Verdict on one simulated study, at the level of Holm's first step."""
    rng = np.random.default_rng([24, number])
    drawn = study(rng, world, n=GROUPS, layers=30, run_noise=run_noise, **options)
    own = {"target": drawn["target"], **drawn["basics"], **drawn["others"]}

    def with_loss(tasks: dict, loss: float) -> dict:
        means = ("sample", np.full(GROUPS, loss))
        return {task: [(before, after.assign(loss=means)) for before, after in pairs] for task, pairs in tasks.items()}

    family = Family("target", TASKS[1:3], TASKS[3:])
    one = Study(family, with_loss(own, 1.0), with_loss(drawn["shuffled"], 2.0))
    return decide(one, level=FIRST_LEVEL, replicates=20).verdict


def main() -> None:
    """Print one row per world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--run-noise", type=float, default=0.2)
    given = parser.parse_args()
    for name, (world, options) in WORLDS.items():
        counts = Counter(verdict(world, number, given.run_noise, options) for number in range(given.studies))
        print(f"| {name} | {', '.join(f'{verdict} {count}' for verdict, count in counts.most_common())} |", flush=True)


if __name__ == "__main__":
    main()
