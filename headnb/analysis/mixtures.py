"""How much of each basic task to train on before a complex one: application 1 of arXiv 2409.15820.

`fit_combination` gives the weights alpha_i of dAP_complex = sum over i of alpha_i dAP_i; a mixture of N samples takes
N alpha_i / sum(alpha) of each basic task. Beside it stand the mixtures that it must beat.
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
from headnb.errors import HeadnbError, unknown_name
from headnb.tasks.loading import Task, known_tasks, load_task

if TYPE_CHECKING:
    from headnb.tasks.samples import Id, Sample, TokenSample

    DrawnSample = tuple[Id, Sample | TokenSample]

WAYS = ("weights", "contributions", "uniform", "random", "single")


@dataclass(frozen=True, repr=False)
class Mixture(Task):
    """A task of samples of several basic tasks, in a shuffled order; ids are `gsm8k/17`: the basic task, and its id.

    Attributes:
        by: how the shares were found, one of `WAYS`.
        counts: basic task -> samples of it.
        weights: basic task -> what its share is proportional to, as the fit has it; below zero counts as zero.
        notes: what a user should know: basic tasks that are left out and why, samples taken several times, a fit
            that does not show composition.
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
        return "\n".join([self._title(), *rows, *self.notes])

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
    """A mixture of basic tasks to fine-tune on before a complex task (arXiv 2409.15820, application 1).

    Shares become whole numbers by largest remainder: each task gets its share rounded down, and what is left goes to
    the largest fractions (equal ones: the larger weight, then the earlier task). A weight of zero or below gives no
    samples, and the other weights share them all: nobody can train on less than nothing.

    Args:
        fit: what `fit_combination` returns, or basic task -> weight.
        size: N, the samples of the mixture.
        sources: basic task -> where its samples are: a `Task`, or anything that `load_task` accepts; a name stands
            for its train split.
        seed: of the samples drawn, and of their order.
        by: "weights": alpha_i. "contributions": alpha_i times the norm of dAP_i, since alpha_i alone depends on how
            far each task moves the pattern. And baselines: "uniform": equal shares. "random": drawn from all samples
            of all sources alike, whatever their task. "single": the one basic task that explains the target best
            (R^2 of the fit from it alone). How the paper drew its random mixture is not known.
        repeat: take samples again where a source has fewer than its share, each of them once before any twice; the
            repeated ids end in ` #2`, ` #3`. False: that is an error.

    Returns:
        A `Mixture`: a `Task` that `finetune` accepts, with the counts behind it.

    Raises:
        HeadnbError: an unknown way or source (the nearest is named), a basic task without a source, no weight above
            zero, or a source with fewer samples than its share.
    """
    if by not in WAYS:
        raise unknown_name("way to mix", by, WAYS)
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise HeadnbError(f"size must be a whole number of samples, 1 or more, not {size!r}")
    weights = _weights(fit, by)
    if unknown := [name for name in sources if name not in weights]:
        raise unknown_name("basic task among the sources", unknown[0], weights)
    wanted = dict.fromkeys(weights, int(size)) if by == "random" else _counts(weights, int(size), by)
    if missing := [name for name, count in wanted.items() if count and name not in sources]:
        raise HeadnbError(f"sources lacks {', '.join(map(repr, missing))}, of which the mixture needs samples")
    tasks = {name: _train_task(sources[name], count, seed) for name, count in wanted.items() if count}
    if by == "random":
        weights = {name: float(len(task)) for name, task in tasks.items()}
        wanted = _random_counts(tasks, int(size), seed)
    _check_sizes(tasks, wanted, repeat=repeat)
    drawn = [pair for name, task in tasks.items() for pair in _draw(name, task, wanted[name], seed)]
    random.Random(seed).shuffle(drawn)  # noqa: S311  so that every part of the mixture is mixed
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
    """Whole numbers (n,) that sum to `size` in proportion to `weights` (n,), of which none is below zero."""
    quotas = size * weights / weights.sum()
    counts = np.floor(np.round(quotas, 9))  # 0.29 * 100 is 28.999999999999996
    order = np.lexsort((np.arange(len(weights)), -weights, np.round(counts - quotas, 9)))
    counts[order[: size - int(counts.sum())]] += 1
    return np.asarray(counts, np.int64)


def _weights(fit: CombinationFit | Mapping[str, float], by: str) -> dict[str, float]:
    if isinstance(fit, Mapping):
        if by in {"contributions", "single"}:
            raise HeadnbError(f"by={by!r} needs what fit_combination returns, not bare weights")
        found = {str(name): float(weight) for name, weight in fit.items()}
    elif isinstance(fit, CombinationFit):
        held = {"contributions": fit.contributions, "single": fit.alone}.get(by, fit.weights)
        found = {str(name): float(weight) for name, weight in held.to_series().items()}
    else:
        raise HeadnbError(f"a mixture is made from what fit_combination returns, not from {type(fit).__name__}")
    if not found:
        raise HeadnbError("there are no weights to mix by")
    if broken := [name for name, weight in found.items() if not math.isfinite(weight)]:
        raise HeadnbError(f"the weight of {broken[0]!r} is {found[broken[0]]}")
    return dict.fromkeys(found, 1.0) if by == "uniform" else found


def _counts(weights: dict[str, float], size: int, by: str) -> dict[str, int]:
    values = np.array(list(weights.values()))
    share = np.eye(len(values))[values.argmax()] if by == "single" else np.maximum(values, 0)
    if not share.any():
        raise HeadnbError("no basic task has a weight above zero: the fit gives nothing to mix")
    return dict(zip(weights, largest_remainder(share, size).tolist(), strict=True))


def _train_task(source: Any, n: int, seed: int) -> Task:
    if isinstance(source, Task):
        return source
    card = known_tasks().get(source) if isinstance(source, str) else None
    endless = card is not None and card.procedural
    return load_task(source, split="train", n=n if endless else None, seed=seed)


def _random_counts(tasks: dict[str, Task], size: int, seed: int) -> dict[str, int]:
    """How many of each task there are among so many samples drawn from all of them, without replacement.

    Where there are not enough, all are taken as often as they fit in, and the rest is drawn.
    """
    sizes = np.array([len(task) for task in tasks.values()])
    rounds, rest = divmod(size, int(sizes.sum()))
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(sizes, rest)
    return dict(zip(tasks, (rounds * sizes + drawn).tolist(), strict=True))


def _check_sizes(tasks: dict[str, Task], wanted: dict[str, int], *, repeat: bool) -> None:
    short = {name: task for name, task in tasks.items() if wanted[name] > len(task)}
    if not short or repeat:
        return
    texts = [f"{name} has {len(task)} samples of {wanted[name]}" for name, task in short.items()]
    size = sum(wanted.values())
    fits = min(int(size * len(task) / wanted[name]) for name, task in short.items())
    raise HeadnbError(
        f"too few samples for a mixture of {size}: {', '.join(texts)}; repeat=True takes samples several times, a size "
        f"of about {fits} would do without"
    )


def _draw(name: str, task: Task, count: int, seed: int) -> list[DrawnSample]:
    """`count` samples in random order; every sample once before any twice."""
    drawn: list[DrawnSample] = []
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
        notes.append(f"no samples for a weight of zero or below: {', '.join(zero)}")
    if small:
        notes.append(f"shares that round to no sample: {', '.join(small)}")
    again = [f"{name} ({len(task)} samples)" for name, task in tasks.items() if counts[name] > len(task)]
    if again:
        notes.append(f"samples taken several times: {', '.join(again)}")
    if by in {"weights", "contributions"} and isinstance(fit, CombinationFit) and not fit.supported:
        notes.append("composition is not shown by the fit behind these weights (fit.verdict)")
    return notes
