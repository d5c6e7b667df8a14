"""Report of a run folder: findings, charts, grids and provenance, rendered by `headnb.display.report`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.analysis.composition.verdict import UNCENTRED
from headnb.display.charts import plots
from headnb.display.grid import HeadGrid
from headnb.display.report import Finding, Number, ReportContents, Section, Table
from headnb.experiments.findings import (
    changes_of,
    combinations_of,
    pairs_of,
    progress_of,
    selectivity_of,
    specificity_of,
    training_curves,
    trajectories_of,
    trajectory_table,
)
from headnb.experiments.layers import layer_sections
from headnb.experiments.report_applications import application_sections
from headnb.experiments.report_choices import choice_sections
from headnb.experiments.report_methods import method_sections
from headnb.experiments.summaries import concentration_of, forms_table
from headnb.stats.rounding import NEEDS_MORE_SAMPLES
from headnb.stats.score_statistics import CONCENTRATION
from headnb.storage.checksums import report_corruption
from headnb.storage.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headnb.analysis.composition.fit import CombinationFit
    from headnb.analysis.task_selectivity import Selectivity
    from headnb.analysis.task_specificity import Specificity
    from headnb.experiments.folder import Run

BOTH = ["before", "after"]
EVIDENCE = (
    "Evidence: fractions of the error that remains after the patterns before fine-tuning, with one-sided 95 % limits."
)


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
    sections = [_patterns(run), _training(run), _concentration(selectivity_of(run), papers)]
    if len(run.trained) > 1:
        sections.append(_specificity(specificity_of(run)))
    sections += [_composition(run, target, basics, papers) for target, basics in compositions.items()]
    sections += [_rapid(run), *application_sections(run, compositions), *choice_sections(run)]
    sections += [*method_sections(run), *layer_sections(run)]
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
    seeds = max(map(len, trained.values()))
    runs = f"{seeds} training run{'s' if seeds > 1 else ''}"
    return (
        f"{len(settings.tasks)} tasks; {settings.n} samples of each are scored before and after fine-tuning; {runs} on "
        f"each of {len(trained)} tasks. Intervals cover samples and training runs."
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
        charts=(plots.distribution({task: of_task.heads.pattern() for task, of_task in scores.items()}, log=True),),
        tables=(Table(columns, rows, "Bias-corrected, with 95 % intervals."),),
        grids=(HeadGrid.of(scores),),
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
        sentences=(f"The loss on test samples fell in {fell} of {len(results)} fine-tunings.",),
        tables=(Table(columns, rows, "Test samples. The parameter distance is relative to the parameter norm."),),
    )


def _concentration(selectivity: Selectivity, papers: Mapping[str, str]) -> Section:
    change = selectivity.concentration.sel(statistic="gini", stage="change")
    down, up, of = int((change["high"] < 0).sum()), int((change["low"] > 0).sum()), change.sizes["task"]
    supported = True if down > of / 2 else False if up > of / 2 else None
    numbers = []
    for key in selectivity.concentration["statistic"].values.tolist():
        name = CONCENTRATION[key].label
        before, after = selectivity.means(key)
        known = math.isfinite(before + after)
        numbers.append(
            Number(name, f"{before:.2f} → {after:.2f}" if known else NEEDS_MORE_SAMPLES, papers.get(name, ""))
        )
    return Section(
        "Concentration",
        "Does fine-tuning make a task's pattern more even?",
        Finding(supported, selectivity.verdict, tuple(numbers)),
        charts=(
            plots.slopes(
                selectivity.concentration.sel(stage=BOTH).transpose("statistic", "task", "stage"), title="concentration"
            ),
            plots.correlation_matrix(selectivity.correlation.sel(stage=BOTH), order=selectivity.order()),
        ),
        tables=(Table.of(selectivity.table, "Bias-corrected."),),
        grids=(HeadGrid.of(changes_of(selectivity)), HeadGrid.of(changes_of(selectivity, scale_free=True))),
    )


def _specificity(specificity: Specificity) -> Section:
    models_differ, own_differs = specificity.p < 0.05, specificity.own_p < 0.05
    # A difference that is not significant may still exist: only a significant opposite order is "not supported".
    supported = (
        None if not own_differs else False if specificity.own < specificity.others else True if models_differ else None
    )
    return Section(
        "Specificity",
        "Does the change of a pattern depend on the trained task?",
        Finding(
            supported,
            specificity.verdict,
            (
                Number("relative change, trained on the evaluated task", specificity.own),
                Number("relative change, trained on another task", specificity.others),
                Number("p of the variance between models", specificity.p),
            ),
        ),
        charts=(plots.train_eval(specificity.change, title="relative change of the pattern"),),
    )


def _composition(run: Run, target: str, basics: Sequence[str], papers: Mapping[str, str]) -> Section:
    fits = combinations_of(run, target, basics)
    main = fits["dAP"]
    tables = [
        Table.of(forms_table({target: fits}).reset_index("target", drop=True), "Fit in each form."),
        *([Table.of(main.evidence.table.reset_index("of"), EVIDENCE)] if len(main.evidence.table) else []),
        Table.of(main.table, "Weights of the fit to dAP."),
        Table.of(main.nulls, "Null models of the fit to dAP."),
    ]
    if len(run.trained) > 2:
        tables.append(Table.of(pairs_of(run, target).head(10), "Fit from each pair of tasks to dAP, scale-free."))
    return Section(
        f"Composition of {target}",
        f"Is the change by fine-tuning on {target} a combination of the changes by {_join_names(basics)}?",
        # Missing evidence is not evidence against composition: "undecided", never "not supported".
        Finding(True if main.supported else None, main.verdict, tuple(_composition_numbers(fits, target, papers))),
        charts=(main.plot(),),
        tables=tuple(tables),
    )


def _composition_numbers(
    fits: Mapping[str, CombinationFit], target: str, papers: Mapping[str, str]
) -> Iterable[Number]:
    for form, fit in fits.items():
        paper = papers.get(f"R² {target}", "") if form == "dAP" else ""
        yield Number(f"R² ({form})", fit.r2, paper)
        if form == "dAP":
            ambiguous = f"{paper}; the paper does not state whether centred" if paper else ""
            yield Number(f"R² ({form}; {UNCENTRED})", fit.r2_uncentred, ambiguous)
    yield Number("R² (dAP), noise-corrected", fits["dAP"].r2_corrected)
    yield Number("noise ceiling of R² (dAP)", fits["dAP"].ceiling)


def _rapid(run: Run) -> Section:
    trajectories = trajectories_of(run)
    means = trajectory_table(trajectories)
    faster = sum(of_run.early_speed.low > 1 for of_run in trajectories.values())
    slower = sum(of_run.early_speed.high < 1 for of_run in trajectories.values())
    supported = True if faster > len(trajectories) / 2 else False if slower > len(trajectories) / 2 else None
    return Section(
        "Rapid change",
        "Do the first samples change a pattern sharply, with a small change of the parameters?",
        Finding(
            supported,
            f"The pattern changes faster in early steps than in later steps in {faster} of {len(trajectories)} runs "
            f"and more slowly in {slower}; the remaining runs are undecided (95 % intervals over samples).",
            (
                Number("half-change step", float(means["half-change step"].mean())),
                Number("samples at half-change", float(means["samples at half-change"].mean())),
                Number("90 % step", float(means["90 % step"].mean())),
                Number("parameter distance (relative)", float(means["parameter distance"].mean())),
            ),
        ),
        sentences=tuple(f"Seed {seed}. {of_run.verdict}" for (_, seed), of_run in trajectories.items()),
        charts=(
            plots.trajectory(progress_of(trajectories), title="fraction of the change completed"),
            plots.curves(
                training_curves(trajectories), along="samples_seen", log=True, title="distance to the final pattern"
            ),
        ),
        tables=(Table.of(means, "Mean over seeds; scale-free patterns."),),
    )


def _provenance(run: Run) -> dict[str, dict[str, object]]:
    """Settings, versions, and the time, memory and hardware of each notebook that the suite ran."""
    settings = run.settings
    groups: dict[str, dict[str, object]] = {
        "settings": {
            "model": settings.model,
            "tasks": ", ".join(settings.tasks),
            "samples": settings.n,
            "max_length": settings.max_length,
            "seed of the samples": settings.seed,
        },
        "versions": dict(run.versions),
    }
    if trained := run.trained:
        groups["settings"]["training seeds"] = ", ".join(map(str, sorted(set().union(*trained.values()))))
    manifests = [read_json(path, "") for path in sorted((run.folder / "notebooks").glob("[!.]*.json"))]
    if manifests:
        made_with: dict[str, set[str]] = {}
        for name, version in (
            (name, version) for manifest in manifests for name, version in manifest.get("versions", {}).items()
        ):
            made_with.setdefault(name, set()).add(version)
        groups["versions"] |= {name: ", ".join(sorted(several)) for name, several in made_with.items()}
        groups["notebooks"] = {
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


def _join_names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
