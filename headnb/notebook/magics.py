"""IPython magics for scoring, comparing and ablating heads: `%headscore MODEL TASK` and others.

A magic parses its line, calls the public functions and displays the result once. It returns the result, so that
`scores = %headscore ...` works. A user's error is a one-line `UsageError`, never a traceback.
"""

# IPython's decorators have no types.
# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-any-return"

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments
from traitlets import Float, Int, Unicode

from headnb import _background_imports
from headnb.display.encodings import for_stdout
from headnb.display.live import LiveGrid, suppress_redisplay
from headnb.errors import HeadnbError, one_line
from headnb.models.loading import read_ahead
from headnb.models.model_cache import ModelCache, release_memory
from headnb.notebook import arguments
from headnb.notebook import shared_options as shared
from headnb.notebook.arguments import takes
from headnb.notebook.cell_output import display_once, loading, one_line_errors, show_table, store_variable
from headnb.notebook.differences import change_between
from headnb.notebook.live_ablation import ablate_live, texts_before_and_after
from headnb.notebook.live_scoring import distinct_tasks, joined_names, score_live
from headnb.notebook.tables import method_table, model_table, task_table
from headnb.notebook.variables import Variables
from headnb.tasks.sources import has_splits

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable

    import xarray as xr
    from IPython.core.interactiveshell import InteractiveShell

    from headnb.display.grid import HeadGrid
    from headnb.notebook.shared_options import Option
    from headnb.notebook.tables import NameTable
    from headnb.scoring.ablation import Generation
    from headnb.tasks.loading import Task


@magics_class
class HeadMagics(Magics):
    """Attention-head scores in a notebook."""

    samples = Int(shared.MAX_SAMPLES, min=1, help="Number of samples of a named task without -n.").tag(config=True)
    method = Unicode(shared.METHOD.default, help=shared.METHOD.help).tag(config=True)
    loss = Unicode(shared.LOSS.default, help=shared.LOSS.help).tag(config=True)
    batch_tokens = Int(shared.BATCH_TOKENS.default, min=1, help=shared.BATCH_TOKENS.help).tag(config=True)
    device = Unicode(shared.DEVICE.default, help=shared.DEVICE.help).tag(config=True)
    dtype = Unicode(shared.DTYPE.default, help=shared.DTYPE.help).tag(config=True)
    memory_budget = Float(
        0, min=0, help="Memory limit of all loaded models in gigabytes; 0: half of the device's memory."
    ).tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.model_cache = ModelCache()

    @line_cell_magic
    @magic_arguments()
    @arguments.MODEL
    @argument("task", metavar="TASK", nargs="*", help="Name, file, hub data set or variable with a task.")
    @takes(*shared.SCORE, shared.INTO)
    def headscore(self, line: str, cell: str | None = None) -> xr.Dataset:
        """Score every attention head of a model on tasks; the layer x head grid is updated during the run.

            %headscore smollm2-135m gsm_symbolic -n 32
            scores = %headscore model task --method taylor-token
            study = %headscore smollm2-135m gsm_symbolic svamp
            results = %headscore model task --method activation,entropy

        Returns the scores (an xarray Dataset): scores.heads has patterns, intervals and comparisons. Several tasks give
        a study: the patterns with the dimension task, drawn side by side on one colour scale. Several methods share one
        pass and give results by method, such as results["entropy"]. An interrupt ends the cell and "Run
        All"; the samples scored so far are in _ and in the variable of --into. With --out, run the same call again to
        resume; for several tasks or methods it is a folder with one store for each. As a cell magic it scores the
        samples typed below it:

            %%headscore smollm2-135m
            The capital of France is => Paris

            Question: Tom has 3 pens and buys 2. How many?
            Answer: 5

            {"prompt": "2 + 3 = ", "completion": "5"}
        """
        with one_line_errors():
            options = self.options(HeadMagics.headscore, line)
            scores = self._score(options, cell)
            store_variable(options, scores)
        suppress_redisplay(scores)
        return scores

    def _score(self, options: Namespace, cell: str | None) -> xr.Dataset:
        live = LiveGrid(f"{options.model} · {', '.join(options.task) or 'typed'}")
        settings = shared.chosen(shared.SETTINGS, vars(options), self)
        with loading(live):
            tasks = self.tasks(options, cell)
            live.message("starting")
            from headnb.models.checks import model_name  # noqa: PLC0415  loads torch
            from headnb.scoring.progress import ScoringInterrupted  # noqa: PLC0415
            from headnb.scoring.run import check_settings  # noqa: PLC0415

            check_settings(**settings)
            model, tokenizer = self.model(options, live)
        live.title = f"{model_name(model)} · {joined_names(tasks)}"
        scores = None
        try:
            with live:
                work = shared.chosen(shared.WORK, vars(options), self)
                scores = score_live(live, model, tokenizer, tasks, **settings, **work)
                with contextlib.suppress(Exception):  # the display shows the error; the scores are still returned
                    live.finish(scores)
        except ScoringInterrupted as stopped:  # the live grid has drawn the partial result
            if not stopped.done:
                raise UsageError("interrupted before the first sample was scored") from None
            again = "; run the same call to continue" if options.out else ""
            self.keep_partial_result(stopped.scores, options, "the scores so far are", again)
        except KeyboardInterrupt:
            if scores is None:
                raise
            self.keep_partial_result(scores, options, "the scores are")
        return scores

    def options(self, magic: Any, line: str) -> Namespace:
        """Parse a magic's line; the attribute `variables` has the variables that its arguments can name.

        Raises:
            UsageError: as for `arguments.parse`.
            HeadnbError: the variable of --into cannot be set.
        """
        options = arguments.parse(magic, line)
        model = getattr(options, "model", None)
        if model not in [cached.name for cached in self.model_cache]:
            read_ahead(model)
        _background_imports.wait()
        options.variables = Variables.of_caller(self.variables())
        if getattr(options, "into", None):
            arguments.check_name(options.into)
            options.variables.check_settable(options.into)
        return options

    def keep_partial_result(self, partial: object, options: Namespace, what: str, again: str = "") -> NoReturn:
        """Store a partial result in `_` and in the variable of --into, then end the cell and "Run All".

        Args:
            partial: the result before the interrupt.
            options: of the magic's line.
            what: subject and verb of the message, such as "the scores so far are".
            again: how to continue, where that is possible.

        Raises:
            UsageError: always, with the name of the variable. The grid says how much is done.
        """
        assert self.shell is not None  # noqa: S101  IPython's type allows a magic without a shell
        self.shell.displayhook.update_user_ns(partial)
        store_variable(options, partial)
        raise UsageError(f"interrupted; {what} in {options.into or '_'}{again}") from None

    def tasks(self, options: Namespace, cell: str | None) -> list[Task]:
        """The tasks of %headscore; all are loaded before the first one is scored."""
        if cell is not None:
            from headnb.notebook.cell_samples import parse_cell_task  # noqa: PLC0415
            from headnb.tasks.loading import load_task  # noqa: PLC0415

            if options.task:
                raise HeadnbError("give either a task name or samples typed into the cell, not both")
            task = parse_cell_task(cell)
            return [task if options.samples is None else load_task(task, n=options.samples, seed=options.seed)]
        if not options.task:
            raise HeadnbError("%headscore needs a model and a task: %headscore smollm2-135m gsm_symbolic (%headtasks)")
        return distinct_tasks([self.task(word, options) for word in options.task], options.task)

    def task(self, word: str, options: Namespace) -> Task:
        """The task that a word of the line names, with the options' samples."""
        source = arguments.variable(word, options.variables, arguments.is_task)
        if not isinstance(source, str) and not has_splits(source):
            _check_not_given((shared.SPLIT, shared.CONFIG), options, "a task", word)
        with arguments.explain_variable(word, source, options.variables, "a task"):
            sampling = (options.split, options.seed, options.config)
            return arguments.load_sampled_task(source, options.samples, self.samples, *sampling)

    def model(self, options: Namespace, live: LiveGrid) -> tuple[Any, Any]:
        found = arguments.variable(
            options.model, options.variables, lambda value: arguments.is_model(value) or arguments.is_model_pair(value)
        )
        if isinstance(found, str):
            if found not in [cached.name for cached in self.model_cache]:
                live.message("loading the model")
            with arguments.explain_variable(options.model, found, options.variables, "a model"):
                return self.model_cache.load(
                    found,
                    budget=int(self.memory_budget * 1e9) or None,
                    **shared.chosen(shared.LOADING, vars(options), self),
                )
        _check_not_given(shared.LOADING, options, "a model", options.model)
        if arguments.is_model_pair(found):
            return found
        tokenizer, note = arguments.find_tokenizer(found, options.variables, self.model_cache)
        if note:
            print(for_stdout(one_line(note)))  # noqa: T201  a wrong tokenizer gives other token ids and so other scores
        return found, tokenizer

    @line_magic
    @magic_arguments()
    @argument(
        "picture",
        metavar="X",
        nargs="+",
        help="Variable with scores, a pattern, a comparison, a grid or a matrix, or a saved file or its URL.",
    )
    @argument("--title", default="", help="Title of the grid.")
    @argument("--roles", metavar="R", help="Variable or file with head roles (%%headroles), to mark them in the grid.")
    @argument(
        "--save",
        metavar="PATH",
        help="Also write a file: .heads.json or .csv (data), .png, .pdf, .svg or .html (pictures).",
    )
    def headgrid(self, line: str) -> HeadGrid:
        """Draw the layer x head grid of scores, a pattern, a comparison or a saved file.

        %headgrid scores
        %headgrid gsm_scores svamp_scores
        %headgrid runs/before.zarr --save before.svg

        Several are drawn side by side on one colour scale. Their labels are their tasks, or else their models or
        methods, or else the names that are typed.
        """
        from headnb.display.grid import HeadGrid  # noqa: PLC0415

        with one_line_errors():
            options = self.options(HeadMagics.headgrid, line)
            found = [arguments.find_drawable(word, options.variables) for word in options.picture]
            grid = HeadGrid.of(arguments.one_drawable(found, options.picture), title=options.title)
            if options.roles:
                roles: Any = arguments.find_drawable(options.roles, options.variables)  # `with_roles` checks it
                grid = grid.with_roles(roles)
            if options.save:
                grid.save(options.save)
        return display_once(grid, grid)

    @line_magic
    @magic_arguments()
    @argument("after", metavar="AFTER", help="Variable, file or URL with the scores after the change.")
    @argument(
        "before",
        metavar="BEFORE",
        help="Variable, file or URL with scores of the same samples before the change, or of another task.",
    )
    @argument("--title", default="", help="Title of the grid.")
    @takes(*shared.COMPARING, shared.INTO)
    def headdiff(self, line: str) -> xr.Dataset | xr.DataArray:
        """Draw how heads changed between two sets of scores of the same samples; significant changes are marked.

        AFTER comes first, as in the difference after − before; `headnb compare` and headnb.compare take BEFORE first.

            %headdiff after before
            change = %headdiff after.zarr before.zarr

        Returns the comparison (an xarray Dataset with difference, low, high and q_value). Samples of two tasks cannot
        be paired: for scores of different tasks it draws and returns the difference of the heads' ranks
        (headnb.rank_difference), and no head is tested.
        """
        with one_line_errors():
            options = self.options(HeadMagics.headdiff, line)
            after, before = (arguments.find_scores(word, options.variables) for word in (options.after, options.before))
            settings = shared.chosen(shared.COMPARING, vars(options))
            words = (options.before, options.after)
            change, grid = change_between(before, after, words, **settings, title=options.title)
            store_variable(options, change)
        return display_once(grid, change)

    @line_magic
    @magic_arguments()
    @arguments.MODEL
    @argument("task", metavar="TASK", help="Name, file, hub data set or variable with a task.")
    @argument("--heads", required=True, metavar="L3H5,L7H1", help="Heads to ablate or scale, separated by commas.")
    @takes(*shared.ABLATING, *shared.LOADING, shared.INTO)
    def headablate(self, line: str) -> xr.Dataset:
        """Ablate or scale heads of a model, and measure the change of the loss and of the first sample's answer.

            %headablate smollm2-135m gsm_symbolic --heads L3H5,L7H1 -n 32
            %headablate model task --heads L3H5 --factor 2 --controls 5

        Returns each sample's losses before and after the ablation (an xarray Dataset with mean_change, low and high).
        """
        from headnb.explorer.ablation_card import AblationCard  # noqa: PLC0415

        with one_line_errors():
            options = self.options(HeadMagics.headablate, line)
            result, generate = self._ablate(options)
            store_variable(options, result)
        try:
            generation = generate()
        except KeyboardInterrupt:
            display_once(AblationCard(result), result)
            self.keep_partial_result(result, options, "the losses, without the generated texts, are")
        return display_once(AblationCard(result, generation), result)

    def _ablate(self, options: Namespace) -> tuple[xr.Dataset, Callable[[], Generation | None]]:
        """The losses, and a function that generates the texts: the losses are stored before it runs."""
        live = LiveGrid(f"{options.model} · {options.task} · {options.heads}")
        with loading(live, until="the losses were measured"):
            task = self.task(options.task, options)
            model, tokenizer = self.model(options, live)
            settings = shared.chosen(shared.ABLATION, vars(options), self)
            result = ablate_live(live, model, tokenizer, task, options.heads, **settings)
        return result, lambda: texts_before_and_after(
            live, model, tokenizer, task, options.heads, options.tokens, **settings
        )

    @line_magic
    @magic_arguments()
    @argument("models", metavar="MODEL", nargs="*", help="Ids of models to unload. Default: all.")
    def headfree(self, line: str) -> None:
        """Unload the models that %headscore keeps in memory between calls."""
        with one_line_errors():
            options = arguments.parse(HeadMagics.headfree, line)
            loaded = [cached.name for cached in self.model_cache]
            for name in options.models:
                if name not in loaded:
                    raise HeadnbError(f"{name!r} is not loaded; loaded: {', '.join(loaded) or 'none'}")
            freed = self.model_cache.free(options.models)
        words = [f"{cached.name} ({cached.size / 1e9:.2f} GB)" for cached in freed]
        del freed  # the memory is released only when nothing refers to the models
        release_memory()
        print(for_stdout(f"unloaded {one_line(', '.join(words))}") if words else "no model was loaded")  # noqa: T201

    @line_magic
    @magic_arguments()
    @argument(
        "word", metavar="WORD", nargs="?", default="", help="List only tasks with this word in name or description."
    )
    def headtasks(self, line: str) -> NameTable:
        """List the tasks that %headscore accepts by name. Files, hub data sets and variables work as well."""
        return show_table(HeadMagics.headtasks, line, lambda options: task_table(options.word))

    @line_magic
    @magic_arguments()
    def headmodels(self, line: str) -> NameTable:
        """List common models, and which are loaded. Other hub ids, folders and GGUF files work as well."""
        loaded = {cached.name: cached.size for cached in self.model_cache}
        return show_table(HeadMagics.headmodels, line, lambda _: model_table(loaded))

    @line_magic
    @magic_arguments()
    def headmethods(self, line: str) -> NameTable:
        """List the score methods for --method."""
        return show_table(HeadMagics.headmethods, line, lambda _: method_table())

    def variables(self) -> dict[str, Any]:
        """The notebook's variables by name."""
        assert self.shell is not None  # noqa: S101  IPython's type allows a magic without a shell
        return self.shell.user_ns


def _check_not_given(loading_options: Iterable[Option], options: Namespace, what: str, name: str) -> None:
    for option in loading_options:
        if option.name in options.given:
            raise HeadnbError(f"{option.flags[-1]} applies only when {what} is loaded, but {name} is already loaded")
