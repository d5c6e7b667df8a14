"""`HeadScoreCallback`: head scores during a training with any Trainer of transformers or TRL.

Tracking does not change the training. It runs between updates, when no gradient is accumulated. Scoring computes no
gradients of parameters. The random state is restored after scoring.
"""

# ruff: noqa: ARG002  callbacks of a Trainer have the arguments that it calls them with
from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.call_checks import check_arguments
from headnb.engine.hooks import find_heads
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError, unknown_name, warn_user
from headnb.models.checks import context_length, model_name
from headnb.models.provenance import record_base, weights_source
from headnb.models.restore import restore_random_state
from headnb.scoring.registry import find_method, online_methods
from headnb.scoring.run import score_heads
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION, check_revision
from headnb.tuning.budget import check_counts, measure_costs, plan_tracking, schedule, subsample
from headnb.tuning.model_in_training import is_sharded, scoring_mode
from headnb.tuning.movement import Movement
from headnb.tuning.online import TrainingBatches
from headnb.tuning.study import FOLDER, STUDY, Study, TrackedStep, read_study
from headnb.tuning.tracked_answers import ANSWER_TOKENS, TrackedAnswers
from headnb.tuning.tracked_tasks import tasks_of_study, tracked_tasks
from headnb.tuning.trackers import TrackerLog, step_numbers
from headnb.tuning.trainer import TrainerCallback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import xarray as xr
    from torch import nn
    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments

    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.scoring.progress import Progress
    from headnb.tasks.loading import Task
    from headnb.tuning.budget import TrackingPlan

PLANNED = {"tracking", "tracked_steps", "tracked_samples"}  # attributes of a study whose steps a budget chose
FLUSH_EVERY = 50  # maximum number of updates between two writes of online scores


class HeadScoreCallback(TrainerCallback):
    """Trainer callback that scores tracked tasks before fine-tuning, every few steps, and after the last step.

        callback = headnb.HeadScoreCallback({"gsm8k": task}, tokenizer=tokenizer, every=20)
        trainer.add_callback(callback)
        trainer.train()
        callback.study

    The study is written to `head_scores` in the trainer's output_dir during training (`open_study` reads it). A resumed
    run continues the study with its samples; other tasks, samples or another method are an error before the first
    update. A new run in the same output_dir replaces the study of an earlier one, as the trainer replaces its
    checkpoints, and warns.

    Numbers and the grid of every tracked step are also logged to TensorBoard, W&B and trackio if the trainer reports to
    them (`report_to`), as `headnb/<task>/gini` and so on (docs/logging.md).

    With `budget=0.25` tracking is planned to take at most a quarter of the training time; short trainings exceed it,
    because step 0 and the last step are always tracked. A line before training states the tracked steps, the number of
    samples and the cost; `.plan` and `study.attrs["tracking"]` keep it.

    Args:
        tasks: a task (a `Task` or anything that `load_task` accepts), a list of tasks, or name -> task.
        tokenizer: the model's tokenizer; default: the trainer's processing class.
        every: number of steps between two tracked steps, or a list of tracked steps such as [0, 1, 2, 5, 10, 20, 50].
            None: 20 steps, or as `budget` allows. The last step is always tracked.
        samples: number of samples of each task, a random subset. None: all, or as many as `budget` allows.
        budget: maximum tracking time as a share of the training time. It determines `every` and `samples` where they
            are not given, from the measured time of a scored batch and of a training step. Step 0 and the last step are
            always tracked, with at least 8 samples.
        online: also score the training batches, in the backward pass of the training (`.online_scores`).
        method: one of `methods()`.
        batch_tokens: as for `score_heads`.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        answers: at every tracked step, generate answers to so many samples of each task and compare them, for
            `exact_match` in the study. `budget` does not contain the time for this.
        max_new_tokens: maximum number of generated tokens of one answer.
        movement: measure the relative parameter distance from step 0. For full tuning this keeps a copy of the
            parameters in main memory.
        on_tracked: called with the step number after each tracked step.
        log: called with the numbers of each tracked step, for other trackers. `trainer.log` sends them to all trackers
            of the trainer.

    Raises:
        HeadnbError: a task, step or method is invalid, two tasks have the same name, or `budget` is given with both
            `every` and `samples`.
    """

    @check_arguments
    def __init__(
        self,
        tasks: object = (),
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        every: int | Iterable[int] | None = None,
        samples: int | None = None,
        budget: float | None = None,
        online: bool = False,
        method: str = "activation",
        batch_tokens: int = 4096,
        max_length: int | None = None,
        encoding: EncodingName = "official",
        answers: int = 0,
        max_new_tokens: int = ANSWER_TOKENS,
        movement: bool = True,
        on_tracked: Callable[[int], None] | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        reduce = find_method(method, of_samples=True).online
        if online and reduce is None:
            raise unknown_name("method for online scores", method, online_methods())
        check_counts(every, samples, budget)
        self._candidates = tracked_tasks(tasks)
        if samples is not None:
            self._candidates = {name: subsample(task, samples) for name, task in self._candidates.items()}
        self.tasks = self._candidates
        self.plan: TrackingPlan | None = None
        """The tracked steps and samples that `budget` allows; None without a budget and before the training."""
        self.attrs: dict[str, Any] = {}
        self.log = log
        self.on_scored: Callable[[TrainerState, str, Progress], None] | None = None
        """Called with the task's name before and after each scored batch of a tracked task."""
        self.on_planned: Callable[[TrainerState, TrackingPlan | None], None] | None = None
        """Called before the cost of tracking is measured, with None, and when `plan` is made. Default: print it."""
        self._tokenizer = tokenizer
        self._is_tracked = self._chosen_steps = schedule(20 if every is None else every)
        self._every, self._samples = every, samples
        self._budget = budget if self._candidates else None
        self._reduce = reduce if online else None
        self._scoring: dict[str, Any] = {
            "method": method,
            "batch_tokens": batch_tokens,
            "max_length": max_length,
            "encoding": encoding,
        }
        self.answers = TrackedAnswers(answers, max_new_tokens)
        """The answers that are compared at every tracked step."""
        self._with_movement = movement
        self._on_tracked = on_tracked
        self.collected = Study()
        self._movement: Movement | None = None
        self._batches: TrainingBatches | None = None
        self._seen_before = np.zeros(2)
        self._trackers = TrackerLog()
        self._unlogged: int | None = None

    @property
    def study(self) -> xr.Dataset:
        """The study so far; see `FineTuned.study`."""
        return self.collected.dataset()

    @property
    def scores(self) -> dict[str, xr.Dataset]:
        """Task -> scores (step, sample, layer, head), with the same samples at each tracked step."""
        return self.collected.scores()

    @property
    def online_scores(self) -> xr.Dataset | None:
        """Scores of the training batches (sample, layer, head), with the update as `step`; None without any."""
        return self.collected.online_scores()

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Record the initial parameters, before the trainer loads a checkpoint."""
        self._record_weights(given["model"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Score the tasks before the first update. A resumed training continues the study in output_dir."""
        self.close()
        model = given["model"]
        self._tokenizer = self._tokenizer or given.get("processing_class")
        self._start_study(model, state, Path(args.output_dir or ".") / FOLDER)
        if is_sharded(model):
            self._movement = None
            if self.tasks:
                raise HeadnbError(
                    "tasks cannot be scored during a training with sharded weights; use online=True to score its "
                    "batches, or track_checkpoints for its checkpoints"
                )
        elif state.global_step == 0:
            self._record_weights(model)
        if self._budget is not None:
            self._make_plan(model, args, state, given.get("train_dataloader"))
        with restore_random_state() if is_sharded(model) else scoring_mode(model):
            layout = find_heads(model)
        self._batches = TrainingBatches(model, layout, self._reduce)
        self.collected.attrs = {**self._provenance(model), "kv_heads": layout.kv_heads, **self.attrs}
        if state.global_step == 0 and self._is_tracked(0):
            with self._closed_on_error():
                self._track(model, state, control)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Log the step before the first update. At `on_train_begin` a tracker may not be open yet."""
        self._log(state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Score the tasks if this step is tracked."""
        if self._batches is None:
            return
        step = state.global_step
        self.collected.attrs["steps_done"] = step  # also at steps that are not tracked
        self._batches.end_update(step)
        with self._closed_on_error():
            if self._is_tracked(step) or step >= state.max_steps or control.should_training_stop:
                self._track(given["model"], state, control)
                self._log(state, control)
            elif control.should_save or step % FLUSH_EVERY == 0:
                self._write(step)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Write the study if the trainer is about to save a checkpoint."""
        if self._batches is not None and control.should_save:
            with self._closed_on_error():
                self._write(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Record the base model in an adapter's checkpoint."""
        if state.is_world_process_zero:
            record_base(given["model"], Path(args.output_dir or ".") / f"checkpoint-{state.global_step}")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Record the training loss."""
        logs = given.get("logs") or {}
        if "loss" in logs:
            self.collected.train_loss[state.global_step] = float(logs["loss"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Score the tasks after the last step if this is not yet done, and remove the hooks."""
        if self._batches is None:
            return
        with self._closed_on_error():
            if state.global_step not in self.collected.steps and not args.load_best_model_at_end:
                self._track(given["model"], state, control)
                self._log(state, control)
            self._write(state.global_step)
        self.close()

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def forget_movement(self) -> None:
        """Turn off movement, for a resumed run whose initial weights are not available."""
        self._with_movement = False

    def close(self) -> None:
        """Remove the hooks from the model. The end of a training calls it; call it after an interrupt."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _record_weights(self, model: nn.Module) -> None:
        if self._with_movement:
            with scoring_mode(model):
                layout = find_heads(model)  # type: ignore[arg-type]
            self._movement = Movement(model, layout)  # outside the context, which clears the requires_grad flags

    def _start_study(self, model: nn.Module, state: TrainerState, folder: Path) -> None:
        """Start a new study, or continue the study in `folder` from the step of the resumed training."""
        resumed, writes = state.global_step > 0, state.is_world_process_zero
        self.collected, self._unlogged, self.tasks = Study(), None, self._candidates
        if resumed and (folder / STUDY).exists():
            stored = read_study(folder)
            check_revision(folder, stored.attrs, {REVISION: SCORING_REVISION}, "a study")
            self.collected = stored.up_to(state.global_step)
            if self.collected.steps:
                self.tasks = tasks_of_study(
                    next(iter(self.collected.steps.values())).scores,
                    folder,
                    self._candidates,
                    self._scoring["method"],
                    self._samples,
                    partial(self._encoded, model),
                )
        elif writes and not resumed and folder.exists():
            warn_user(f"{folder} has the study of an earlier training, which is replaced")
            shutil.rmtree(folder)
        self.collected.folder = folder if writes else None
        self.collected.train_loss = train_losses(state)
        if resumed:
            self.collected.remove_files_after(state.global_step)
        default = (np.nan, np.nan) if resumed else (0.0, 0.0)
        self._seen_before = np.array(self.collected.seen.get(state.global_step, default))

    def _encoded(self, model: Any, task: Task) -> EncodedTask:
        options = {option: self._scoring[option] for option in ("encoding", "max_length")}
        return encode_task(task, self._tokenizer, **options, context=context_length(model))

    def _make_plan(self, model: nn.Module, args: TrainingArguments, state: TrainerState, loader: Any) -> None:
        """Choose steps and samples within the budget; a resumed training keeps those of its study."""
        from accelerate.utils import broadcast_object_list  # noqa: PLC0415  the trainer has already imported it

        attrs = {name: self.collected.attrs[name] for name in PLANNED if name in self.collected.attrs}
        if PLANNED - attrs.keys():
            self._report_plan(state, None)
            sizes = {name: len(task) for name, task in self.tasks.items()}
            batches = (loader, args.train_batch_size, args.gradient_accumulation_steps)
            costs = measure_costs(model, self._tokenizer, self.tasks, self._scoring, *batches)
            steps = None if self._every is None else self._chosen_steps
            # A resumed training without a stored plan keeps the samples of its study.
            samples = max(sizes.values()) if self.collected.steps else self._samples
            chosen = {"budget": self._budget, "steps": steps, "samples": samples}
            self.plan = plan_tracking(state.max_steps, costs, sizes, **chosen)  # type: ignore[arg-type]
            self.plan = broadcast_object_list([self.plan])[0]  # of rank 0, which has measured other times
            attrs = {"tracking": self.plan.line, "tracked_steps": json.dumps(self.plan.steps)}
            attrs |= {"tracked_samples": self.plan.samples}
            self.attrs |= attrs
            self._report_plan(state, self.plan)
        self.attrs |= attrs
        self._is_tracked = schedule(json.loads(str(attrs["tracked_steps"])))
        most = int(attrs["tracked_samples"])
        self.tasks = {name: subsample(task, most) for name, task in self.tasks.items()}

    def _report_plan(self, state: TrainerState, plan: TrackingPlan | None) -> None:
        if self.on_planned is not None:
            self.on_planned(state, plan)
        elif plan is not None and state.is_world_process_zero:
            print(plan.line)  # noqa: T201  as the trainer prints its losses

    def is_tracked(self, step: int, last: int) -> bool:
        """Whether a step is tracked in a training of `last` steps."""
        return step == last or self._is_tracked(step)

    def _track(self, model: nn.Module, state: TrainerState, control: TrainerControl) -> None:
        scores, step = {}, state.global_step
        with scoring_mode(model):
            for name, task in self.tasks.items():
                watch = self.on_scored and partial(self.on_scored, state, name)
                decoder: Any = model
                found = score_heads(decoder, self._tokenizer, task, **self._scoring, on_progress=watch)
                scores[name] = self.answers.add_to(found, decoder, self._tokenizer, task, self._scoring["encoding"])
        assert self._batches is not None  # noqa: S101  the training is running
        layers = len(self._batches.layout.heads)
        movement = np.full(layers, np.nan) if self._movement is None else self._movement.measure()
        samples, tokens = self._counts()
        self.collected.add(TrackedStep(step, scores, movement, samples, tokens))
        self._write(step)
        self._unlogged = step
        if self._on_tracked is not None:
            self._on_tracked(step)

    def _log(self, state: TrainerState, control: TrainerControl) -> None:
        """Log the last tracked step, once."""
        if self._unlogged is None:
            return
        step, self._unlogged = self._unlogged, None
        if state.is_world_process_zero:
            self._trackers.log(self.collected.dataset, step)
        if self.log is not None:
            should_log = control.should_log
            self.log(step_numbers(self.collected.dataset(), step))
            control.should_log = should_log  # `trainer.log` resets it

    def _write(self, step: int) -> None:
        """Update the study on disk."""
        assert self._batches is not None  # noqa: S101
        self.collected.seen[step] = self._counts()
        self.collected.attrs["steps_done"] = step
        if self._reduce is not None and (scores := self._batches.collect()) is not None:
            self.collected.add_online(scores.assign_attrs(self._online_attrs()))
        self.collected.write()

    def _counts(self) -> tuple[float, float]:
        assert self._batches is not None  # noqa: S101
        samples, tokens = self._seen_before + self._batches.counts()
        return float(samples), float(tokens)

    def _provenance(self, model: nn.Module) -> dict[str, Any]:
        return {
            "model": model_name(model),
            **weights_source(model),
            **find_method(self._scoring["method"]).attrs,
            "loss_reduction": "sample-mean",
            REVISION: SCORING_REVISION,
            "dtype": str(getattr(model, "dtype", "")).removeprefix("torch."),
        }

    def _online_attrs(self) -> dict[str, Any]:
        assert self._batches is not None  # noqa: S101
        missing = ",".join(f"L{layer}" for layer in self._batches.layers_without_gradient)
        self.collected.attrs["layers_without_gradient"] = missing
        return self.collected.attrs


def train_losses(state: TrainerState) -> dict[int, float]:
    """Update -> training loss, from the log of a trainer's state."""
    return {int(log["step"]): log["loss"] for log in state.log_history if "loss" in log}
