"""Command `headnb suite ...`: run the experiments, a graph of notebooks, from a shell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headnb.cli.commands import Command
from headnb.cli.output import echo, interrupted
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from headnb.suite.graph import Node
    from headnb.suite.job import Outcome

app = typer.Typer(
    help="Run the notebooks of the experiments for models, tasks and seeds; an interrupted run resumes.",
    no_args_is_help=True,
)

File = Annotated[Path | None, typer.Argument(metavar="[SUITE.yaml]", help="Suite file. Default: the suite of headnb.")]
Profile = Annotated[
    str, typer.Option(help="Profile of the suite file: demo, small, paper, or another profile of the file.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the results. Default: runs/PROFILE.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Replace a value of the profile, e.g. --set 'models=[gpt2]' --set n=64 --set 'without=[shuffled]'.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of notebooks to run in parallel, at most one per GPU, or one per core without a GPU. Default: as "
        "many as can run.",
    ),
]


@app.command(cls=Command)
def run(
    suite: File = None,
    profile: Profile = "demo",
    out: Out = None,
    settings: Settings = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Address of a Dask cluster with access to the same files. Default: a local cluster."
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """Run every notebook that is not done yet; the last one writes the report."""
    from headnb.suite.execution import SuiteInterrupted, run_suite  # noqa: PLC0415
    from headnb.suite.tables import outcome_line  # noqa: PLC0415

    folder, nodes, _ = _graph(suite, profile, out, settings)
    ended: list[Node] = []

    def report(node: Node, outcome: Outcome | None) -> None:
        if outcome is None:
            echo(f"        {node.name}: started", err=True)
            return
        ended.append(node)
        echo(outcome_line(node, outcome, len(ended), total), err=True)

    total = sum(not _is_done(node) for node in nodes)
    echo(f"{total} of {len(nodes)} notebooks to run, results in {folder}", err=True)
    try:
        outcomes = run_suite(nodes, folder, scheduler=scheduler, workers=workers, report=report)
    except SuiteInterrupted as stopped:
        done = sum(outcome.state == "done" for outcome in stopped.outcomes.values())
        interrupted(f"{done} notebooks finished; run the same command again to resume")
    for report_file in dict.fromkeys(node.run / "report.html" for node in nodes):
        if report_file.exists():
            echo(f"report: {report_file}")
    if any(outcome.state != "done" for outcome in outcomes.values()):
        raise HeadnbError(
            "not all notebooks are done; see `headnb suite status`, then run the same command again to retry"
        )


@app.command(cls=Command)
def plan(
    suite: File = None,
    profile: Profile = "demo",
    out: Out = None,
    settings: Settings = None,
    workers: Workers = None,
) -> None:
    """Show the notebooks to run, expected time and memory from earlier runs, and the expected reliability."""
    from headnb.experiments.planned import planned_reliability  # noqa: PLC0415
    from headnb.suite.execution import local_workers  # noqa: PLC0415
    from headnb.suite.graph import planned_designs  # noqa: PLC0415
    from headnb.suite.records import is_running, node_id, records  # noqa: PLC0415
    from headnb.suite.tables import plan_table  # noqa: PLC0415
    from headnb.suite.timings import timings  # noqa: PLC0415

    folder, nodes, about = _graph(suite, profile, out, settings)
    node_records = records(nodes, running=is_running(folder))
    todo = [node for node in nodes if node_records[node_id(node)].state != "done"]
    if about:
        echo(f"{profile}: {about}")
    echo(plan_table(nodes, node_records, timings(nodes), local_workers(todo, workers)))
    for run_folder, (samples, runs) in planned_designs(nodes).items():
        echo(planned_reliability(run_folder, samples, runs))


@app.command(cls=Command)
def status(suite: File = None, profile: Profile = "demo", out: Out = None, settings: Settings = None) -> None:
    """Show the state of every notebook."""
    from headnb.suite.records import is_running, records  # noqa: PLC0415
    from headnb.suite.tables import status_table  # noqa: PLC0415

    folder, nodes, _ = _graph(suite, profile, out, settings)
    echo(status_table(nodes, records(nodes, running=is_running(folder))))


def _graph(
    suite: Path | None, profile: str, out: Path | None, settings: list[str] | None
) -> tuple[Path, list[Node], str]:
    """Folder of the results, the graph, and the description of the profile."""
    from headnb.suite.checks import check_suite  # noqa: PLC0415
    from headnb.suite.definition import read_suite  # noqa: PLC0415
    from headnb.suite.graph import build_graph  # noqa: PLC0415
    from headnb.suite.notebooks import notebooks_folder  # noqa: PLC0415

    folder = (out or Path("runs") / profile).resolve()
    try:
        values = _values(settings or [])
    except HeadnbError as error:
        raise typer.BadParameter(str(error)) from None
    read = read_suite(suite or notebooks_folder() / "suite.yaml", profile, values)
    return folder, build_graph(*check_suite(read), folder), read.profile.about


def _values(settings: list[str]) -> dict[str, Any]:
    """Parse `NAME=VALUE` settings; a value is YAML (number, list, text)."""
    from headnb.suite.definition import parse_yaml  # noqa: PLC0415

    values = {}
    for text in settings:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise HeadnbError(f"--set {text!r:.60} must be NAME=VALUE, for instance --set steps=20")
        if name in values:
            raise HeadnbError(f"--set {name!r:.60} is given twice")
        values[name] = parse_yaml(value, f"--set {name!r:.60}: the value")
    return values


def _is_done(node: Node) -> bool:
    from headnb.suite.records import is_done  # noqa: PLC0415

    return is_done(node)
