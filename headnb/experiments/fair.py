"""Command line of the fair experiment: `python -m headnb.experiments.fair reduce RUN_FOLDER` and `judge`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from headnb.experiments.fair_decision import TARGET, Study, decide_rapid, holm
from headnb.experiments.fair_report import results_page
from headnb.experiments.fair_results import FairResults, read_long
from headnb.experiments.fair_study import RESULTS, reduce_run
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
    study = Study.of(results)
    decision = holm({TARGET: study}, replicates)[TARGET]
    seeds = results.seeds("long", TARGET)
    rapid = decide_rapid([read_long(results, TARGET, seed) for seed in seeds])
    trainings = {kind: {task: list(results.seeds(kind, task)) for task in study.own} for kind in ("own", "shuffled")}
    about = {"command": "python -m headnb.experiments.fair judge", "trainings": trainings}
    path = write_json(folder / "judgement.json", {**about, "composition": asdict(decision), "rapid": asdict(rapid)})
    if page is not None:
        page.write_text(results_page(results, decision, rapid), encoding="utf-8")
    counted = f"Rapid change: {rapid.verdict} ({rapid.seeds} long trainings)."
    return "\n".join([decision.sentence, counted, f"Numbers: {path}"])


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
