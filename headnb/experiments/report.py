"""The report of a run folder: its findings, charts, grids and provenance as `headnb.display.report` shows them."""

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
EVIDENCE = "Evidence: shares of the error that the patterns before fine-tuning leave, with one-sided 95 % limits."


def contents_of(
    run: Run, compositions: Mapping[str, Sequence[str]], published: Mapping[str, str] | None = None
) -> ReportContents:
    """Everything that a run found.

    Args:
        run: the folder, with at least one fine-tuning.
        compositions: complex task -> the basic ones it may be made of.
        published: name of a number in the report -> what the paper gives for it.

    Raises:
        HeadnbError: something is missing; the message says which notebook makes it.
    """
    # The folder may be a stranger's: what is not as the notebooks write it is named.
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
    """The last part of each path among the run's model and tasks: reports are shared, and paths name people."""
    paths = (name for name in (run.settings.model, *run.settings.tasks) if Path(name).is_absolute())
    return {path: Path(path).name for path in paths}


def _introduction(run: Run) -> str:
    settings, trained = run.settings, run.trained
    seeds = max(map(len, trained.values()))
    runs = f"{seeds} training run{'s' if seeds > 1 else ''}"
    return (
        f"{len(settings.tasks)} tasks, {settings.n} samples of each scored before and after fine-tuning, {runs} for "
        f"each of {len(trained)} tasks. Intervals are over samples and training runs."
    )


def _patterns(run: Run) -> Section:
    scores = {task: run.before(task) for task in run.settings.tasks}
    rows = tuple(
        (
            task,
            one.sizes["sample"],
            float(one["loss"].mean()),
            *concentration_of(one).values(),
            one.heads.reliability(),
        )
        for task, one in scores.items()
    )
    columns = ("task", "samples", "loss", *(one.label for one in CONCENTRATION.values()), "reliability")
    return Section(
        "Before fine-tuning",
        "Which heads does each task use before fine-tuning?",
        charts=(plots.distribution({task: one.heads.pattern() for task, one in scores.items()}, log=True),),
        tables=(Table(columns, rows, "Corrected for the number of samples, with 95 % intervals."),),
        grids=(HeadGrid.of(scores),),
    )


def _training(run: Run) -> Section:
    results = [run.result(task, seed) for task, seeds in run.trained.items() for seed in seeds]
    rows = tuple(
        (
            one["task"],
            one["seed"],
            one["kind_of_tuning"],
            one["steps"],
            one["loss"][one["task"]]["before"],
            one["loss"][one["task"]]["after"],
            one.get("accuracy_before"),
            one.get("accuracy_after"),
            one["movement"],
        )
        for one in results
    )
    columns = (
        *("task", "seed", "tuning", "steps", "loss before", "loss after", "right before", "right after"),
        "parameters moved",
    )
    fell = sum(one["loss"][one["task"]]["after"] < one["loss"][one["task"]]["before"] for one in results)
    return Section(
        "Fine-tuning",
        "What was learnt?",
        sentences=(f"The loss of test samples fell in {fell} of {len(results)} fine-tunings.",),
        tables=(Table(columns, rows, "Test samples; the parameters' distance is relative to their length."),),
    )


def _concentration(found: Selectivity, papers: Mapping[str, str]) -> Section:
    change = found.concentration.sel(statistic="gini", stage="change")
    down, up, of = int((change["high"] < 0).sum()), int((change["low"] > 0).sum()), change.sizes["task"]
    holds = True if down > of / 2 else False if up > of / 2 else None
    numbers = []
    for key in found.concentration["statistic"].values.tolist():
        name = CONCENTRATION[key].label
        before, after = found.means(key)
        known = math.isfinite(before + after)
        numbers.append(
            Number(name, f"{before:.2f} → {after:.2f}" if known else NEEDS_MORE_SAMPLES, papers.get(name, ""))
        )
    return Section(
        "Concentration",
        "Does fine-tuning make a task's pattern more even?",
        Finding(holds, found.verdict, tuple(numbers)),
        charts=(
            plots.slopes(
                found.concentration.sel(stage=BOTH).transpose("statistic", "task", "stage"), title="concentration"
            ),
            plots.correlation_matrix(found.correlation.sel(stage=BOTH), order=found.order()),
        ),
        tables=(Table.of(found.table, "Corrected for the number of samples."),),
        grids=(HeadGrid.of(changes_of(found)), HeadGrid.of(changes_of(found, scale_free=True))),
    )


def _specificity(found: Specificity) -> Section:
    differ, apart = found.p < 0.05, found.own_p < 0.05
    # A difference that is not significant is not shown to be absent: only the opposite order is a "no".
    holds = None if not apart else False if found.own < found.others else True if differ else None
    return Section(
        "Specificity",
        "Does it matter which task a model was trained on?",
        Finding(
            holds,
            found.verdict,
            (
                Number("change by training on the task itself", found.own),
                Number("by training on another", found.others),
                Number("p of the variance between models", found.p),
            ),
        ),
        charts=(plots.train_eval(found.change, title="relative change of the pattern"),),
    )


def _composition(run: Run, target: str, basics: Sequence[str], papers: Mapping[str, str]) -> Section:
    fits = combinations_of(run, target, basics)
    main = fits["dAP"]
    tables = [
        Table.of(forms_table({target: fits}).reset_index("target", drop=True), "The fit in each form."),
        *([Table.of(main.evidence.table.reset_index("of"), EVIDENCE)] if len(main.evidence.table) else []),
        Table.of(main.table, "Weights of the fit to dAP."),
        Table.of(main.nulls, "Null models of the fit to dAP."),
    ]
    if len(run.trained) > 2:
        tables.append(Table.of(pairs_of(run, target).head(10), "The fit from every two tasks: dAP, scale-free."))
    return Section(
        f"Composition of {target}",
        f"Is what fine-tuning on {target} changes made of what {_join_names(basics)} change?",
        # What is not shown is not shown to be absent.
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
            unknown = f"{paper}; which R² this is, is not known" if paper else ""
            yield Number(f"R² ({form}; {UNCENTRED})", fit.r2_uncentred, unknown)
    yield Number("R² (dAP), corrected for noise", fits["dAP"].r2_corrected)
    yield Number("ceiling of R² (dAP)", fits["dAP"].ceiling)


def _rapid(run: Run) -> Section:
    found = trajectories_of(run)
    means = trajectory_table(found)
    sharp = sum(one.early_speed.low > 1 for one in found.values())
    slow = sum(one.early_speed.high < 1 for one in found.values())
    holds = True if sharp > len(found) / 2 else False if slow > len(found) / 2 else None
    return Section(
        "Rapid change",
        "Is a pattern changed sharply by the first samples, while the parameters hardly move?",
        Finding(
            holds,
            f"Early steps changed the pattern faster than later ones in {sharp} of {len(found)} runs beyond the noise "
            f"of samples, more slowly in {slow}.",
            (
                Number("steps to half of the change", float(means["half"].mean())),
                Number("samples to half of the change", float(means["samples at half"].mean())),
                Number("steps to nine tenths", float(means["nine tenths"].mean())),
                Number("distance of the parameters", float(means["parameters moved"].mean())),
            ),
        ),
        sentences=tuple(f"Seed {seed}. {one.verdict}" for (_, seed), one in found.items()),
        charts=(
            plots.trajectory(progress_of(found), title="share of the change that is done"),
            plots.curves(training_curves(found), along="samples_seen", log=True, title="the way to the final pattern"),
        ),
        tables=(Table.of(means, "Mean over seeds; scale-free patterns."),),
    )


def _provenance(run: Run) -> dict[str, dict[str, object]]:
    """Settings, versions, and where and how long the notebooks ran, as far as the suite wrote it down."""
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
            (name, version) for one in manifests for name, version in one.get("versions", {}).items()
        ):
            made_with.setdefault(name, set()).add(version)
        groups["versions"] |= {name: ", ".join(sorted(several)) for name, several in made_with.items()}
        groups["notebooks"] = {
            str(one.get("node", "")): f"{one.get('seconds', math.nan):.0f} s, {one.get('memory_mb', 0) / 1024:.1f} GB, "
            f"{one.get('threads', '?')} threads on {one.get('hardware', '?')}"
            for one in manifests
        }
    return groups


def _join_names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
