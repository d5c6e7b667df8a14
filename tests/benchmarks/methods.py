"""Cost of several methods in one call, relative to each method alone, in turn in one process.

    python tests/benchmarks/methods.py            # needs HEADNB_DATA and the default model; minutes on a quiet core

Each round scores the same samples by each method alone and by all of them together; the order alternates. The table has
the medians of the rounds' ratios to `activation`, with intervals (order statistics). Time is the processor time of this
process, so that other processes on the machine disturb it little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import headnb
import numpy as np
from rounds import median_interval

METHODS = ("activation", "taylor-token", "output-norm", "entropy")


def seconds(work: Any) -> tuple[float, Any]:
    """Processor seconds of a call, and its result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def measure(model: Any, tokenizer: Any, task: Any, methods: tuple[str, ...], rounds: int) -> dict[str, list[float]]:
    """Seconds of each method, of "together" and of "one by one", by round; together has the same numbers."""
    ways: dict[str, Any] = {method: method for method in methods} | {"together": list(methods)}
    found: dict[str, list[float]] = {way: [] for way in (*ways, "one by one")}
    for turn in range(rounds + 1):  # the first warms up
        took, results = {}, {}
        for way in list(ways)[:: 1 if turn % 2 else -1]:
            method = ways[way]
            took[way], results[way] = seconds(lambda m=method: headnb.score_heads(model, tokenizer, task, method=m))
        for method in methods:
            assert np.array_equal(results[method].score, results["together"][method].score, equal_nan=True), method
        took["one by one"] = sum(took[method] for method in methods)
        if turn:
            for way, of in took.items():
                found[way].append(of)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    model, tokenizer = headnb.load_model("smollm2-135m")
    task = headnb.load_task("gsm_symbolic", n=options.samples, seed=0)
    found = measure(model, tokenizer, task, tuple(options.methods), options.rounds)
    dearest = max(options.methods, key=lambda method: statistics.median(found[method]))
    print(f"| | time, relative to {dearest} alone |\n|---|---|")
    for way, times in found.items():
        ratios = [of / base for of, base in zip(times, found[dearest], strict=True)]
        low, high = median_interval(ratios)
        print(f"| {way} | {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] |")


if __name__ == "__main__":
    main()
