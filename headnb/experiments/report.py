"""Report of a run folder: findings, charts, grids and provenance, rendered by `headnb.display.report`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.display.charts import plots
from headnb.display.grid import HeadGrid
from headnb.display.report import ReportContents, Section, Table
from headnb.experiments.findings import selectivity_of, specificity_of
from headnb.experiments.layers import layer_sections
from headnb.experiments.report_applications import application_sections
from headnb.experiments.report_choices import choice_sections
from headnb.experiments.report_findings import (
    composition_section,
    concentration_section,
    rapid_section,
    specificity_section,
)
from headnb.experiments.report_methods import method_sections
from headnb.experiments.summaries import concentration_of
from headnb.experiments.transfer import transfer_section
from headnb.stats.score_statistics import CONCENTRATION
from headnb.storage.checksums import report_corruption
from headnb.storage.files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from headnb.display.charts.chart import Chart
    from headnb.experiments.folder import Run


def contents_of(
    run: Run, compositions: Mapping[str, Sequence[str]], published: Mapping[str, str] | None = None
) -> ReportContents:
    """Contents of the report of a run.

    Args:
        run: run folder with at least one fine-tuning.
        compositions: complex task -> basic tasks.
        published: name of a number in the report -> the paper's value.

    Raises:
        HeadnbError: a result is missing; the message names the notebook to run.
    """
    # The folder may come from another person: a corrupt file is reported with its path.
    with report_corruption(run.folder):
        return _contents_of(run, compositions, dict(published or {}))


def _contents_of(run: Run, compositions: Mapping[str, Sequence[str]], papers: Mapping[str, str]) -> ReportContents:
    sections = [_patterns(run), _training(run), concentration_section(selectivity_of(run), papers)]
    if len(run.trained) > 1:
        sections.append(specificity_section(specificity_of(run)))
    sections += [composition_section(run, target, basics, papers) for target, basics in compositions.items()]
    sections += [rapid_section(run), *application_sections(run, compositions, papers), *choice_sections(run)]
    sections += [*method_sections(run), *layer_sections(run)]
    if run.findings.has_arrays("transfer"):
        sections.append(transfer_section(run.findings.arrays("transfer")))
    return ReportContents(
        title=f"Attention heads of {run.settings.model} in fine-tuning",
        lead=(_introduction(run),),
        sections=tuple(sections),
        provenance=_provenance(run),
        shown_as=_names_of_paths(run),
    )


def _names_of_paths(run: Run) -> dict[str, str]:
    """Absolute path -> its last part, for model and tasks: shared reports must not show user names."""
    paths = (name for name in (run.settings.model, *run.settings.tasks) if Path(name).is_absolute())
    return {path: Path(path).name for path in paths}


def _introduction(run: Run) -> str:
    settings, trained = run.settings, run.trained
    fewest, most = (of(map(len, trained.values())) for of in (min, max))
    runs = f"{most if fewest == most else f'{fewest} to {most}'} training run{'s' if most > 1 else ''}"
    return (
        f"{len(settings.tasks)} tasks; {settings.n} samples of each are scored before and after fine-tuning; {runs} on "
        f"each of {len(trained)} tasks. Intervals cover samples{' and training runs' if fewest > 1 else ''}."
    )


def _patterns(run: Run) -> Section:
    scores = {task: run.before(task) for task in run.settings.tasks}
    rows = tuple(
        (
            task,
            of_task.sizes["sample"],
            float(of_task["loss"].mean()),
            *concentration_of(of_task).values(),
            of_task.heads.reliability(),
        )
        for task, of_task in scores.items()
    )
    columns = ("task", "samples", "loss", *(statistic.label for statistic in CONCENTRATION.values()), "reliability")
    return Section(
        "Before fine-tuning",
        "Which heads does each task use before fine-tuning?",
        picture=HeadGrid.of(scores),
        charts=(plots.distribution({task: of_task.heads.pattern() for task, of_task in scores.items()}, log=True),),
        tables=(Table(columns, rows, "Statistics of the patterns, bias-corrected, with 95 % intervals"),),
    )


def _training(run: Run) -> Section:
    results = [run.result(task, seed) for task, seeds in run.trained.items() for seed in seeds]
    rows = tuple(
        (
            result["task"],
            result["seed"],
            result["kind_of_tuning"],
            result["steps"],
            result["loss"][result["task"]]["before"],
            result["loss"][result["task"]]["after"],
            result.get("accuracy_before"),
            result.get("accuracy_after"),
            result["movement"],
        )
        for result in results
    )
    columns = (
        *("task", "seed", "tuning", "steps", "loss before", "loss after", "accuracy before", "accuracy after"),
        "parameter distance",
    )
    fell = sum(result["loss"][result["task"]]["after"] < result["loss"][result["task"]]["before"] for result in results)
    return Section(
        "Fine-tuning",
        "Does fine-tuning lower the loss on test samples?",
        statement=f"The loss on test samples fell in {fell} of {len(results)} fine-tunings.",
        picture=_loss_chart(results),
        tables=(Table(columns, rows, "Test samples; the parameter distance is relative to the parameter norm"),),
    )


def _loss_chart(results: Sequence[Mapping[str, Any]]) -> Chart:
    """Loss of each trained task before and after fine-tuning on it, mean over seeds."""
    tasks = list(dict.fromkeys(result["task"] for result in results))
    stages = ["before", "after"]
    losses = [
        [np.mean([result["loss"][task][stage] for result in results if result["task"] == task]) for stage in stages]
        for task in tasks
    ]
    coords = {"task": tasks, "stage": stages}
    return plots.slopes(xr.DataArray(losses, coords, tuple(coords)), title="Loss on test samples (nats)")


def _provenance(run: Run) -> dict[str, dict[str, object]]:
    """Settings, versions, and the time, memory and hardware of each notebook that the suite ran."""
    settings = run.settings
    groups: dict[str, dict[str, object]] = {
        "Settings": {
            "model": settings.model,
            "tasks": ", ".join(settings.tasks),
            "samples": settings.n,
            "maximal length, tokens": settings.max_length,
            "seed of the samples": settings.seed,
        },
        "Versions": dict(run.versions),
    }
    if trained := run.trained:
        groups["Settings"]["training seeds"] = ", ".join(map(str, sorted(set().union(*trained.values()))))
    manifests = [read_json(path, "") for path in sorted((run.folder / "notebooks").glob("[!.]*.json"))]
    if manifests:
        made_with: dict[str, set[str]] = {}
        for name, version in (
            (name, version) for manifest in manifests for name, version in manifest.get("versions", {}).items()
        ):
            made_with.setdefault(name, set()).add(version)
        groups["Versions"] |= {name: ", ".join(sorted(several)) for name, several in made_with.items()}
        groups["Notebooks"] = {
            str(manifest.get("node", "")): ", ".join(
                (
                    f"{manifest.get('seconds', math.nan):.0f} s",
                    f"{manifest.get('memory_mb', 0) / 1024:.1f} GB",
                    f"{manifest.get('threads', '?')} threads on {manifest.get('hardware', '?')}",
                )
            )
            for manifest in manifests
        }
    return groups
