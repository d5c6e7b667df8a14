"""Trials of notebooks 08 and 09 in a run folder: instruction selection and selective tuning.

    selection/<method>/<task>.<pool or target>.<n>.zarr   scores of the pool and of the targets; .nc: features
    selection/warmup/                                     training whose checkpoints give the features of LESS
    selection/tuned/<target>.<way>.<k>.seed<s>.nc         losses after fine-tuning on the selected samples
    selection/scarce/<target>.<way>.<k>.seed<s>.nc        the same on the target and samples of other tasks
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
from headnb.analysis.selection.features import sample_features
from headnb.analysis.selection.precision import SCORE_METHODS, selection_precision
from headnb.analysis.selection.select import WAYS, WITHOUT_MODEL, select_instructions
from headnb.analysis.selection.study import ALONE
from headnb.analysis.selection.views import FEATURES
from headnb.analysis.selective_tuning import BASELINE_WAYS, RANDOM, TOP
from headnb.errors import HeadnbError, unknown_name
from headnb.scoring.run import score_heads
from headnb.stats.seeds import seed_of_task
from headnb.storage.files import safe_file_name
from headnb.tasks.loading import Task, load_task, subset
from headnb.tuning.finetuning import finetune
from headnb.tuning.tuning_trials import evaluations_of, losses_after, losses_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.experiments.folder import Run

DRAWS = 20  # random selections; their mean precision is reported
WARMUP_EPOCHS = 4  # checkpoints of the training for "less", one an epoch, as in arXiv 2402.04333
WARMUP_BATCH = 4


class SelectionTrial:
    """Instruction selection from a pool of the run's tasks, for targets of a few samples each.

    Args:
        run: run folder with scores of the base model.
        model: the base model.
        tokenizer: its tokenizer.
        targets: target tasks; empty: every task of the run.
        pool_samples: training samples of each task in the pool, at most.
        target_samples: samples per target, at most; the other scored samples of its task are held out.
        ways: selection methods, as for `select_instructions`.
        to: as for `select_instructions`.
        warmup_samples: random samples of the pool that the model is trained on before "less" takes its gradients.

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
        warmup_samples: int = 32,
    ) -> None:
        for way in ways:
            if way not in WAYS:
                raise unknown_name("selection method", way, WAYS)
        self._run, self._model, self._tokenizer, self._to = run, model, tokenizer, to
        self._warmup_samples = warmup_samples
        self.ways = tuple(ways)
        settings = run.settings
        self.pool = {name: run.samples.training(name, settings.seed, pool_samples) for name in settings.tasks}
        self.targets = {name: run.samples.scored(name, target_samples) for name in _tasks(run, targets)}
        parts = {"pool_samples": self.pool, "target_samples": self.targets}
        self._sizes = {name: min(map(len, tasks.values())) for name, tasks in parts.items()}
        self._scores: dict[str, tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]] = {}

    def precision(self, ks: Sequence[int]) -> xr.Dataset:
        """`precision` (way, target, k) for `SelectionStudy`; for "random", the mean over `DRAWS` selections."""
        precisions = [
            selection_precision(*self._compared(way), ks, way, to=self._to, seeds=range(DRAWS)) for way in self.ways
        ]
        precision = xr.concat(precisions, xr.DataArray(list(self.ways), dims="way", name="way"))
        return xr.Dataset({"precision": precision}, attrs=self._sizes)

    def losses(
        self,
        ways: Sequence[str],
        ks: Sequence[int],
        seeds: Sequence[int],
        *,
        scarce: bool = False,
        max_new_tokens: int = 0,
        **options: Any,
    ) -> xr.Dataset:
        """Losses of held-out samples before and after fine-tuning, for `SelectionStudy`.

        Each model is fine-tuned on the first k samples that a method selects. "random" selects different samples for
        each seed and target.

        Args:
            ways: selection methods, a subset of the trial's `ways`.
            ks: numbers of selected samples.
            seeds: seeds of the training and of the random selection.
            scarce: the pool has no samples of the target's task, and the target's own samples are trained on too; the
                method `ALONE` trains on the target only. (The warm-up of "less" still has samples of every task.)
            max_new_tokens: generate answers of at most this length, for `exact_match`; 0: losses only.
            **options: options of `finetune`.

        Returns:
            `loss_before` (target, sample) and `loss` (tuned_way, target, tuned_k, seed, sample); with `max_new_tokens`
            the same of `exact_match`. With `scarce`, `scarce_loss` has `scarce_way` in place of `tuned_way`.
        """
        tested = {
            name: _task_difference(self._run.samples.scored(name), target) for name, target in self.targets.items()
        }
        testing = {"max_length": self._run.settings.max_length, "max_new_tokens": max_new_tokens}
        before = evaluations_of(self._model, self._tokenizer, tested, **testing).rename(evaluated="target")
        ways = [*ways, ALONE] if scarce else list(ways)
        shape = (len(ways), len(tested), len(ks), len(seeds), before.sizes["sample"])
        after = {str(name): np.full(shape, np.nan) for name in before}
        cases = product(enumerate(ways), enumerate(tested.items()), enumerate(seeds))
        for (row, way), (column, (name, task)), (run, seed) in cases:
            chosen = self._training(way, name, max(ks), seed, scarce=scarce)
            for depth, k in enumerate(ks):
                part = chosen(k)
                folder = self._folder / ("scarce" if scarce else "tuned")
                file = folder / f"{safe_file_name(name)}.{safe_file_name(way)}.{len(part)}.seed{seed}.nc"
                settings = {**testing, "seed": seed, **options}
                tuned = losses_after(self._model, self._tokenizer, part, {name: task}, file, **settings)
                for quantity, values in after.items():
                    values[row, column, depth, run, : tuned.sizes["sample"]] = tuned[quantity].to_numpy()[0]
        prefix, way_dim = ("scarce_", "scarce_way") if scarce else ("", "tuned_way")
        dims = (way_dim, "target", "tuned_k", "seed", "sample")
        return xr.Dataset(
            {f"{name}_before": values for name, values in before.items()}
            | {f"{prefix}{name}": (dims, values, before[name].attrs) for name, values in after.items()},
            {way_dim: ways, "tuned_k": list(ks), "seed": list(seeds)},
        )

    def chosen(self, way: str, target: str, k: int, seed: int, *, scarce: bool = False) -> Task:
        """The k samples that a method selects for a target, best first; `scarce`: none of the target's own task."""
        targets, pool = self._compared(way)
        pool = {name: part for name, part in pool.items() if not scarce or name != target}
        own = seed_of_task(seed, target)
        return select_instructions(targets[target], pool, k, way, to=self._to, seed=own).of(self.pool)

    def _training(self, way: str, target: str, most: int, seed: int, *, scarce: bool) -> Callable[[int], Task]:
        """A function of k that gives the training samples: k <= `most` chosen ones, after the target's if `scarce`."""
        own = self.targets[target] if scarce else None
        chosen = None if way == ALONE else self.chosen(way, target, most, seed, scarce=scarce)

        def first(k: int) -> Task:
            parts = [part for part in (own, chosen and subset(chosen, range(k))) if part]
            return _joined(f"{k} by {way}", {str(number): part for number, part in enumerate(parts)})

        return first

    @property
    def _folder(self) -> Path:
        return self._run.folder / "selection"

    def _compared(self, way: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Targets and pool as scores or features, or as tasks for methods that use neither."""
        if way in WITHOUT_MODEL:
            return self.targets, self.pool
        method = SCORE_METHODS.get(way, way)
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
        file = self._folder / method / f"{safe_file_name(name)}.{part}.{len(task)}"
        how: dict[str, Any] = {"max_length": settings.max_length, "seed": settings.seed}
        if method in FEATURES:
            how |= {"warmup": self._warmup(), "candidates": part == "pool"} if method == "less" else {}
            return sample_features(self._model, self._tokenizer, task, method, out=f"{file}.nc", **how)
        return score_heads(self._model, self._tokenizer, task, method=method, out=f"{file}.zarr", **how)

    def _warmup(self) -> Path:
        """Folder of the LoRA training for "less", on random samples of the pool."""
        folder, settings = self._folder / "warmup", self._run.settings
        pool = _joined("pool", self.pool)
        samples = load_task(pool, n=min(self._warmup_samples, len(pool)), seed=settings.seed)
        saving = {"num_train_epochs": WARMUP_EPOCHS, "save_strategy": "epoch", "save_total_limit": WARMUP_EPOCHS}
        how: dict[str, Any] = {"track": [], "max_length": settings.max_length, "batch_size": WARMUP_BATCH, **saving}
        finetune(self._model, self._tokenizer, samples, steps=None, output_dir=folder, resume=True, **how)
        return folder


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


def _joined(name: str, parts: Mapping[str, Task]) -> Task:
    """One task of the samples of several, with ids `part/id`."""
    samples = tuple(sample for part in parts.values() for sample in part.samples)
    return Task(name, samples, tuple(f"{key}/{own}" for key, part in parts.items() for own in part.ids), name)


def _task_difference(task: Task, others: Task) -> Task:
    """Samples of a task that are not in another.

    Raises:
        HeadnbError: no sample is left.
    """
    others_ids = set(others.ids)
    remaining = [index for index, key in enumerate(task.ids) if key not in others_ids]
    if not remaining:
        raise HeadnbError(
            f"all {len(task)} scored samples of {task.name} are in the target, none is left for the test; "
            "use fewer target samples"
        )
    return subset(task, remaining)
