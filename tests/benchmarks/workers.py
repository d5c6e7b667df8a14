"""Speed-up by a second worker of a Dask cluster: `score_heads(client=...)` with one and two single-threaded workers.

    python tests/benchmarks/workers.py    # needs HEADNB_DATA and the default model; five minutes, two idle cores

One and two workers take turns. The table gives the median of the rounds' ratios and an interval for it. The time
includes sending the model.
"""

from __future__ import annotations

import argparse
import statistics
import time

import headnb
from distributed import Client, LocalCluster
from rounds import disagreement, median_interval
from shapes import as_rows

from scoring import default_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=32, help="number of gsm8k samples")
    options = parser.parse_args()
    model, samples = default_model(options.samples)
    rows = as_rows(samples)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    scores = {}
    for round_ in range(options.rounds):
        for workers in (1, 2) if round_ % 2 else (2, 1):
            with (
                LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster) as client,
            ):
                client.run(headnb.methods)  # so that the time does not include imports
                began = time.perf_counter()
                scores[workers] = headnb.score_heads(model, None, rows, batch_tokens=512, client=client).score.values
                seconds[workers].append(time.perf_counter() - began)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    low, high = median_interval(ratios)
    print(f"{len(ratios)} rounds of {len(rows)} samples, largest difference {disagreement(scores[2], scores[1]):.0e}")
    print(f"one worker: {statistics.median(seconds[1]):.1f} s, two: {statistics.median(seconds[2]):.1f} s")
    print(f"{statistics.median(ratios):.2f} times as fast with two [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
