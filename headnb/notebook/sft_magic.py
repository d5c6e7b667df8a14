"""`%headsft MODEL TASK`: fine-tuning with a live grid of the heads' scores and their change."""

# IPython's decorators have no types.
# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-any-return"

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments

from headnb.display.live import suppress_redisplay
from headnb.errors import HeadnbError
from headnb.notebook import arguments
from headnb.notebook import shared_options as shared
from headnb.notebook.arguments import takes
from headnb.notebook.cell_output import loading, one_line_errors, store_variable
from headnb.notebook.live_scoring import distinct_tasks
from headnb.notebook.live_tuning import LiveStudy, how_to_continue, training_note

if TYPE_CHECKING:
    from argparse import Namespace

    from IPython.core.interactiveshell import InteractiveShell

    from headnb.notebook.magics import HeadMagics
    from headnb.tasks.loading import Task
    from headnb.tuning.result import FineTuned


@magics_class
class TuningMagics(Magics):
    """Fine-tuning in a notebook; shares models, settings and variables with `HeadMagics`."""

    def __init__(self, shell: InteractiveShell, heads: HeadMagics) -> None:
        super().__init__(shell)
        self.heads = heads

    @line_magic
    @magic_arguments()
    @arguments.MODEL
    @argument("task", metavar="TASK", help="Training task: name (its train split), file or variable with a task.")
    @argument(
        "--full",
        action="store_true",
        help="Tune all weights of a model in a variable. Default: train a LoRA adapter and leave the model unchanged.",
    )
    @takes(
        shared.TRACKED_SAMPLES,
        replace(shared.OUT, help="Folder for checkpoints, the adapter and the tracked scores."),
        shared.TRACK,
        *shared.TUNING,
        *shared.TUNING_MODEL,
        shared.INTO,
    )
    def headsft(self, line: str) -> FineTuned:
        """Fine-tune a model on a task and track its heads: levels before and after, and their difference.

        The slider over the steps is drawn on the loss curve. By default, tracking is planned to take at most a quarter
        of the training time; the first and the last step are always tracked, with at least 8 samples. A line before
        training says which steps are tracked and with how many samples.

            %headsft smollm2-135m gsm_symbolic --steps 60
            result = %headsft model gsm8k --track gsm8k --track boolq --every 0,1,2,5,10,20,50

        Returns the result (headnb.FineTuned): result.study and result.scores have the tracked scores, result.adapter is
        the adapter, and `with result.applied(model) as tuned:` applies it. An interrupt ends the cell and "Run All";
        the result so far is in _ and in the variable of --into. With --out, repeat the call with --resume to continue.
        """
        with one_line_errors():
            options = self.heads.options(TuningMagics.headsft, line)
            result = self._tune(options)
            store_variable(options, result)
        suppress_redisplay(result)
        return result

    def _tune(self, options: Namespace) -> FineTuned:
        live = LiveStudy(f"{options.model} · {options.task}")
        with loading(live, until="the first step was tracked"):
            train, track = self._tasks(options)
            model, tokenizer = self._model(options, live)
            from headnb.models.checks import model_name  # noqa: PLC0415  loads torch

            name = train if isinstance(train, str) else getattr(train, "name", options.task)
            live.title = f"{model_name(model)} fine-tuned on {name}"
            live.message("reading the training samples")
            result, interrupted = self._train(options, live, model, tokenizer, train, track)
        drawn = _draw(result, live, interrupted)
        if interrupted or not drawn:
            what = "the result so far is" if interrupted else "the result is"
            self.heads.keep_partial_result(result, options, what, how_to_continue(options.out, resume=options.resume))
        return result

    def _train(
        self, options: Namespace, live: LiveStudy, model: Any, tokenizer: Any, train: Any, track: list[Task] | None
    ) -> tuple[FineTuned, str]:
        """The result, and the number of completed steps in words if an interrupt ended the training."""
        from headnb.tuning.finetuning import finetune  # noqa: PLC0415  loads torch
        from headnb.tuning.training import TuningInterrupted  # noqa: PLC0415

        try:
            result = finetune(
                model,
                tokenizer,
                train,
                track=track,
                inplace=options.full,
                output_dir=options.out,
                samples=options.samples,
                **shared.chosen(shared.TUNING, vars(options), self.heads),
                on_progress=live.update_tuning,
            )
        except TuningInterrupted as stopped:
            if "level" not in stopped.result.study:
                raise
            return stopped.result, f"{stopped.step} of {options.steps} steps are done"
        return result, ""

    def _tasks(self, options: Namespace) -> tuple[Any, list[Task] | None]:
        """Training task and tracked tasks; None leaves the choice to `finetune`."""

        def resolve(word: str) -> Any:
            return arguments.variable(word, options.variables, arguments.is_task)

        def load(source: Any) -> Task:
            return arguments.load_sampled_task(source, options.samples, self.heads.samples, "test", options.seed)

        train = resolve(options.task)
        if options.track:
            return train, distinct_tasks([load(resolve(word)) for word in options.track], options.track)
        return train, None if not isinstance(train, str) and options.samples is None else [load(train)]

    def _model(self, options: Namespace, live: LiveStudy) -> tuple[Any, Any]:
        model, tokenizer = self.heads.model(options, live)
        if options.full and any(cached.model is model for cached in self.heads.model_cache):
            raise HeadnbError(
                f"--full changes the model, and the magics share the model {options.model}: load your own with "
                "model, tokenizer = headnb.load_model(...)"
            )
        return model, tokenizer


def _draw(result: FineTuned, live: LiveStudy, interrupted: str) -> bool:
    """Draw the tracked steps; return False if an interrupt stops the drawing."""
    notes = [f"Interrupted: {interrupted}." if interrupted else "", training_note(result)]
    try:
        with (
            contextlib.suppress(Exception),
            live.drawing(),
        ):  # the display shows the error
            live.finish(result.study, note=" ".join(filter(None, notes)))
    except KeyboardInterrupt:
        return False
    return True
