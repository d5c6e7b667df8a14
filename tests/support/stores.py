"""Score stores for fault tests, written without a model, so that thousands of cases are cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from headnb.engine.batching import plan_batches
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION
from headnb.storage import score_store
from headnb.storage.method_tables import MethodTables

if TYPE_CHECKING:
    import random
    from pathlib import Path

    import xarray as xr
    from headnb import HeadnbError

SAMPLES, LAYERS, HEADS = 30, 2, 4
ABOUT = {
    "model": "tiny",
    "task": "made up",
    "method": "activation",
    "seed": 0,
    REVISION: SCORING_REVISION,
    "versions": '{"torch": "0"}',
}
_RANDOM = np.random.default_rng(0)
_LENGTHS = _RANDOM.integers(4, 40, SAMPLES)
SCORE = _RANDOM.standard_normal((SAMPLES, LAYERS, HEADS)).astype(np.float32)
LOSS = _RANDOM.random(SAMPLES).astype(np.float32)
KNOWN = {
    "answer_tokens": _LENGTHS.astype(np.int32),
    "batch_answer_tokens": _LENGTHS.astype(np.int32),
    "fingerprint": _RANDOM.integers(-(2**62), 2**62, SAMPLES),
}


def score_into(path: Path | None, *, batches: int | None = None) -> xr.Dataset:
    """Write known scores to a store like a scoring: resume with the missing batches, at most `batches` of them."""
    plan = plan_batches(_LENGTHS, batch_tokens=120)
    ids = tuple(f"sämple-{number}" for number in range(SAMPLES))
    with score_store.open_table(path, ABOUT, ids, KNOWN, plan, (LAYERS, HEADS)) as table:
        for indices in MethodTables({"activation": table}).pending()[:batches]:
            positions = table.plan.order[indices]
            table.write(indices, SCORE[positions], LOSS[positions])
        return table.scores()


def scores_are_correct(scores: xr.Dataset) -> bool:
    """Whether every sample in the scores has its known values."""
    at = [int(str(name).removeprefix("sämple-")) for name in scores["sample"].values]
    return (
        len(set(at)) == len(at)
        and np.array_equal(scores["score"], SCORE[at])
        and np.array_equal(scores["loss"], LOSS[at])
        and all(np.array_equal(scores[name], values[at]) for name, values in KNOWN.items())
        and {name: scores.attrs[name] for name in ABOUT} == ABOUT
    )


def one_line(error: HeadnbError) -> str:
    """The message of an error, which must be one line of less than 2000 characters."""
    text = str(error)
    assert "\n" not in text
    assert len(text) < 2000
    return text


def corrupt(content: bytes, moments: random.Random) -> bytes:
    """Flip a random bit, or (with probability 1/4) truncate at a random position."""
    if moments.random() < 0.25:
        return content[: moments.randrange(len(content))]
    bit = moments.randrange(8 * len(content))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)
