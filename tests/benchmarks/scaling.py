"""Growth of time and memory of activation scores with samples, layers, heads and length, on tiny random models.

    python tests/benchmarks/scaling.py            # no data, no model; Linux

Each point is measured in its own process. An exponent is the slope of a straight line through the logarithms of the
last three points; 1 is linear growth. Memory is the peak during scoring above the memory of model and samples.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import headnb
from processes import forget_peak, peak, resident
from rounds import exponent
from shapes import as_rows, random_llama, random_samples

WIDTH = 256  # width of the residual stream; constant, so that parameters are proportional to layers and to heads
# Settings of every point, except for the setting that varies.
DEFAULT = {"samples": 64, "tokens": 128, "layers": 2, "heads": 8, "head_dim": 8, "out": False}
AXES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "samples": ({"tokens": 8}, (100, 1000, 10_000, 100_000)),
    "layers": ({}, (2, 4, 8, 16, 32)),
    "heads": ({}, (32, 64, 128, 256)),
    "tokens": ({"samples": 8}, (128, 256, 512, 1024, 2048, 4096)),
}
# A grid of 1024 heads: the scores of a sample take 4 kB, and its tokens take little memory.
WIDE = {"tokens": 8, "layers": 8, "heads": 128, "head_dim": 2}
QUICK = 10_000


def measure(point: dict[str, Any]) -> dict[str, float]:
    """Seconds and bytes of one call of `score_heads`, after a small warm-up call."""
    model = random_llama(
        "tiny",
        hidden_size=WIDTH,
        num_hidden_layers=point["layers"],
        num_attention_heads=point["heads"],
        num_key_value_heads=point["heads"],
        head_dim=point["head_dim"],
    )
    rows = as_rows(random_samples(point["samples"], point["tokens"], 320))
    headnb.score_heads(model, None, rows[:4])
    loaded = resident()
    forget_peak()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scores.zarr" if point["out"] else None
        began = time.perf_counter()
        headnb.score_heads(model, None, rows, out=out)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "memory": peak() - loaded}


def measured(**point: Any) -> dict[str, float]:
    """`measure` in a new process, forked from a server process that has only imported the modules."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"), max_tasks_per_child=1) as executor:
        return executor.submit(measure, DEFAULT | point).result()


def along(axis: str, most: int) -> None:
    """Vary one setting: print a line for each point, then the exponents."""
    others, sizes = AXES[axis]
    sizes = tuple(size for size in sizes if size <= most)
    found = [measured(**others, **{axis: size}) for size in sizes]
    print(f"\n{axis:>10}{'seconds':>10}{'MB':>8}")
    for size, point in zip(sizes, found, strict=True):
        print(f"{size:10}{point['seconds']:10.2f}{point['memory'] / 1e6:8.1f}", flush=True)
    time_grows, memory_grows = (exponent(sizes, [point[key] for point in found]) for key in ("seconds", "memory"))
    print(f"{'exponent':>10}{time_grows:10.2f}{memory_grows:8.2f}")


def growth(few: int = 18_000, many: int = 24_000) -> None:
    """Print the memory per additional sample, without and with `out`, for scores of more than 64 MB."""
    print(f"\n{WIDE['layers'] * WIDE['heads']} heads, {few} to {many} samples: 4096 bytes of scores per sample")
    for out in (False, True):
        first, last = (measured(**WIDE, samples=count, out=out)["memory"] for count in (few, many))
        where = "on disk" if out else "in memory"
        print(f"{where:>10}: {(last - first) / (many - few):.0f} bytes per additional sample", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", choices=[*AXES, "growth"], help="print only this table; default: all")
    parser.add_argument("--quick", action="store_true", help=f"at most {QUICK} samples")
    options = parser.parse_args()
    multiprocessing.set_forkserver_preload(["headnb.scoring.run", "transformers.models.llama.modeling_llama", "zarr"])
    most = QUICK if options.quick else 100_000
    for axis in AXES:
        if options.axis in (None, axis):
            along(axis, most)
    if options.axis in (None, "growth"):
        growth()


if __name__ == "__main__":
    main()
