"""Trials of notebooks 08 and 09 in a run folder: instruction selection and selective tuning.

    selection/<method>/<task>.<pool or target>.<n>.zarr   scores of the pool and of the targets
    selection/tuned/<target>.<way>.<k>.seed<s>.nc         losses after fine-tuning on the selected samples
    selective/<task>/seed<s>/scores.<n>.zarr              scores that choose the heads
    selective/<task>/seed<s>/<way>.nc                     losses after training by each method

A "way" is a selection method or a tuning method. Files with the same settings are reused.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.head_choice import choose_heads
from headnb.analysis.selection.precision import SCORE_METHODS, selection_precision
from headnb.analysis.selection.select import WAYS, select_instructions
from headnb.analysis.selective_tuning import BASELINE_WAYS, RANDOM, TOP
from headnb.errors import HeadnbError, unknown_name
from headnb.scoring.run import score_heads
from headnb.stats.seeds import seed_of_task
from headnb.storage.files import safe_file_name
from headnb.tasks.loading import Task, load_task
from headnb.tuning.tuning_trials import losses_after, losses_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.experiments.folder import Run

DRAWS = 20  # random selections; their mean precision is reported


class SelectionTrial:
    """Instruction selection from a pool of the run's tasks, for targets of a few samples each.

    Args:
        run: run folder with scores of the base model.
        model: the base model.
        tokenizer: its tokenizer.
        targets: target tasks; empty: every task of the run.
        pool_samples: training samples of each task in the pool.
        target_samples: samples per target; the other scored samples of its task are held out.
        ways: selection methods, as for `select_instructions`.
        to: as for `select_instructions`.

    Raises:
        HeadnbError: an unknown task or selection method.
    """

    def __init__(
        self,
        run: Run,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        targets: Sequence[str],
        *,
        pool_samples: int,
        target_samples: int,
        ways: Sequence[str],
        to: str = "mean",
    ) -> None:
        for way in ways:
            if way not in WAYS:
                raise unknown_name("selection method", way, WAYS)
        self._run, self._model, self._tokenizer, self._to = run, model, tokenizer, to
        self.ways = tuple(ways)
        settings = run.settings
        self.pool = {name: run.samples.training(name, settings.seed, pool_samples) for name in settings.tasks}
        self.targets = {name: run.samples.scored(name, target_samples) for name in _tasks(run, targets)}
        self._sizes = {"pool_samples": pool_samples, "target_samples": target_samples}
        self._scores: dict[str, tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]] = {}

    def precision(self, ks: Sequence[int]) -> xr.Dataset:
        """`precision` (way, target, k) for `SelectionStudy`; for "random", the mean over `DRAWS` selections."""
        precisions = [
            selection_precision(*self._compared(way), ks, way, to=self._to, seeds=range(DRAWS)) for way in self.ways
        ]
        precision = xr.concat(precisions, xr.DataArray(list(self.ways), dims="way", name="way"))
        return xr.Dataset({"precision": precision}, attrs=self._sizes)

    def losses(self, ways: Sequence[str], ks: Sequence[int], seeds: Sequence[int], **options: Any) -> xr.Dataset:
        """`loss_before` (target, sample) and `loss` (tuned_way, target, tuned_k, seed, sample) of held-out samples.

        Each model is fine-tuned on the first k samples that a method selects. "random" selects different samples for
        each seed and target.

        Args:
            ways: selection methods, a subset of the trial's `ways`.
            ks: numbers of selected samples.
            seeds: seeds of the training and of the random selection.
            **options: options of `finetune`.
        """
        tested = {
            name: _task_difference(self._run.samples.scored(name), target) for name, target in self.targets.items()
        }
        length = self._run.settings.max_length
        before = losses_of(self._model, self._tokenizer, tested, max_length=length)
        loss = np.full((len(ways), len(tested), len(ks), len(seeds), before.sizes["sample"]), np.nan)
        cases = product(enumerate(ways), enumerate(tested.items()), enumerate(seeds))
        for (row, way), (column, (name, task)), (run, seed) in cases:
            chosen = self.chosen(way, name, max(ks), seed)
            for depth, k in enumerate(ks):
                part = Task(f"{k} by {way}", chosen.samples[:k], chosen.ids[:k], chosen.source)
                file = self._folder / "tuned" / f"{safe_file_name(name)}.{way}.{k}.seed{seed}.nc"
                settings = {"max_length": length, "seed": seed, **options}
                tuned = losses_after(self._model, self._tokenizer, part, {name: task}, file, **settings)
                loss[row, column, depth, run, : tuned.sizes["sample"]] = tuned["loss"].to_numpy()[0]
        return xr.Dataset(
            {
                "loss_before": before.rename(evaluated="target"),
                "loss": (("tuned_way", "target", "tuned_k", "seed", "sample"), loss, {"units": "nats"}),
            },
            {"tuned_way": list(ways), "tuned_k": list(ks), "seed": list(seeds)},
        )

    def chosen(self, way: str, target: str, k: int, seed: int) -> Task:
        """The k samples that a method selects for a target, best first."""
        targets, pool = self._compared(way)
        own = seed_of_task(seed, target)
        return select_instructions(targets[target], pool, k, way, to=self._to, seed=own).of(self.pool)

    @property
    def _folder(self) -> Path:
        return self._run.folder / "selection"

    def _compared(self, way: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Targets and pool as scores, or as tasks for methods that do not use scores."""
        if way not in SCORE_METHODS:
            return self.targets, self.pool
        method = SCORE_METHODS[way]
        if method not in self._scores:
            pool = {name: self._score(task, method, name, "pool") for name, task in self.pool.items()}
            self._scores[method] = {name: self._of_target(name, method) for name in self.targets}, pool
        return self._scores[method]

    def _of_target(self, name: str, method: str) -> xr.Dataset:
        """Scores of a target; activation levels are taken from notebook 01."""
        task = self.targets[name]
        if method == "activation":
            before = self._run.before(name)
            scored = set(before["sample"].to_numpy().tolist())  # excludes samples whose answer lies beyond max_length
            return before.sel(sample=[key for key in task.ids if key in scored])
        return self._score(task, method, name, "target")

    def _score(self, task: Task, method: str, name: str, part: str) -> xr.Dataset:
        settings = self._run.settings
        out = self._folder / method / f"{safe_file_name(name)}.{part}.{len(task)}.zarr"
        length, seed = settings.max_length, settings.seed
        return score_heads(self._model, self._tokenizer, task, method=method, out=out, max_length=length, seed=seed)


def selective_losses(
    run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    seeds: Sequence[int],
    *,
    heads: int,
    choosing_samples: int,
    tested_samples: int,
    beside: Sequence[str] = BASELINE_WAYS,
    rates: Mapping[str, float],
    steps: int,
    batch_size: int,
) -> xr.Dataset:
    """Arrays of a `SelectiveTuning`: each method trains on the same samples and is tested on every task of the run.

    Heads are chosen by activation levels on training samples, so test samples do not influence the choice.

    Args:
        run: run folder, which gives the samples of the tasks.
        model: the base model.
        tokenizer: its tokenizer.
        tasks: trained tasks; empty: every task of the run.
        seeds: seeds of the training, of its samples, and of the random heads (which also differ between tasks).
        heads: number of heads that are trained.
        choosing_samples: training samples that choose the heads.
        tested_samples: test samples of each task of the run.
        beside: additional tuning methods: "all weights", "LoRA".
        rates: "heads", "all weights", "LoRA" -> learning rate.
        steps: number of updates.
        batch_size: samples per update.
    """
    tasks, ways, length = _tasks(run, tasks), (TOP, RANDOM, *beside), run.settings.max_length
    tested = {name: run.samples.scored(name, tested_samples) for name in run.settings.tasks}
    before = losses_of(model, tokenizer, tested, max_length=length)
    loss = np.full((len(ways), len(tasks), len(seeds), *before.shape), np.nan)
    trained = np.zeros(loss.shape[:3])
    for column, task in enumerate(tasks):
        for index, seed in enumerate(seeds):
            samples = run.samples.training(task, seed, steps * batch_size)
            folder = run.folder / "selective" / safe_file_name(task) / f"seed{seed}"
            choosing = load_task(samples, n=min(choosing_samples, len(samples)), seed=seed)
            out = folder / f"scores.{len(choosing)}.zarr"
            scores = score_heads(model, tokenizer, choosing, max_length=length, seed=seed, out=out)
            shared = {"steps": steps, "batch_size": batch_size, "seed": seed, "max_length": length}
            for row, way in enumerate(ways):
                options = _training_options(way, scores, heads, seed_of_task(seed, task), rates)
                file = folder / f"{safe_file_name(way)}.nc"
                tuned = losses_after(model, tokenizer, samples, tested, file, **shared, **options)
                loss[row, column, index] = tuned["loss"].to_numpy()
                trained[row, column, index] = tuned.attrs["trained_parameters"]
    parameters = trained.mean(axis=(1, 2)) / model.num_parameters()
    return xr.Dataset(
        {
            "loss_before": before,
            "loss": (("way", "trained", "seed", "evaluated", "sample"), loss, {"units": "nats"}),
            "parameters": ("way", parameters),
        },
        {"way": list(ways), "trained": list(tasks), "seed": list(seeds)},
        {"heads": heads, "of_heads": int(scores["score"].isel(sample=0).count())},
    )


def _training_options(
    way: str, scores: xr.Dataset, heads: int, seed: int, rates: Mapping[str, float]
) -> dict[str, Any]:
    """Options of `finetune` for a tuning method."""
    if way in BASELINE_WAYS:
        return {"inplace": way == "all weights", "learning_rate": _rate(rates, way)}
    if way not in {TOP, RANDOM}:
        raise unknown_name("tuning method", way, BASELINE_WAYS)
    which = "top" if way == TOP else "random"
    chosen = choose_heads(scores, heads, which=which, seed=seed)  # type: ignore[arg-type]  # a Literal
    return {"inplace": True, "heads": chosen, "learning_rate": _rate(rates, "heads")}


def _rate(rates: Mapping[str, float], kind: str) -> float:
    if kind not in rates:
        raise HeadnbError(f"rates has no learning rate for {kind!r}, only for {', '.join(rates) or 'nothing'}; add it")
    return float(rates[kind])


def _tasks(run: Run, wanted: Iterable[str]) -> tuple[str, ...]:
    """The wanted tasks of the run, or all tasks if `wanted` is empty."""
    known = run.settings.tasks
    for name in (wanted := tuple(wanted)):
        if name not in known:
            raise unknown_name("task of this run", name, known)
    return wanted or known


def _task_difference(task: Task, others: Task) -> Task:
    """Samples of a task that are not in another.

    Raises:
        HeadnbError: no sample is left.
    """
    remaining = [index for index, key in enumerate(task.ids) if key not in set(others.ids)]
    if not remaining:
        raise HeadnbError(
            f"all {len(task)} scored samples of {task.name} are in the target, none is left for the test; "
            "use fewer target samples"
        )
    samples = tuple(task.samples[index] for index in remaining)
    return Task(task.name, samples, tuple(task.ids[index] for index in remaining), task.source)
