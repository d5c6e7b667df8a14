"""Trainings of the fair experiment (docs/experiment.md) and their reduction to compact results.

Raw scores go to a run folder, in the layout of `paths`. Every finished training is reduced to a compact result at once;
a training whose compact result exists is not repeated, even if the run folder is gone. An interrupted training resumes
from its last checkpoint in the run folder.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError
from headnb.experiments.fair.design import DESIGNS
from headnb.experiments.fair.results import (
    GROUPS,
    KINDS,
    LONG,
    Compact,
    FairResults,
    Kind,
    compact_scores,
    compact_tuned,
    write_long,
)
from headnb.experiments.fair.samples import FairSamples
from headnb.experiments.finetunings import training_seed
from headnb.experiments.folder import Run
from headnb.storage.files import read_json, remove_folder, safe_file_name, write_json
from headnb.tasks.files import task_parts
from headnb.tasks.loading import known_tasks, load_task, subset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.experiments.fair.design import Tuning
    from headnb.tasks.loading import Task
    from headnb.tuning.result import FineTuned

RATE_SEED = 1000  # of the trainings that choose the learning rate; used by no other training
WARMUP_STEPS = 5


@dataclass(frozen=True)
class FairStudy:
    """The settings of one registered study, with the folders of its raw scores and of its compact results.

    Attributes:
        run_folder: folder of raw scores and checkpoints.
        results: folder of compact results; "": that of the design in a clone of headnb, else `run_folder`/fair/results.
        design: name of the registered design.
        model: as for `load_model`.
        dtype: of the model's weights; LoRA weights are float32.
        tasks: every task of the study.
        n: scored samples of the trained task.
        n_beside: scored samples of each other task after training on own answers; 0: none.
        n_tracked: samples of the trained task that are scored during a training on own answers; 0: none.
        n_long: samples that are scored during a long training.
        max_length: samples with more tokens are left out.
        steps: updates of a training.
        batch_size: samples per update.
        track_steps: steps at which tracked samples are scored; long trainings add the design's prefixes.
        candidate_rates: candidate learning rates.
        rate_task: the task that chooses the learning rate.
        answers: generated answers per task, for the exact match.
        save_every: steps between two checkpoints.
        full_rate: learning rate of full fine-tuning.
    """

    run_folder: str
    results: str
    design: str
    model: str
    dtype: str
    tasks: list[str]
    n: int
    n_beside: int
    n_tracked: int
    n_long: int
    max_length: int
    steps: int
    batch_size: int
    track_steps: list[int]
    candidate_rates: list[float]
    rate_task: str
    answers: int
    save_every: int
    full_rate: float

    @cached_property
    def run(self) -> Run:
        """The run folder."""
        return Run(self.run_folder)

    @cached_property
    def compact(self) -> FairResults:
        """The compact results."""
        return FairResults(results_folder(self.run, self.results, self.design))

    @cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer, loaded on first use; no training changes this model."""
        return self._load()

    @cached_property
    def samples(self) -> FairSamples:
        """Scored samples and training samples."""
        return FairSamples(self.loaded[1], self.max_length, self.n, GROUPS)

    def missing(self, task: str, seed: int) -> list[Kind]:
        """The trainings of a task and seed that have no compact result yet."""
        return [kind for kind in KINDS if not self.compact.path(kind, task, seed).exists()]

    def learning_rate(self) -> float:
        """The candidate with the lowest held-out loss on `rate_task`; every loss is kept in rate.json once computed."""
        path = self.compact.folder / "rate.json"
        about: dict[str, Any] = {"task": self.rate_task, "seed": RATE_SEED, "steps": self.steps}
        stored = read_json(path, "15_fair_training") if path.exists() else {"losses": {}}
        for rate in self.candidate_rates:
            if str(rate) not in stored["losses"]:
                loss = self._held_out_loss(rate)
                stored["losses"][str(rate)] = loss if math.isfinite(loss) else None  # the training diverged
                write_json(path, {**about, **stored})
        if "rate" not in stored:
            known = {rate: loss for rate in self.candidate_rates if (loss := stored["losses"][str(rate)]) is not None}
            if not known:
                raise HeadnbError(f"every training on {self.rate_task} diverged; choose lower candidate_rates")
            stored["rate"] = min(known, key=lambda rate: known[rate])
            write_json(path, {**about, **stored})
        return float(stored["rate"])

    def score_before(self, task: str) -> None:
        """Score the base model on a task, unless the compact result exists."""
        if self.compact.path("before", task).exists():
            return
        model, _ = self.loaded
        self._score(model, self.samples.scored(task), self.run.paths.before(task))
        accuracy = self._accuracy(model, task)
        write_json(self.run.paths.before(task).with_suffix(".json"), accuracy | self._described(task))
        reduce_before(self.run, self.compact, task)

    def train(self, kind: Kind, task: str, seed: int) -> None:
        """Train on a task's own or shuffled answers, score, and write the compact result."""
        rate, (model, _) = self.learning_rate(), self.loaded
        self.score_before(task)
        samples = self.samples.training(task)
        folder = (self.run.paths.finetuning if kind == "own" else self.run.paths.shuffled)(task, seed)
        own = kind == "own"
        train = samples if own else samples.with_shuffled_answers(seed)
        tracked = {task: self._first(task, self.n_tracked)} if own and self.n_tracked else {}
        tuned = self._finetune(train, rate, training_seed(task, seed), self.steps, tracked, folder / "trainer")
        tuned.save(folder)
        accuracy: dict[str, Any] = {}
        with tuned.applied(model) as tuned_model:
            self._score(
                tuned_model,
                self.samples.scored(task),
                self.run.paths.after(task, seed, task) if own else folder / "after.zarr",
            )
            for other in self.tasks if own and self.n_beside else ():
                if other != task:
                    beside = self._first(other, self.n_beside)
                    self._score(tuned_model, beside, self.run.paths.after(task, seed, other))
            if own:
                accuracy = self._accuracy(tuned_model, task)
        write_json(folder / "result.json", accuracy | self._described(task) | {"learning_rate": rate, "kind": kind})
        (reduce_own if own else reduce_shuffled)(self.run, self.compact, task, seed)
        remove_folder(folder / "trainer")

    def train_long(self, task: str, seed: int) -> None:
        """Train for the longest prefix of the design by each of its kinds of tuning, and write what was tracked.

        A training that has a result is not repeated.
        """
        for tuning in DESIGNS[self.design].tunings:
            if not self.compact.path(LONG[tuning], task, seed).exists():
                self._train_long(task, seed, tuning)

    def _train_long(self, task: str, seed: int, tuning: Tuning) -> None:
        lengths, full = DESIGNS[self.design].prefixes, tuning == "full"
        samples = load_task(self.samples.scored(task), n=min(self.n, self.n_long), seed=0)
        rate = self.full_rate if full else self.learning_rate()
        tuned = self._finetune(
            self.samples.training(task),
            rate,
            training_seed(f"long {task}", seed),
            lengths[-1],
            {task: samples},
            self.run.folder / LONG[tuning] / safe_file_name(task) / f"seed{seed}",
            every=sorted({*self.track_steps, *lengths}),
            inplace=full,
            model=self._load()[0] if full else None,
        )
        settings = self._described(task) | {"learning_rate": rate, "tuning": tuning}
        write_long(self.compact, task, seed, tuned, lengths, settings)

    def mark_done(self, task: str, seed: int, numbers: Mapping[str, float], kind: str = "done") -> Path:
        """Write a small file to the run folder, which tells the suite that the compact results exist."""
        return write_json(self.run.folder / "fair" / kind / safe_file_name(task) / f"seed{seed}.json", numbers)

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        from headnb.models.loading import load_model  # noqa: PLC0415

        return load_model(self.model, dtype=self.dtype)

    def _finetune(
        self,
        train: Task,
        rate: float,
        seed: int,
        steps: int,
        tracked: Mapping[str, Task],
        folder: Path,
        every: list[int] | None = None,
        model: PreTrainedModel | None = None,
        **options: Any,
    ) -> FineTuned:
        from headnb.tuning.finetuning import finetune  # noqa: PLC0415

        base, tokenizer = self.loaded
        return finetune(
            base if model is None else model,
            tokenizer,
            train,
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=rate,
            seed=seed,
            track=tracked or [],
            answers=self.answers if tracked and all(map(self._compares_answers, tracked)) else 0,
            max_new_tokens=self.max_length // 2,
            every=every or self.track_steps,
            output_dir=folder,
            resume=True,
            save_steps=self.save_every,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=WARMUP_STEPS,
            **options,
        )

    def _held_out_loss(self, rate: float) -> float:
        from headnb.tuning.evaluation import evaluate  # noqa: PLC0415

        model, tokenizer = self.loaded
        train, held_out = self.samples.training(self.rate_task), self.samples.held_out(self.rate_task)
        tuned = self._finetune(train, rate, RATE_SEED, self.steps, {}, self.run.folder / "rate" / str(rate))
        with tuned.applied(model) as tuned_model:
            return float(evaluate(tuned_model, tokenizer, held_out, answer="none")["loss"].mean())

    def _first(self, task: str, count: int) -> Task:
        """The first scored samples of a task."""
        scored = self.samples.scored(task)
        return subset(scored, range(min(count, len(scored))))

    def _score(self, model: PreTrainedModel, samples: Task, out: Path) -> None:
        from headnb.scoring.run import score_heads  # noqa: PLC0415

        shutil.rmtree(out, ignore_errors=True)
        score_heads(model, self.loaded[1], samples, out=out)

    def _accuracy(self, model: PreTrainedModel, task: str) -> dict[str, Any]:
        """Exact match of greedy answers, for tasks whose answers can be compared."""
        from headnb.tuning.evaluation import evaluate  # noqa: PLC0415

        if not self._compares_answers(task):
            return {}
        asked = load_task(self.samples.scored(task), n=min(self.answers, self.n), seed=0)
        found = evaluate(model, self.loaded[1], asked, max_new_tokens=self.max_length // 2)
        return {"exact_match": float(np.nanmean(found["exact_match"])), "answers": len(asked)}

    def _compares_answers(self, task: str) -> bool:
        card = known_tasks().get(task)
        return bool(self.answers and card and card.answer != "none" and len(task_parts(task)) == 1)

    def _described(self, task: str) -> dict[str, Any]:
        names = ("dtype", "max_length", "steps", "batch_size")
        return {name: getattr(self, name) for name in names} | {"fingerprint": self.samples.scored(task).fingerprint()}


def results_folder(run: Run, results: str, design: str) -> Path:
    """Folder of compact results: the given one, that of the design in a clone, or one in the run folder."""
    from headnb.suite.notebooks import notebooks_folder  # noqa: PLC0415

    if results:
        return Path(results)
    clone = notebooks_folder().parent
    in_clone = clone / DESIGNS[design].results
    return in_clone if (clone / "docs" / "experiment.md").exists() else run.folder / "fair" / "results"


def reduce_before(run: Run, results: FairResults, task: str) -> Path:
    """Write the compact result of the base model on a task from its run folder."""
    about = read_json(run.paths.before(task).with_suffix(".json"), "15_fair_training")
    return results.write("before", task, None, _with(compact_scores(run.before(task)), about))


def reduce_own(run: Run, results: FairResults, task: str, seed: int) -> Path:
    """Write the compact result of a training on a task's own answers from its run folder."""
    folder = run.paths.finetuning(task, seed)
    others = [name for name in _evaluated(run, task, seed) if name != task]
    beside = {name: run.after(task, seed, name) for name in others}
    compact = compact_tuned(run.after(task, seed, task), beside, run.tuned(task, seed), task)
    return results.write("own", task, seed, _with(compact, read_json(folder / "result.json", "15_fair_training")))


def reduce_shuffled(run: Run, results: FairResults, task: str, seed: int) -> Path:
    """Write the compact result of a training on shuffled answers from its run folder."""
    about = read_json(run.paths.shuffled(task, seed) / "result.json", "15_fair_training")
    return results.write("shuffled", task, seed, _with(compact_scores(run.after_shuffled(task, seed)), about))


def reduce_run(run: Run, results: FairResults, steps: int, report: Callable[[str], None] = print) -> None:
    """Write the compact result of every complete training in a run folder, of trainings with so many steps.

    Raises:
        HeadnbError: the folder has no result of the study.
    """
    found = 0
    for path in sorted(run.folder.glob("before/*.json")):
        found += 1
        report(str(reduce_before(run, results, _task_of(run.paths.before(path.stem)))))
    for kind, reduce in (("sft", reduce_own), ("shuffled", reduce_shuffled)):
        for path in sorted(run.folder.glob(f"{kind}/*/seed*/result.json")):
            if (of_run := read_json(path, "15_fair_training").get("steps", steps)) != steps:
                raise HeadnbError(f"{path} has {of_run} steps, and the trainings of this study have {steps}")
            scores = path.parent / ("after.zarr" if kind == "shuffled" else f"after/{path.parent.parent.name}.zarr")
            report(str(reduce(run, results, _task_of(scores), int(path.parent.name.removeprefix("seed")))))
            found += 1
    if not found:
        raise HeadnbError(f"{run.folder} has no finished training of the study")


def _evaluated(run: Run, task: str, seed: int) -> list[str]:
    """Names of the tasks that the model trained on `task` was scored on."""
    return sorted(_task_of(path) for path in run.paths.after(task, seed, task).parent.glob("*.zarr"))


def _task_of(scores: Path) -> str:
    from headnb.experiments.folder import scores_at  # noqa: PLC0415

    return str(scores_at(scores, "15_fair_training").attrs["task"])


def _with(compact: Compact, about: Mapping[str, Any]) -> Compact:
    return Compact(compact.arrays, {**compact.meta, **about})
