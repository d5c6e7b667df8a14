"""Scoring is killed at fifty random moments; each time the same call goes on and ends as if undisturbed.

Slow: `make robustness`. Three chosen moments are part of `make test` (test_score_heads).
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from headnb import open_scores, score_heads

from tiny import tiny_model

TESTS = Path(__file__).parent.parent
KILLS = 50

# Says when scoring begins, so that moments are drawn from the run itself and not from imports.
SCORE = """
import sys
import torch
torch.set_num_threads(1)  # as the tests themselves: the order of sums, and so the last bit, depends on it
sys.path.insert(0, {tests!r})
from test_score_heads import BUDGET, TASK
from tiny import tiny_model
from headnb import score_heads
model = tiny_model()
print("ready", flush=True)
score_heads(model, None, TASK, batch_tokens=BUDGET, out={out!r})
print("done", flush=True)
"""


@pytest.mark.slow
def test_scoring_killed_at_fifty_random_moments_ends_bitwise_equal(tmp_path):
    from test_score_heads import BUDGET, TASK, same_scores

    expected = score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET)
    moments = random.Random(0)
    began = time.perf_counter()
    score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=tmp_path / "timed.zarr")
    length = time.perf_counter() - began
    unfinished = 0
    for kill in range(KILLS):
        out = tmp_path / f"{kill}.zarr"
        with subprocess.Popen(
            [sys.executable, "-c", SCORE.format(tests=str(TESTS), out=str(out))], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0, length))
            process.send_signal(signal.SIGKILL)
        unfinished += not out.exists() or not open_scores(out).attrs["complete"]
        assert same_scores(score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out), expected)
        assert same_scores(open_scores(out), expected)
    print(f"{KILLS} kills, {unfinished} of them before the end; every run ended bitwise equal")
    assert unfinished > KILLS / 2
