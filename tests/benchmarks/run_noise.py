"""Variance between training runs relative to variance between samples, on the default model and real tasks.

    nice python tests/benchmarks/run_noise.py            # needs HEADNB_DATA, the default model and half an hour

The simulations should cover the range that this benchmark measures. Each task is trained with several seeds (LoRA, 20
steps of 4 samples). The seed determines adapters, samples and their order. The same test samples are scored before and
after fine-tuning. The columns of the table are computed over heads:

    median, 10 %, 90 %    of the ratio (b - c) / a (`headnb.stats.run_variance`): the variance of a head's mean change
                          from runs, relative to that from samples. With R - 1 degrees of freedom, the quantiles differ
                          widely.
    s2, d0                parameters of the distribution of the run variance over heads
    uneven                standard deviation over heads of the logarithm of the run noise, derived from d0
    shared                fraction of the run variance in its first direction

Scores are stored in `--folder` and reused by the next run.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import headnb
import numpy as np
import pandas as pd
from headnb.analysis.before_after import read_stages
from headnb.stats.patterns import relative_to_mean_head
from headnb.stats.run_variance import crossed_means
from scipy.special import polygamma

if TYPE_CHECKING:
    import xarray as xr
    from headnb.analysis.before_after import Stages

LENGTH, BATCH = 128, 4


@functools.cache
def default_model() -> tuple:
    return headnb.load_model("smollm2-135m", device="cpu", dtype="float32")


def kept_scores(name: str, seed: int | None, options: argparse.Namespace) -> xr.Dataset:
    """Scores of the test samples before fine-tuning (`seed` None) or after it; read from a file if it exists."""
    path = options.folder / f"{name}.{'before' if seed is None else f'seed{seed}'}.nc"
    if not path.exists():
        model, tokenizer = default_model()
        samples = headnb.load_task(name, split="test", n=options.samples)
        if seed is None:
            scores = headnb.score_heads(model, tokenizer, samples, max_length=LENGTH)
        else:
            how = {"steps": options.steps, "batch_size": BATCH, "seed": seed, "max_length": LENGTH, "track": []}
            with headnb.finetune(model, tokenizer, name, **how).applied(model) as tuned:
                scores = headnb.score_heads(tuned, tokenizer, samples, max_length=LENGTH)
        scores.to_netcdf(path)
        print(f"scored {path.name}", flush=True)
    return headnb.open_scores(path)


def run_noise(stages: Stages, *, scale_free: bool) -> dict[str, float]:
    """The table row of one task."""
    before, after = stages.required_before, stages.after
    if scale_free:
        before, after = relative_to_mean_head(before), np.stack([relative_to_mean_head(run) for run in after])
    found = crossed_means(after - before)
    ratios = (found.over_runs - found.interaction) / found.over_samples
    quantiles = {name: float(np.nanquantile(ratios, q)) for name, q in (("10 %", 0.1), ("90 %", 0.9))}
    uneven = float(np.sqrt(polygamma(1, found.d0 / 2)) / 2)
    shared = {"s2": found.s2, "d0": found.d0, "uneven": uneven, "shared": found.shared}
    return {"median": found.run_to_sample, **quantiles, **shared}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/run_noise"))
    parser.add_argument("--tasks", nargs="+", default=["svamp", "arc_easy"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=24)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name in options.tasks:
        before = kept_scores(name, None, options)
        pairs = [(before, kept_scores(name, seed, options)) for seed in range(options.runs)]
        stages = read_stages(pairs, name)
        rows |= {(name, form): run_noise(stages, scale_free=form == "scale-free") for form in ("raw", "scale-free")}
    print(pd.DataFrame(rows).T.to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
