"""Where the time of the writing process goes: many samples of a tiny model, two Dask workers, one store.

    nice -n 10 python tests/benchmarks/writing.py --samples 100000        # no data, no model; two cores

The grid has 1024 heads, as that of Llama-3-8B: a sample takes 4 kB. The model is tiny, so that batches arrive as
fast as they can be written. The calling process plans, submits, waits, writes and verifies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import headnb
import numpy as np
from distributed import Client, LocalCluster
from headnb.engine.batching import plan_batches
from headnb.scoring.batch_run import BatchRun
from headnb.scoring.workers import PendingBatches
from headnb.storage.score_store import ScoreTable, open_table
from processes import forget_peak, peak, resident
from scaling import WIDE, WIDTH
from shapes import as_rows, random_llama, random_samples

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: dict[str, list[tuple[type, str]]] = {
    "waiting for a batch": [(PendingBatches, "next")],
    "collating and submitting": [(BatchRun, "_batch"), (PendingBatches, "submit")],
    "checking and weighting scores": [(BatchRun, "_weighted")],
    "writing": [(ScoreTable, "write")],
    "verifying at the end": [(ScoreTable, "verify")],
}


def timed(seconds: dict[str, float], part: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose time is added to `seconds[part]`."""

    def call(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            seconds[part] += time.perf_counter() - began

    return call


def measure(samples: int, tokens: int, workers: int, batch_tokens: int) -> tuple[dict[str, float], float, float, int]:
    """Seconds of each part, of the whole call and of the processor; bytes of memory above the loaded samples."""
    shape = {"num_attention_heads": WIDE["heads"], "num_key_value_heads": WIDE["heads"], "head_dim": WIDE["head_dim"]}
    model = random_llama("tiny", hidden_size=WIDTH, num_hidden_layers=WIDE["layers"], **shape)
    rows = as_rows(random_samples(samples, tokens, 320))
    seconds: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))
        client = stack.enter_context(Client(cluster))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client.run(headnb.methods)  # so that the time does not include imports
        headnb.score_heads(model, None, rows[:64], out=folder / "first.zarr", client=client)
        for part, methods in PARTS.items():
            for owner, name in methods:
                stack.enter_context(mock.patch.object(owner, name, timed(seconds, part, getattr(owner, name))))
        loaded = resident()
        forget_peak()
        began, busy = time.perf_counter(), time.process_time()
        headnb.score_heads(model, None, rows, batch_tokens=batch_tokens, out=folder / "scores.zarr", client=client)
        return seconds, time.perf_counter() - began, time.process_time() - busy, peak() - loaded


def store_costs(samples: int, of_batch: int = 32) -> tuple[float, float]:
    """Processor seconds of the calling process for each sample: writing, and verifying at the end."""
    shape = (WIDE["layers"], WIDE["heads"])
    plan = plan_batches(np.full(samples, 8), batch_tokens=8 * of_batch, packed=False, seed=0)
    columns = {"answer_tokens": np.int32, "batch_answer_tokens": np.int32, "fingerprint": np.int64}
    known = {name: np.ones(samples, kind) for name, kind in columns.items()}
    scores = np.random.default_rng(0).standard_normal((of_batch, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        ids = np.arange(samples).astype(str)
        with open_table(Path(folder) / "scores.zarr", {"method": "activation"}, ids, known, plan, shape) as table:
            began = time.process_time()
            for rows in plan.batches():
                table.write(rows, scores[: len(rows)], np.ones(len(rows), np.float32))
            table.flush()
            written = time.process_time()
            table.verify()
            return (written - began) / samples, (time.process_time() - written) / samples


def dask_costs(batches: int, workers: int, *, returned: bool, of_batch: int = 32, tokens: int = 256) -> float:
    """Processor seconds of the calling process for each batch that a worker answers at once: client and scheduler.

    Args:
        batches: number of batches.
        workers: number of workers.
        returned: whether workers return the scores; False: as if they wrote them.
        of_batch: samples of a batch.
        tokens: tokens of a sample.
    """

    def answer(ids: np.ndarray, scores: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(scores, np.float32), np.ones(len(ids), np.float32)

    ids = np.ones((2 * of_batch, tokens), np.int64)  # ids and labels
    shape = (of_batch if returned else 0, WIDE["layers"], WIDE["heads"])
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        pending = [client.submit(answer, ids, shape, pure=False) for _ in range(2 * workers)]
        began = time.process_time()
        for _ in range(batches):
            pending.pop(0).result()
            pending.append(client.submit(answer, ids, shape, pure=False))
        return (time.process_time() - began) / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--costs", action="store_true", help="only the processor time of writing and of Dask")
    options = parser.parse_args()
    if options.costs:
        write, verify = store_costs(options.samples)
        print(
            f"processor time of a sample of 1024 heads: writing {write * 1e6:.0f} µs, verifying {verify * 1e6:.0f} µs"
        )
        for returned, words in ((True, "with its scores"), (False, "without its scores")):
            each = dask_costs(options.samples // 32, options.workers, returned=returned)
            print(f"processor time of a batch of 32 samples through Dask, {words}: {each * 1e3:.1f} ms", flush=True)
        return
    parts, seconds, busy, memory = measure(options.samples, options.tokens, options.workers, options.batch_tokens)
    print(
        f"{options.samples} samples of {options.tokens} tokens, {WIDE['layers'] * WIDE['heads']} heads: {seconds:.0f} s"
    )
    parts["planning, opening and the result"] = seconds - sum(parts.values())
    for part, spent in parts.items():
        print(f"{part:34}{spent:8.1f} s{spent / seconds:7.1%}")
    print(f"{'processor time of this process':34}{busy:8.1f} s{busy / seconds:7.1%}")
    print(f"memory above the loaded samples: {memory / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
