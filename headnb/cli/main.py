"""Commands of `headnb`: score, roles, show, export, lists, demo and doctor; those of other modules are added here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from headnb import __version__
from headnb.cli import changes, suite
from headnb.cli.commands import Command
from headnb.cli.output import echo, interrupted
from headnb.cli.parameters import Model, Save, completes, sampled_task, takes
from headnb.display.encodings import encodable, show_nearest
from headnb.errors import HeadnbError
from headnb.notebook import shared_options as shared

if TYPE_CHECKING:
    from headnb.display.grid import HeadGrid

EXIT_STATUS = """\b
Exit status:
  0    done
  1    an error, explained in one line on stderr
  2    wrong usage: an unknown command or option, a missing argument, a malformed value, or an option given twice
  130  interrupted by Ctrl-C
"""


class _Commands(TyperGroup):
    """Command group that reports an interrupt by Ctrl-C; typer itself exits silently."""

    def invoke(self, ctx: Any) -> Any:  # typer uses its bundled click or the installed one
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            interrupted()


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    epilog=EXIT_STATUS,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(suite.app, name="suite")


def main() -> None:
    """Run the command line; a HeadnbError is printed as one red line, with exit status 1."""
    show_nearest()
    try:
        app()
    except HeadnbError as error:
        echo(f"headnb: {error}", fg="red", err=True)
        sys.exit(1)


def _print_version(requested: bool) -> None:
    if requested:
        echo(f"headnb {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Attention-head scores for people who fine-tune language models."""


@app.command(cls=Command)
@takes(*shared.SCORE)
def score(
    model: Model,
    task: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK",
            help="Names (see `headnb tasks`), files or hub data sets.",
            autocompletion=completes("task"),
        ),
    ],
    save: Save = None,
    **given: Any,
) -> None:
    """Score every attention head of MODEL on one or several TASKs."""
    from headnb.display.grid import check_writable  # noqa: PLC0415
    from headnb.display.live import LiveGrid  # noqa: PLC0415
    from headnb.models.checks import model_name  # noqa: PLC0415
    from headnb.models.loading import load_model, read_ahead  # noqa: PLC0415
    from headnb.notebook.live_scoring import distinct_tasks, joined_names, score_live  # noqa: PLC0415

    read_ahead(model)
    from headnb.scoring.progress import ScoringInterrupted  # noqa: PLC0415
    from headnb.scoring.run import check_settings  # noqa: PLC0415  loads torch

    settings = shared.chosen(shared.SETTINGS, given)
    check_settings(**settings)
    if save is not None:
        check_writable(save)
    samples = distinct_tasks([sampled_task(name, given) for name in task], task)
    loaded, tokenizer = load_model(model, **shared.chosen(shared.LOADING, given))
    out, scores = given["out"], None
    try:
        with LiveGrid(f"{model_name(loaded)} · {joined_names(samples)}") as live:
            work = shared.chosen(shared.WORK, given)
            scores = score_live(live, loaded, tokenizer, samples, **settings, **work)
            grid = live.finish(scores)
    except ScoringInterrupted as stopped:
        kept = out and stopped.done
        interrupted(f"the scores so far are in {out}; run the same command to continue" if kept else "")
    except KeyboardInterrupt:
        if scores is None:
            raise
        interrupted(f"the scores are in {out}" if out else "")
    for path in filter(None, (out, save and grid.save(save))):
        echo(f"wrote {path}")


@app.command(cls=Command)
@takes(shared.COPY, *shared.SAMPLING, shared.BATCH_TOKENS, shared.MAX_LENGTH, *shared.LOADING)
def roles(
    model: Model,
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Task for the copy score.", autocompletion=completes("task"))
    ] = None,
    save: Save = None,
    **given: Any,
) -> None:
    """Measure the roles of every attention head of MODEL, such as induction and sink."""
    from headnb.display.grid import HeadGrid, check_writable  # noqa: PLC0415
    from headnb.models.loading import load_model  # noqa: PLC0415
    from headnb.scoring.roles import head_roles  # noqa: PLC0415

    if save is not None:
        check_writable(save)
    samples = sampled_task(task, given) if task is not None else None
    loaded, tokenizer = load_model(model, **shared.chosen(shared.LOADING, given))
    work = shared.chosen(shared.ROLES, given)
    grid = HeadGrid.of(head_roles(loaded, tokenizer, samples, **work))
    echo(grid)
    if save is not None:
        echo(f"wrote {grid.save(save)}")


for _command in (changes.ablate, changes.finetune, changes.compare):
    app.command(cls=Command)(_command)


@app.command(cls=Command)
def show(
    file: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="File or URL of scores (.zarr, .nc, .parquet), several for grids side by side, or a .heads.json.",
        ),
    ],
    html: Annotated[Path | None, typer.Option(help="Write an interactive HTML page (.html).")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write a picture (.svg).")] = None,
    save: Save = None,
) -> None:
    """Show a saved grid or the patterns of saved scores, in the terminal or as a file."""
    from headnb.display.grid_text import as_text  # noqa: PLC0415

    grid = _open_grid(file)
    in_colour = sys.stdout.isatty() and encodable("▀▄", sys.stdout) == "▀▄"
    print(as_text(grid.payload, heat_map=True, colour=in_colour))  # noqa: T201  `echo` would escape the colours
    for path, ending in ((html, ".html"), (svg, ".svg"), (save, "")):
        if path is not None:
            if not path.name.endswith(ending):
                raise HeadnbError(f"the file name of {path} must end with {ending}")
            echo(f"wrote {grid.save_page(path) if path is html else grid.save(path)}")


@app.command(cls=Command)
def export(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="File or URL of scores (.zarr, .nc, .parquet) or of a grid (.heads.json)."),
    ],
    out: Annotated[
        list[Path],
        typer.Argument(metavar="OUT", help="New files: .csv, .heads.json, .png, .pdf, .svg or .html."),
    ],
) -> None:
    """Write a saved grid in other formats.

    The suffix of each new file chooses its format. Scores are written as their pattern.
    """
    from headnb.display.grid import check_writable  # noqa: PLC0415

    for path in out:
        check_writable(path)
    grid = _open_grid([file])
    for path in out:
        echo(f"wrote {grid.save(path)}")


@app.command(cls=Command)
def tasks(
    word: Annotated[
        str,
        typer.Argument(
            metavar="WORD",
            help="List only tasks with this word in name or description.",
            autocompletion=completes("word"),
        ),
    ] = "",
) -> None:
    """List the tasks that can be scored by name."""
    from headnb.notebook.tables import task_table  # noqa: PLC0415

    echo(task_table(word))


@app.command(cls=Command)
def models() -> None:
    """List common models; other hub ids, folders and GGUF files work as well."""
    from headnb.notebook.tables import model_table  # noqa: PLC0415

    echo(model_table())


@app.command(cls=Command)
def methods() -> None:
    """List the score methods."""
    from headnb.notebook.tables import method_table  # noqa: PLC0415

    echo(method_table())


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the executed notebook and its HTML page.")] = Path(
        "headnb-demo"
    ),
    model: Annotated[
        str | None, typer.Option(help="Model. Default: as in the notebook.", autocompletion=completes("model"))
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", "-n", help="Number of samples of each task.")] = None,
) -> None:
    """Run the quickstart notebook, and write the executed notebook and an HTML page of it."""
    from headnb.suite import notebooks  # noqa: PLC0415

    given: dict[str, Any] = {"model": model, "n": samples}
    parameters = {name: value for name, value in given.items() if value is not None}
    echo("running the quickstart notebook (one to two minutes on two cores)", err=True)
    source = notebooks.notebooks_folder() / notebooks.QUICKSTART
    executed = notebooks.run_notebook(source, out.resolve() / "quickstart.ipynb", parameters)
    page = notebooks.html_page(executed, executed.with_suffix(".html"))
    echo(f"executed notebook: {executed}\nHTML page:         {page}")


@app.command(cls=Command)
def doctor() -> None:
    """Report versions, devices, memory, and missing packages with the commands that install them."""
    from headnb.cli.doctor import diagnose  # noqa: PLC0415

    for finding in diagnose():
        echo(f"{finding.name:<18} {finding.found}")
        if finding.remedy:
            echo(f"{'':<18} -> {finding.remedy}", fg="yellow")


def _open_grid(files: list[str]) -> HeadGrid:
    from headnb.display.grid import HeadGrid  # noqa: PLC0415
    from headnb.notebook.arguments import is_file_or_url, one_drawable, open_drawable  # noqa: PLC0415

    for file in files:
        if not is_file_or_url(file):
            raise HeadnbError(f"{file} does not exist")
    return HeadGrid.of(one_drawable([open_drawable(file) for file in files], files))
