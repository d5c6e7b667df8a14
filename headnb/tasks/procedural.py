"""Procedural tasks: samples that reasoning-gym makes by rule, and a few of them for installations without it.

`data/procedural_tasks.json` lists reasoning-gym's tasks, so that they are known by name where it is not installed;
`data/procedural_samples.jsonl` holds the first samples of the quickstart's tasks, the same that reasoning-gym makes.
Both are written by tests/support/write_procedural.py. reasoning-gym and its samples are licensed under Apache-2.0; the
sentences of sentence_reordering are from *In the Year 2889* (1889), which is in the public domain.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from headnb.errors import HeadnbError, first_line, missing_extra
from headnb.tasks.registry import TaskCard

DATA = Path(__file__).parent / "data"
TASKS, SAMPLES = DATA / "procedural_tasks.json", DATA / "procedural_samples.jsonl"
BUNDLED_SEED = 0
BUNDLED = (("gsm_symbolic", "test"), ("gsm_symbolic", "train"), ("sentence_reordering", "test"))
BUNDLED_SAMPLES = 64  # of each


@functools.cache
def procedural_cards() -> dict[str, TaskCard]:
    """A card for every task of reasoning-gym that states its answer, whether it is installed or not."""
    listed = json.loads(TASKS.read_text(encoding="utf-8"))
    return {
        name: TaskCard(group, description, "reasoning-gym", "Apache-2.0")
        for name, (group, description) in listed.items()
    }


def question_answers(name: str, split: str, n: int, seed: int) -> list[tuple[str, str]]:
    """The first n questions and answers of a procedural task.

    Raises:
        HeadnbError: reasoning-gym is not installed, and these samples are not bundled; or it does not know the task.
    """
    try:
        import reasoning_gym  # noqa: PLC0415  an optional dependency, slow to import
    except ImportError as error:
        if (name, split) in BUNDLED and seed == BUNDLED_SEED and n <= BUNDLED_SAMPLES:
            return _bundled(name, split)[:n]
        raise HeadnbError(
            f"task {name!r} (split {split!r}, seed {seed}, {n} samples): {missing_extra('reasoning-gym', 'tasks')};"
            f" without it there are {BUNDLED_SAMPLES} samples with seed {BUNDLED_SEED} of"
            f" {', '.join(f'{task} ({part})' for task, part in BUNDLED)}"
        ) from error
    # Its sample i depends on seed + i, so that seeds 0 and 1 share all samples but one. A hash as the seed separates
    # them, and the splits as well.
    digest = hashlib.blake2b(f"{name}/{split}/{seed}".encode(), digest_size=4).digest()
    try:
        made = reasoning_gym.create_dataset(name, seed=int.from_bytes(digest) >> 1, size=n)
        return [(entry["question"], str(entry["answer"])) for entry in made]
    except (ImportError, ValueError) as error:
        raise HeadnbError(f"reasoning-gym cannot make the task {name!r}: {first_line(error)}") from error


def _bundled(name: str, split: str) -> list[tuple[str, str]]:
    rows = map(json.loads, SAMPLES.read_text(encoding="utf-8").splitlines())
    return [(row["question"], row["answer"]) for row in rows if (row["task"], row["split"]) == (name, split)]
