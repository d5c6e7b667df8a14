"""Command line of the fair experiment: `python -m headnb.experiments.fair reduce RUN_FOLDER` and `judge`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from headnb.experiments.fair.decision import Rapid, Study, decide_rapid, holm
from headnb.experiments.fair.design import DESIGNS, Design, Tuning
from headnb.experiments.fair.figures import write_figures
from headnb.experiments.fair.report import results_page
from headnb.experiments.fair.results import LONG, FairResults, read_long
from headnb.experiments.fair.study import reduce_run
from headnb.experiments.folder import Run
from headnb.storage.files import write_json


def judge(folder: Path, design: Design, page: Path | None = None, replicates: int = 40) -> str:
    """Judge the compact results in a folder by the registered rule, and return the verdicts in sentences.

    Args:
        folder: folder of compact results; judgement.json is written to it.
        design: the registered study.
        page: Markdown page to write, with what is done, what is missing, and the numbers; its figures are written to
            the folder `pictures` beside it.
        replicates: simulated studies for the spike.
    """
    results = FairResults(folder)
    results.check_steps(design.steps)
    decisions = holm([Study.of(results, family) for family in design.families], replicates)
    target = design.families[0].target
    rapid: dict[Tuning, Rapid] = {
        tuning: decide_rapid(
            [read_long(results, target, seed, tuning) for seed in results.seeds(kind, target)], design.prefixes
        )
        for tuning, kind in LONG.items()
    }
    of_family = {family.target: asdict(one) for family, one in zip(design.families, decisions, strict=True)}
    about = {"command": f"python -m headnb.experiments.fair judge --design {design.name}"}
    verdicts = {**about, "composition": of_family, "rapid": asdict(rapid["lora"])}
    if rapid["full"].seeds:
        verdicts["rapid with full fine-tuning"] = asdict(rapid["full"])
    path = write_json(folder / "judgement.json", verdicts)
    if page is not None:
        pictures = write_figures(page.parent / "pictures", results, design, decisions)
        figures = {question: f"pictures/{path.name}" for question, path in pictures.items()}
        page.write_text(results_page(results, design, decisions, rapid, figures), encoding="utf-8")
    counted = f"Rapid change: {rapid['lora'].verdict} ({rapid['lora'].seeds} long trainings)."
    lines = [f"{family.target}: {one.sentence}" for family, one in zip(design.families, decisions, strict=True)]
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
        command.add_argument("--design", choices=DESIGNS, default="fair", help="registered study (fair)")
        command.add_argument("--results", type=Path, help="folder of compact results (docs/results/DESIGN)")
    given = parser.parse_args()
    design = DESIGNS[given.design]
    folder = given.results or design.results
    if given.command == "reduce":
        reduce_run(Run(given.run_folder), FairResults(folder), design.steps)
    else:
        sys.stdout.write(f"{judge(folder, design, given.page)}\n")


if __name__ == "__main__":
    main()
