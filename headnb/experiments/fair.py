"""Command line of the fair experiment: `python -m headnb.experiments.fair reduce RUN_FOLDER` and `judge`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from headnb.experiments.fair_decision import TARGET, Study, decide_rapid, holm
from headnb.experiments.fair_results import FairResults, read_long
from headnb.experiments.fair_study import RESULTS, reduce_run
from headnb.experiments.folder import Run
from headnb.storage.files import write_json


def judge(folder: Path, replicates: int = 40) -> str:
    """Judge the compact results in a folder by the registered rule, write judgement.json, and return the sentences."""
    results = FairResults(folder)
    study = Study.of(results)
    decision = holm({TARGET: study}, replicates)[TARGET]
    seeds = results.seeds("long", TARGET)
    rapid = decide_rapid([read_long(results, TARGET, seed) for seed in seeds])
    trainings = {kind: {task: list(results.seeds(kind, task)) for task in study.own} for kind in ("own", "shuffled")}
    about = {"command": "python -m headnb.experiments.fair judge", "trainings": trainings}
    path = write_json(folder / "judgement.json", {**about, "composition": asdict(decision), "rapid": asdict(rapid)})
    counted = f"Rapid change: {rapid.verdict} ({rapid.seeds} long trainings)."
    return "\n".join([decision.sentence, counted, f"Numbers: {path}"])


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m headnb.experiments.fair", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reduce = commands.add_parser("reduce", help="write the compact results of a run folder")
    reduce.add_argument("run_folder", type=Path)
    for command in (reduce, commands.add_parser("judge", help="judge the compact results by the registered rule")):
        command.add_argument("--results", type=Path, default=RESULTS, help=f"folder of compact results ({RESULTS})")
    given = parser.parse_args()
    if given.command == "reduce":
        reduce_run(Run(given.run_folder), FairResults(given.results))
    else:
        sys.stdout.write(f"{judge(given.results)}\n")


if __name__ == "__main__":
    main()
