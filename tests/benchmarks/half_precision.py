"""Times of scores in bfloat16 on a CPU without bfloat16 instructions: torch's own products, and products in float32.

    python tests/benchmarks/half_precision.py             # needs HEADNB_DATA and the default model; ten minutes

Each round scores the same samples in all three ways. The table gives each time relative to float32.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from unittest import mock

import headnb
import torch
from headnb.models.half_precision import float32_products

WAYS = {
    "float32": ("float32", float32_products),
    "bfloat16, products in float32": ("bfloat16", float32_products),
    "bfloat16, torch's products": ("bfloat16", lambda _model: contextlib.nullcontext()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    models = {dtype: headnb.load_model("smollm2-135m", dtype=dtype) for dtype in ("float32", "bfloat16")}
    task = headnb.load_task("gsm8k", n=given.samples)
    headnb.score_heads(*models["float32"], task)
    seconds = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way, (dtype, products) in WAYS.items():
            with mock.patch("headnb.engine.hooks.float32_products", products):
                start = time.perf_counter()
                headnb.score_heads(*models[dtype], task)
                seconds[way].append(time.perf_counter() - start)
    for way, times in seconds.items():
        ratios = sorted(one / base for one, base in zip(times, seconds["float32"], strict=True))
        print(f"| {way} | {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] |")


if __name__ == "__main__":
    main()
