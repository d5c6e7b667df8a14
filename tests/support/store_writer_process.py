"""A process that writes a store, and pauses or is killed at a given moment.

A moment is the name of a function of this module.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch
from headnb import score_heads
from headnb.scoring import one_pass
from headnb.storage import score_store, zarr_columns
from zarr.storage import LocalStore

from scoring_samples import BUDGET, TASK
from tiny import tiny_model

OPTIONS = {"batch_tokens": BUDGET}
TEST = []  # connection to the test


def pause():
    """Say "paused" and wait for an answer, or for the end of the connection."""
    with suppress(EOFError, OSError):
        TEST[0].send("paused")
        TEST[0].recv()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def pause_while_creating():
    create = score_store.write_columns
    score_store.write_columns = lambda *args: (pause(), create(*args))


def pause_after_each_batch():
    write = score_store.ScoreTable.write
    score_store.ScoreTable.write = lambda *args: (write(*args), pause())


def die_before_the_rename():
    Path.rename = lambda *_: die()


def die_while_replanning():
    """Run out of memory in the fourth batch, and die before the fifth chunk of the new plan is written."""
    score, batches = one_pass.run_pass, []

    def scarce(self, batch, *, budget):
        batches.append(batch)
        if len(batches) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(self, batch, budget=budget)

    one_pass.run_pass = scarce
    die_before_write("batch/c/4", other="batch/c/3", times=2)


def die_while_marking():
    """Die when a batch with samples in the third and the fourth chunk is marked as done in the fourth only."""
    OPTIONS["packed"] = False  # this plan has such a batch
    die_before_write("done/c/2", other="done/c/3", times=1)


def die_before_write(chunk, other, times):
    """Die before `chunk` is written a second time, and after the chunk `other` was written `times` times."""
    write, begun, written = LocalStore.set, Counter(), Counter()
    other_is_written = asyncio.Event()

    async def dying(self, name, value):
        begun[name] += 1
        if name == chunk and begun[chunk] == 2:
            await other_is_written.wait()
            die()
        await write(self, name, value)
        written[name] += 1
        if written[other] == times:
            other_is_written.set()

    LocalStore.set = dying
    zarr_columns.CHUNK_BYTES = 160  # five samples, so that one array is several chunks


def write_store(out, moment, *test):
    """Write the store; for a process of its own, because it changes modules."""
    TEST.extend(test)
    torch.set_num_threads(1)  # as in the tests, because sums over several threads differ in the last bit
    score_store.WRITE_INTERVAL = 0.0  # write after each batch
    globals()[moment]()
    score_heads(tiny_model(), None, TASK, out=out, **OPTIONS)
