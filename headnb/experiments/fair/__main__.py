"""Command line of the fair experiment: `python -m headnb.experiments.fair reduce RUN_FOLDER` and `judge`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from headnb.experiments.fair.decision import FAMILIES, PRIMARY, Study, decide_rapid, holm
from headnb.experiments.fair.report import results_page
from headnb.experiments.fair.results import FairResults, read_long
from headnb.experiments.fair.study import RESULTS, reduce_run
from headnb.experiments.folder import Run
from headnb.storage.files import write_json


def judge(folder: Path, page: Path | None = None, replicates: int = 40) -> str:
    """Judge the compact results in a folder by the registered rule, and return the verdicts in sentences.

    Args:
        folder: folder of compact results; judgement.json is written to it.
        page: Markdown page to write, with what is done, what is missing, and the numbers.
        replicates: simulated studies for the spike.
    """
    results = FairResults(folder)
    decisions = holm([Study.of(results, family) for family in FAMILIES], replicates)
    seeds = results.seeds("long", PRIMARY.target)
    rapid = decide_rapid([read_long(results, PRIMARY.target, seed) for seed in seeds])
    of_family = {family.target: asdict(one) for family, one in zip(FAMILIES, decisions, strict=True)}
    about = {"command": "python -m headnb.experiments.fair judge"}
    path = write_json(folder / "judgement.json", {**about, "composition": of_family, "rapid": asdict(rapid)})
    if page is not None:
        page.write_text(results_page(results, decisions, rapid), encoding="utf-8")
    counted = f"Rapid change: {rapid.verdict} ({rapid.seeds} long trainings)."
    lines = [f"{family.target}: {one.sentence}" for family, one in zip(FAMILIES, decisions, strict=True)]
    return "\n".join([*lines, counted, f"Numbers: {path}"])


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m headnb.experiments.fair", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reduce = commands.add_parser("reduce", help="write the compact results of a run folder")
    reduce.add_argument("run_folder", type=Path)
    judged = commands.add_parser("judge", help="judge the compact results by the registered rule")
    judged.add_argument("--page", type=Path, help="Markdown page to write")
    for command in (reduce, judged):
        command.add_argument("--results", type=Path, default=RESULTS, help=f"folder of compact results ({RESULTS})")
    given = parser.parse_args()
    if given.command == "reduce":
        reduce_run(Run(given.run_folder), FairResults(given.results))
    else:
        sys.stdout.write(f"{judge(given.results, given.page)}\n")


if __name__ == "__main__":
    main()
