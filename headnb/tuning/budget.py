"""Tracked steps and samples: as given, or planned from the measured cost of scoring and of training.

Before the first update, one batch of each tracked task is scored and one training step runs forward and backward; both
are thrown away. The plan is the last of these that fits the budget: before and after the training with 8 to 32 samples;
then up to 11 tracked steps; then more samples. All tracked steps have the same samples, so that they are paired.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headnb.engine.hooks import input_device
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.models.checks import context_length
from headnb.models.restore import restore_random_state
from headnb.scoring.run import score_heads
from headnb.stats.rounding import format_duration
from headnb.tasks.loading import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch.utils.data import DataLoader

    from headnb.scoring.progress import Progress

BUDGET = 0.25  # default: time of tracking as a share of the training's time
_PLANNED = 0.8  # share of the budget that is planned, because a few samples are measured
MIN_SAMPLES = 8  # with fewer samples a pattern is mostly noise
_FIRST_SAMPLES = 32  # up to here more samples come first, then more steps
_SAMPLES = (MIN_SAMPLES, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_INTERVALS = (1, 2, 3, 5, 10)  # between the first and the last tracked step
_MEASURED, _MEASURED_ON_CPU = 16, 2  # samples in a measurement; an accelerator needs more to be busy


@dataclass(frozen=True)
class Costs:
    """Measured seconds."""

    update: float
    """Time of one update of the weights."""
    samples: Mapping[str, float]
    """Task -> time to score one sample."""
    tracked_step: float
    """Fixed time of a tracked step, without its samples."""
    measuring: float
    """Time of the measurement."""


@dataclass(frozen=True)
class TrackingPlan:
    """The tracked steps and the number of samples of each task."""

    steps: tuple[int, ...]
    samples: int
    sizes: Mapping[str, int]
    """Task -> number of its samples; a task with fewer than `samples` is scored completely."""
    costs: Costs
    budget: float

    def of_step(self, task: str) -> float:
        """Expected seconds of scoring a task at a tracked step."""
        return min(self.samples, self.sizes[task]) * self.costs.samples[task]

    @property
    def seconds(self) -> float:
        """Expected seconds of all tracking."""
        each = self.costs.tracked_step + sum(map(self.of_step, self.sizes))
        return self.costs.measuring + len(self.steps) * each

    @property
    def share(self) -> float:
        """Expected time of tracking as a share of the training's time."""
        return self.seconds / max(self.steps[-1] * self.costs.update, 1e-9)

    @property
    def line(self) -> str:
        """The plan and its cost in one line."""
        steps, most = self.steps, min(self.samples, max(self.sizes.values()))
        at = f"at steps {', '.join(map(str, steps))}" if len(steps) < 7 else f"at {len(steps)} steps"
        if len(steps) >= 7 and len({later - earlier for earlier, later in pairwise(steps[:-1])}) == 1:
            at = f"at every {steps[1]} steps" + ("" if steps[-1] % steps[1] == 0 else " and the last")
        tasks = "" if len(self.sizes) == 1 else f" of each of {len(self.sizes)} tasks"
        cost, training = map(_duration, (self.seconds, self.steps[-1] * self.costs.update))
        words = f"Tracking {most} samples{tasks} {at}: about {cost}, {self.share:.0%} of the training's {training}"
        if self.share > self.budget:
            why = "step 0 and the last step are always tracked" if len(steps) == 2 else "every= gives these steps"
            words += f", more than the budget of {self.budget:.0%}: {why}"
        if most < MIN_SAMPLES:
            words += f"; fewer than {MIN_SAMPLES} samples give no reliable pattern"
        elif most == MIN_SAMPLES < max(self.sizes.values()):
            words += f"; fewer than {MIN_SAMPLES} samples would give no reliable pattern; samples=32 gives a better one"
        return words


def plan_tracking(
    last: int,
    costs: Costs,
    sizes: Mapping[str, int],
    *,
    budget: float = BUDGET,
    steps: Callable[[int], bool] | None = None,
    samples: int | None = None,
) -> TrackingPlan:
    """The largest plan within the budget; the smallest one if none fits.

    Args:
        last: number of updates of the training.
        costs: measured seconds.
        sizes: task -> number of its samples.
        budget: maximum time of tracking as a share of the training's time.
        steps: whether a step is tracked. None: the budget chooses the steps.
        samples: number of samples of each task. None: the budget chooses it.
    """
    most = max(sizes.values())
    counts = [*(count for count in _SAMPLES if count < most), most] if samples is None else [samples]
    if steps is not None:
        spacings: list[tuple[int, ...]] = [tuple(step for step in range(last + 1) if steps(step) or step in (0, last))]
    else:
        spacings = list(dict.fromkeys(_evenly(last, intervals) for intervals in _INTERVALS))
    few = [count for count in counts if count <= _FIRST_SAMPLES] or counts[:1]
    order = [(count, spacings[0]) for count in few]
    order += [(few[-1], spacing) for spacing in spacings[1:]]
    order += [(count, spacings[-1]) for count in counts if count > few[-1]]
    plans = [TrackingPlan(spacing, count, sizes, costs, budget) for count, spacing in order]
    return next((plan for plan in reversed(plans) if plan.share <= _PLANNED * budget), plans[0])


def subsample(task: Task, samples: int, seed: int = 0) -> Task:
    """A random subset of a task; the task itself if it has no more samples. A larger subset contains a smaller one."""
    return task if len(task) <= samples else load_task(task, n=samples, seed=seed)


def schedule(every: int | Iterable[int]) -> Callable[[int], bool]:
    """Function from a step to whether it is tracked. The caller always tracks the last step.

    Args:
        every: a number of steps between two tracked steps (step 0 is tracked), or the tracked steps.

    Raises:
        HeadnbError: `every` is neither a whole number of at least 1 nor a list of steps of at least 0.
    """
    if isinstance(every, (int, np.integer)) and not isinstance(every, bool) and every >= 1:
        return lambda step: bool(step % every == 0)
    steps = set(every) if isinstance(every, Iterable) and not isinstance(every, (str, bytes)) else {-1}
    if not all(isinstance(step, (int, np.integer)) and step >= 0 for step in steps):
        raise HeadnbError(
            f"every must be a number of steps, or a list of steps such as [0, 1, 2, 5, 10], not {every!r:.60}"
        )
    return steps.__contains__


def measure_costs(
    model: Any,
    tokenizer: Any,
    tasks: Mapping[str, Task],
    scoring: Mapping[str, Any],
    loader: DataLoader[Any] | None,
    batch_size: int,
    accumulation: int,
) -> Costs:
    """Score a batch of each task and run a training step, forward and backward; nothing is changed.

    Args:
        model: in training, as the trainer passes it to callbacks.
        tokenizer: of the model.
        tasks: tracked tasks.
        scoring: options of `score_heads`.
        loader: the trainer's DataLoader.
        batch_size: of the trainer's batches.
        accumulation: batches of an update.
    """
    began = time.perf_counter()
    samples, overhead = {}, 0.0
    for name, task in tasks.items():
        samples[name], beside = _scoring_seconds(model, tokenizer, task, scoring)
        overhead += beside
    update = _batch_seconds(model, loader, batch_size)
    if update is None:  # scoring computes the same gradients of activations
        update = batch_size * max(samples.values())
    return Costs(update * accumulation, samples, overhead, time.perf_counter() - began)


def _scoring_seconds(model: Any, tokenizer: Any, task: Task, scoring: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds for a sample of mean length, and fixed seconds of a `score_heads` call without its samples."""
    cpu = input_device(model).type == "cpu"
    few = subsample(task, _MEASURED_ON_CPU if cpu else _MEASURED)
    last: list[Progress] = []
    for _ in range(1 if cpu else 2):  # the first call on an accelerator loads its kernels
        began = time.perf_counter()
        score_heads(model, tokenizer, few, **scoring, on_progress=last.append)
        seconds = time.perf_counter() - began
    options = {"encoding": scoring["encoding"], "max_length": scoring["max_length"], "context": context_length(model)}
    mean = float(encode_task(subsample(task, 64), tokenizer, **options).lengths.mean())
    return last[-1].seconds / max(last[-1].tokens, 1) * mean, seconds - last[-1].seconds


def _batch_seconds(model: Any, loader: Any, size: int) -> float | None:
    """Seconds of the forward and backward pass of a batch; None if it cannot be measured.

    The samples are spread over the data set. The trainer's sampler and random state are not used.
    """
    data, device = getattr(loader, "dataset", None), input_device(model)
    if data is None or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        return None

    def batch(rows: int) -> dict[str, Any]:
        chosen: list[int] = torch.linspace(0, len(data) - 1, min(rows, len(data))).long().tolist()
        given = loader.collate_fn([data[row] for row in chosen])
        return {name: value.to(device) if hasattr(value, "to") else value for name, value in given.items()}

    options = {"fused_lm_head": True} if _has_fused_loss(model) else {}
    with restore_random_state(), _trained_and_restored(model):
        whole, few = batch(size), batch(_MEASURED_ON_CPU if device.type == "cpu" else size)
        for _ in range(1 if device.type == "cpu" else 2):
            began = time.perf_counter()
            loss = getattr(model(**few, **options), "loss", None)
            if loss is None:
                return None
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - began
    tokens = [given["input_ids"].numel() if "input_ids" in given else 1 for given in (whole, few)]
    return seconds * tokens[0] / tokens[1]


def _has_fused_loss(model: Any) -> bool:
    """Whether TRL has replaced the model's forward by one that computes losses without the logits of all positions."""
    replaced = (vars(module).get("forward") for module in model.modules())
    code = (getattr(getattr(forward, "__func__", None), "__code__", None) for forward in replaced)
    return any(one is not None and "fused_lm_head" in one.co_varnames for one in code)


@contextmanager
def _trained_and_restored(model: Any) -> Iterator[None]:
    """Training mode; restores the mode of each module and the gradients of the weights on exit."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(weight, weight.grad) for weight in model.parameters()]
    for weight, _ in gradients:
        weight.grad = None
    model.train()
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
        for module, mode in modes:
            module.training = mode


def _evenly(last: int, intervals: int) -> tuple[int, ...]:
    every = -(-last // intervals)
    return (*range(0, last, max(every, 1)), last)


def check_counts(every: object, samples: int | None, budget: float | None) -> None:
    """Raise HeadnbError for counts that contradict a budget, or that are not positive."""
    if budget is not None and budget <= 0:
        raise HeadnbError(f"budget must be a positive share of the training time, such as 0.25, not {budget:g}")
    if samples is not None and samples < 1:
        raise HeadnbError(f"samples must be a whole number of at least 1, not {samples}")
    if budget is not None and every is not None and samples is not None:
        raise HeadnbError("every and samples determine the cost of tracking; omit one of them, or budget")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)
