"""Scoring is killed at fifty random moments; the same call resumes each time, with bitwise equal scores.

Slow: `make robustness`. Three fixed moments are part of `make test` (test_score_heads).
"""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from headnb import open_scores, score_heads

from scoring_samples import BUDGET, TASK, same_scores
from tiny import tiny_model

KILLS = 50

# Reports its progress, so that moments are relative to the run, however busy the machine is.
SCORE = """
import sys
import torch
torch.set_num_threads(1)  # as in the tests: the order of sums, and so the last bit, depends on it
from scoring_samples import BUDGET, TASK
from tiny import tiny_model
from headnb import score_heads
from headnb.storage import score_store
assert hasattr(score_store, "WRITE_INTERVAL")
score_store.WRITE_INTERVAL = {every}
model = tiny_model()
print("ready", flush=True)
score_heads(model, None, TASK, batch_tokens=BUDGET, out={out!r}, on_progress=lambda at: print(at.done, flush=True))
"""


@contextmanager
def scoring(out, every=0.0):
    """Start scoring in another process, which writes at most every `every` seconds."""
    command = [sys.executable, "-c", SCORE.format(out=str(out), every=every)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


def seconds_between_reports(out):
    """Seconds of an undisturbed run from its start to the first report, and between reports."""
    times = [time.perf_counter()]
    with scoring(out) as process:
        times += [time.perf_counter() for _ in process.stdout]
    return [after - before for before, after in itertools.pairwise(times)]


@pytest.mark.slow
def test_scoring_killed_at_fifty_random_moments_ends_bitwise_equal(tmp_path):
    expected = score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET)
    seconds = seconds_between_reports(tmp_path / "timed.zarr")
    moments = random.Random(0)
    stages = Counter()
    for kill in range(KILLS):
        out = tmp_path / f"{kill}.zarr"
        reports = moments.randrange(len(seconds))
        with scoring(out, every=(0.0, 0.05)[kill % 2]) as process:
            for _ in range(reports):
                process.stdout.readline()
            time.sleep(moments.uniform(0, seconds[reports]))
            process.send_signal(signal.SIGKILL)
        scored = open_scores(out).sizes["sample"] if out.exists() else -1
        stage = {-1: "before the store existed", 0: "before a batch", len(TASK): "at the end"}.get(scored, "between")
        stages[stage] += 1
        assert same_scores(score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out=out), expected)
        assert same_scores(open_scores(out), expected)
    print(f"{KILLS} kills ({dict(stages)}); every run ended bitwise equal")
    assert stages["between"] > KILLS / 2
