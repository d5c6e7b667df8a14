"""`headnb suite ...`: the experiments as a graph of notebooks, from a shell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headnb.cli.output import echo
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from headnb.suite.graph import Node
    from headnb.suite.job import Outcome

app = typer.Typer(
    help="Run the experiments' notebooks for models, tasks and seeds; a run that was stopped goes on.",
    no_args_is_help=True,
)

EXIT_INTERRUPTED = 130

File = Annotated[Path | None, typer.Argument(metavar="[SUITE.yaml]", help="Default: the one that comes with headnb.")]
Profile = Annotated[str, typer.Option(help="demo, small, paper, or another that the file has.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results. Default: runs/PROFILE.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Instead of the profile's, e.g. --set 'models=[gpt2]' --set n=64 --set 'without=[shuffled]'.",
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Notebooks at a time. Default: one for each GPU or core.")]


@app.command()
def run(
    suite: File = None,
    profile: Profile = "demo",
    out: Out = None,
    settings: Settings = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Dask cluster that sees the same files. Default: local.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Run every notebook that is not done yet; the report is the last."""
    from headnb.suite.execution import SuiteInterrupted, run_suite  # noqa: PLC0415
    from headnb.suite.tables import outcome_line  # noqa: PLC0415

    folder, nodes, _ = _graph(suite, profile, out, settings)
    ended: list[Node] = []

    def report(node: Node, outcome: Outcome | None) -> None:
        if outcome is None:
            echo(f"        {node.name}: begins", err=True)
            return
        ended.append(node)
        echo(outcome_line(node, outcome, len(ended), total), err=True)

    total = sum(not _is_done(node) for node in nodes)
    echo(f"{total} of {len(nodes)} notebooks to run, results in {folder}", err=True)
    try:
        outcomes = run_suite(nodes, folder, scheduler=scheduler, workers=workers, report=report)
    except SuiteInterrupted as stopped:
        done = sum(outcome.state == "done" for outcome in stopped.outcomes.values())
        echo(f"headnb: interrupted; {done} notebooks were done, the same command goes on", fg="red", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    for report_file in dict.fromkeys(node.run / "report.html" for node in nodes):
        if report_file.exists():
            echo(f"report: {report_file}")
    if any(outcome.state != "done" for outcome in outcomes.values()):
        raise HeadnbError("not all notebooks are done; `headnb suite status` shows which, the same command tries again")


@app.command()
def plan(
    suite: File = None,
    profile: Profile = "demo",
    out: Out = None,
    settings: Settings = None,
    workers: Workers = None,
) -> None:
    """Show the graph, what would run, time and memory by earlier runs, and how reliable the results will be."""
    from headnb.experiments.planned import planned_reliability  # noqa: PLC0415
    from headnb.suite.graph import parallel_counts, planned_designs  # noqa: PLC0415
    from headnb.suite.records import is_running, records  # noqa: PLC0415
    from headnb.suite.tables import plan_table  # noqa: PLC0415
    from headnb.suite.timings import timings  # noqa: PLC0415

    folder, nodes, about = _graph(suite, profile, out, settings)
    found = records(nodes, running=is_running(folder))
    most = workers or min(os.cpu_count() or 1, max(parallel_counts(nodes).values()))
    if about:
        echo(f"{profile}: {about}")
    echo(plan_table(nodes, found, timings(nodes), most))
    for run_folder, (samples, runs) in planned_designs(nodes).items():
        echo(planned_reliability(run_folder, samples, runs))


@app.command()
def status(suite: File = None, profile: Profile = "demo", out: Out = None, settings: Settings = None) -> None:
    """Show the graph with the state of every notebook."""
    from headnb.suite.records import is_running, records  # noqa: PLC0415
    from headnb.suite.tables import status_table  # noqa: PLC0415

    folder, nodes, _ = _graph(suite, profile, out, settings)
    echo(status_table(nodes, records(nodes, running=is_running(folder))))


def _graph(
    suite: Path | None, profile: str, out: Path | None, settings: list[str] | None
) -> tuple[Path, list[Node], str]:
    """The folder of the results, the graph, and what the profile says of itself."""
    from headnb.suite.checks import check_suite  # noqa: PLC0415
    from headnb.suite.definition import read_suite  # noqa: PLC0415
    from headnb.suite.graph import build_graph  # noqa: PLC0415
    from headnb.suite.notebooks import notebooks_folder  # noqa: PLC0415

    folder = (out or Path("runs") / profile).resolve()
    read = read_suite(suite or notebooks_folder() / "suite.yaml", profile, _values(settings or []))
    return folder, build_graph(*check_suite(read), folder), read.profile.about


def _values(settings: list[str]) -> dict[str, Any]:
    """`name=value` with the value in YAML: numbers, lists, text."""
    from headnb.suite.definition import parse_yaml  # noqa: PLC0415

    values = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise HeadnbError(f"--set {text!r:.60}: write NAME=VALUE, for instance --set steps=20")
        values[name.strip()] = parse_yaml(value, f"--set {name.strip()!r:.60}: the value")
    return values


def _is_done(node: Node) -> bool:
    from headnb.suite.records import is_done  # noqa: PLC0415

    return is_done(node)
