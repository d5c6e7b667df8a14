"""Mixtures of basic tasks to fine-tune on before a complex task (arXiv 2409.15820, application 1).

`fit_combination` gives the weights alpha_i of dAP_complex = sum over i of alpha_i dAP_i. A mixture of N samples has
N alpha_i / sum(alpha) samples of each basic task. Baseline mixtures are uniform, random or of a single task.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.analysis.composition.fit import CombinationFit
from headnb.analysis.result import result_html
from headnb.call_checks import check_arguments
from headnb.display.encodings import for_stdout
from headnb.errors import HeadnbError, unknown_name
from headnb.stats.seeds import seed_of_task
from headnb.tasks.loading import Task, is_endless, load_task

if TYPE_CHECKING:
    from headnb.tasks.samples import Id, Sample, TokenSample

    DrawnSample = tuple[Id, Sample | TokenSample]

WAYS = ("weights", "contributions", "uniform", "random", "single")


@dataclass(frozen=True, repr=False)
class Mixture(Task):
    """A task of shuffled samples of several basic tasks; an id such as `gsm8k/17` has the basic task and its id.

    Attributes:
        by: method of the mixture, one of `WAYS`.
        counts: basic task -> number of its samples.
        weights: basic task -> weight that its share is proportional to; negative weights count as zero.
        notes: notes for the user: omitted basic tasks with the reason, repeated samples, a fit that does not support
            composition.
    """

    by: str
    counts: dict[str, int]
    weights: dict[str, float]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        width = max(map(len, self.counts))
        rows = [
            f"  {name:{width}} {count:6d} {count / len(self):7.1%}   weight {self.weights[name]:.3g}"
            for name, count in self.counts.items()
        ]
        return for_stdout("\n".join([self._title(), *rows, *self.notes]))

    def _repr_html_(self) -> str:
        import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415

        rows = [
            {"basic task": name, "samples": count, "share": f"{count / len(self):.1%}", "weight": self.weights[name]}
            for name, count in self.counts.items()
        ]
        return result_html(self._title(), pd.DataFrame(rows), *self.notes, float_format="{:.3g}".format, index=False)

    def _title(self) -> str:
        return f"{self.name}: {len(self)} samples by {self.by}"


@check_arguments
def mixture(
    fit: CombinationFit | Mapping[str, float],
    size: int,
    sources: Mapping[str, object],
    seed: int = 0,
    *,
    by: str = "weights",
    repeat: bool = False,
) -> Mixture:
    """Mix samples of basic tasks to fine-tune on before a complex task (arXiv 2409.15820, application 1).

    Shares become whole numbers by the largest-remainder method: each share is rounded down, and the remaining samples
    go to the largest fractions (ties: the larger weight, then the earlier task). A task with a weight of zero or below
    has no samples.

    Args:
        fit: result of `fit_combination`, or basic task -> weight.
        size: N, the number of samples of the mixture.
        sources: basic task -> its samples: a `Task`, or anything that `load_task` accepts; a name loads the train
            split.
        seed: seed of the sampling and of the order of samples.
        by: "weights": alpha_i. "contributions": alpha_i times the norm of dAP_i, since alpha_i alone depends on the
            size of each task's change. Baselines: "uniform": equal shares. "random": a uniform random subset of all
            samples of all sources. "single": the one basic task with the largest R^2 when fitted alone. The paper does
            not state how its random mixture is sampled.
        repeat: repeat samples if a source has fewer than its share, each once before any twice; repeated ids end in
            ` #2`, ` #3`. If False, too few samples are an error.

    Returns:
        A `Mixture`: a `Task` that `finetune` accepts, with its counts and weights.

    Raises:
        HeadnbError: an unknown method or source, a basic task without a source, no weight above zero, or a source with
            fewer samples than its share.
    """
    if by not in WAYS:
        raise unknown_name("mixture method", by, WAYS)
    if size < 1:
        raise HeadnbError(f"size must be a whole number of samples, at least 1, not {size}")
    weights = _weights(fit, by)
    if unknown := [name for name in sources if name not in weights]:
        raise unknown_name("basic task in sources", unknown[0], weights)
    wanted = dict.fromkeys(weights, size) if by == "random" else _counts(weights, size, by)
    if missing := [name for name, count in wanted.items() if count and name not in sources]:
        raise HeadnbError(f"sources lacks samples of these basic tasks: {', '.join(map(repr, missing))}")
    tasks = {name: _train_task(sources[name], count, seed) for name, count in wanted.items() if count}
    if by == "random":
        weights = {name: float(len(task)) for name, task in tasks.items()}
        wanted = _random_counts(tasks, size, seed)
    _check_sizes(tasks, wanted, repeat=repeat)
    drawn = [pair for name, task in tasks.items() for pair in _draw(name, task, wanted[name], seed)]
    random.Random(seed).shuffle(drawn)  # noqa: S311  interleave the tasks
    target = fit.target if isinstance(fit, CombinationFit) else "the target"
    return Mixture(
        name=f"mixture for {target}",
        samples=tuple(sample for _, sample in drawn),
        ids=tuple(key for key, _ in drawn),
        source=f"{', '.join(tasks)} by {by}, seed {seed}",
        by=by,
        counts=wanted,
        weights=weights,
        notes=tuple(_notes(fit, by, weights, wanted, tasks)),
    )


def largest_remainder(weights: np.ndarray, size: int) -> np.ndarray:
    """Whole numbers (n,) that sum to `size`, in proportion to the non-negative `weights` (n,)."""
    quotas = size * weights / weights.sum()
    counts = np.floor(np.round(quotas, 9))  # 0.29 * 100 is 28.999999999999996
    order = np.lexsort((np.arange(len(weights)), -weights, np.round(counts - quotas, 9)))
    counts[order[: size - int(counts.sum())]] += 1
    return np.asarray(counts, np.int64)


def _weights(fit: CombinationFit | Mapping[str, float], by: str) -> dict[str, float]:
    if isinstance(fit, Mapping):
        if by in {"contributions", "single"}:
            raise HeadnbError(f"by={by!r} needs a result of fit_combination, not a mapping of weights")
        weights = {str(name): float(weight) for name, weight in fit.items()}
    elif isinstance(fit, CombinationFit):
        array = {"contributions": fit.contributions, "single": fit.alone}.get(by, fit.weights)
        weights = {str(name): float(weight) for name, weight in array.to_series().items()}
    else:
        raise HeadnbError(f"expected a result of fit_combination or a mapping of weights, not {type(fit).__name__}")
    if not weights:
        raise HeadnbError("a mixture needs at least one basic task; got no weights")
    if broken := [name for name, weight in weights.items() if not math.isfinite(weight)]:
        raise HeadnbError(f"the weight of {broken[0]!r} is {weights[broken[0]]}; weights must be finite")
    return dict.fromkeys(weights, 1.0) if by == "uniform" else weights


def _counts(weights: dict[str, float], size: int, by: str) -> dict[str, int]:
    values = np.array(list(weights.values()))
    share = np.eye(len(values))[values.argmax()] if by == "single" else np.maximum(values, 0)
    if not share.any():
        raise HeadnbError("no basic task has a weight above zero, so the mixture would be empty")
    return dict(zip(weights, largest_remainder(share, size).tolist(), strict=True))


def _train_task(source: Any, n: int, seed: int) -> Task:
    if isinstance(source, Task):
        return source
    return load_task(source, split="train", n=n if is_endless(source) else None, seed=seed)


def _random_counts(tasks: dict[str, Task], size: int, seed: int) -> dict[str, int]:
    """Number of samples of each task in a random subset of `size` samples of all tasks, without replacement.

    If `size` exceeds the number of samples, all are repeated as often as they fit, and the rest is a random subset.
    """
    sizes = np.array([len(task) for task in tasks.values()])
    rounds, rest = divmod(size, int(sizes.sum()))
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(sizes, rest)
    return dict(zip(tasks, (rounds * sizes + drawn).tolist(), strict=True))


def _check_sizes(tasks: dict[str, Task], wanted: dict[str, int], *, repeat: bool) -> None:
    short = {name: task for name, task in tasks.items() if wanted[name] > len(task)}
    if not short or repeat:
        return
    texts = [f"{name} has {len(task)} of {wanted[name]} samples" for name, task in short.items()]
    size = sum(wanted.values())
    fits = min(int(size * len(task) / wanted[name]) for name, task in short.items())
    raise HeadnbError(
        f"too few samples for a mixture of {size}: {', '.join(texts)}; pass repeat=True to repeat samples, or a size "
        f"of about {fits}"
    )


def _draw(name: str, task: Task, count: int, seed: int) -> list[DrawnSample]:
    """`count` samples in random order; every sample occurs once before any occurs twice."""
    drawn: list[DrawnSample] = []
    seed = seed_of_task(seed, name)  # one seed would draw the same ranks from tasks of equal length
    for turn in range(math.ceil(count / len(task))):
        order = load_task(task, n=min(len(task), count - len(drawn)), seed=seed + turn)
        mark = f" #{turn + 1}" if turn else ""
        drawn += [(f"{name}/{key}{mark}", sample) for key, sample in zip(order.ids, order.samples, strict=True)]
    return drawn


def _notes(
    fit: CombinationFit | Mapping[str, float],
    by: str,
    weights: dict[str, float],
    counts: dict[str, int],
    tasks: dict[str, Task],
) -> list[str]:
    notes = []
    zero = [f"{name} ({weights[name]:.3g})" for name, count in counts.items() if not count and weights[name] <= 0]
    small = [name for name, count in counts.items() if not count and weights[name] > 0]
    if by == "single":
        zero, small = [], []
    if zero:
        notes.append(f"no samples because the weight is zero or negative: {', '.join(zero)}")
    if small:
        notes.append(f"no samples because the share rounds to zero: {', '.join(small)}")
    again = [f"{name} ({len(task)} samples)" for name, task in tasks.items() if counts[name] > len(task)]
    if again:
        notes.append(f"samples repeated: {', '.join(again)}")
    if by in {"weights", "contributions"} and isinstance(fit, CombinationFit) and not fit.supported:
        notes.append("the fit behind these weights does not support composition; see fit.verdict")
    return notes
