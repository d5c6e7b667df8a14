"""Precision of methods that select instructions of the target's task, on the default model and real tasks.

    nice python tests/benchmarks/selection.py            # needs HEADNB_DATA, the default model and a quarter of an hour

The pool has 40 training samples of each task. The target is 16 test samples of each task in turn. The tables give the
precision at 40 (maximum 1) and at 100 (maximum 0.4), by task and on average. A random selection from seven tasks has
precision 1 / 7. Intervals of the averages are over tasks. Scores are stored in `--folder` and reused by the next run.
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import headnb
from headnb.analysis.selection.precision import SCORE_METHODS, mean_over_targets, selection_precision

if TYPE_CHECKING:
    import xarray as xr
    from headnb.tasks.loading import Task

POOL, TARGET, AT = 40, 16, (40, 100)
LENGTH = 128


@functools.cache
def default_model() -> tuple:
    return headnb.load_model("smollm2-135m", device="cpu", dtype="float32")


def kept_scores(task: Task, split: str, method: str, folder: Path) -> xr.Dataset:
    """Scores of the default model; read from a file if it exists."""
    path = folder / f"{task.name}.{split}.{method}.nc"
    if not path.exists():
        scores = headnb.score_heads(*default_model(), task, method=method, max_length=LENGTH)
        scores.to_netcdf(path)
        print(f"scored {path.name}", flush=True)
    return headnb.open_scores(path)


def precisions(by: str, to: str, targets: dict[str, Task], pool: dict[str, Task], folder: Path) -> xr.DataArray:
    """Fraction of the selected samples that belong to the target's task, (target, k)."""
    if by not in SCORE_METHODS:
        return selection_precision(targets, pool, AT, by, to=to)
    wanted = {name: kept_scores(task, "test", SCORE_METHODS[by], folder) for name, task in targets.items()}
    given = {name: kept_scores(task, "train", SCORE_METHODS[by], folder) for name, task in pool.items()}
    return selection_precision(wanted, given, AT, by, to=to)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/selection"))
    parser.add_argument("--by", nargs="+", default=["pattern", "cosine", "gradient-free", "tfidf", "random"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name.split(".")[0] for path in Path(os.environ["HEADNB_DATA"]).glob("*.test.jsonl"))
    targets = {name: headnb.load_task(name, split="test", n=TARGET) for name in names}
    pool = {name: headnb.load_task(name, split="train", n=POOL) for name in names}
    table = {
        (by, to): precisions(by, to, targets, pool, options.folder)
        for by in options.by
        for to in (("mean", "nearest") if by != "random" else ("mean",))
    }
    for k in AT:
        print(f"\nprecision at {k}; random selection: {1 / len(names):.2f}")
        print(f"{'':24}{'average':>14}" + "".join(f"{name[:9]:>10}" for name in names))
        for (by, to), found in table.items():
            mean = mean_over_targets(found).sel(k=k)
            average = f"{float(mean['value']):.2f} ± {float(mean['high'] - mean['value']):.2f}"
            row = "".join(f"{value:10.2f}" for value in found.sel(k=k).to_numpy())
            print(f"{by if by == 'random' else f'{by}, {to}':24}{average:>14}{row}")


if __name__ == "__main__":
    main()
