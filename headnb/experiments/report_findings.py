"""Report sections on the paper's findings: concentration, specificity, composition and rapid change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headnb.analysis.composition.verdict import UNCENTRED, join_names
from headnb.analysis.trajectories import FEWEST_STEPS, SHARP
from headnb.display.charts import plots
from headnb.display.grid import HeadGrid
from headnb.display.report import FOUND, NOT_FOUND, UNDECIDED, Finding, Number, Section, Table
from headnb.experiments.fair.decision import ABSENT
from headnb.experiments.findings import (
    changes_of,
    combinations_of,
    detection_power,
    measured_runs,
    pairs_of,
    progress_of,
    training_curves,
    trajectories_of,
    trajectory_table,
)
from headnb.experiments.summaries import forms_table
from headnb.experiments.verdicts import (
    GINI,
    Answer,
    Effect,
    answer_of_cases,
    answer_of_power,
    answer_of_test,
    answer_of_verdicts,
)
from headnb.stats.rounding import NEEDS_MORE_SAMPLES, fixed
from headnb.stats.score_statistics import CONCENTRATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headnb.analysis.composition.evidence import CompositionEvidence
    from headnb.analysis.composition.fit import CombinationFit
    from headnb.analysis.task_selectivity import Selectivity
    from headnb.analysis.task_specificity import Specificity
    from headnb.analysis.trajectories import Trajectory
    from headnb.display.report import Verdict
    from headnb.experiments.folder import Run

BOTH = ["before", "after"]
RAPID = "Rapid change"
RAPID_STARTS = {
    FOUND: "Patterns change sharply in early steps",
    NOT_FOUND: "Patterns do not change faster in early steps than in later steps",
    UNDECIDED: "It is undecided whether patterns change sharply in early steps",
}
EVIDENCE = "Evidence: fractions of the error that remains after the patterns before fine-tuning, with one-sided limits"


def concentration_section(selectivity: Selectivity, papers: Mapping[str, str]) -> Section:
    """Section on the concentration of the patterns before and after fine-tuning."""
    statistics = selectivity.concentration.sel(stage=BOTH).transpose("statistic", "task", "stage")
    labels = [CONCENTRATION[key].label for key in statistics["statistic"].values.tolist()]
    drawn = statistics.assign_coords(statistic=labels).dropna("statistic", how="all", subset=["value"])
    change = selectivity.concentration.sel(statistic="gini", stage="change")
    answer = answer_of_cases([Effect.of(change.sel(task=task), -1) for task in change["task"]], GINI, "tasks")
    start = {
        FOUND: "Fine-tuning makes the tasks' patterns more even",
        NOT_FOUND: "Fine-tuning does not make the tasks' patterns more even",
        UNDECIDED: "It is undecided whether fine-tuning makes the tasks' patterns more even",
    }[answer.verdict]
    return Section(
        "Concentration",
        "Does fine-tuning make a task's pattern more even?",
        Finding(
            answer.verdict,
            f"{start}: mean Gini coefficient {_change_of_means(selectivity, 'gini')}.",
            answer.reason,
            tuple(
                Number(label, _change_of_means(selectivity, key), papers.get(label, ""))
                for key, label in zip(statistics["statistic"].values.tolist(), labels, strict=True)
            ),
        ),
        picture=plots.slopes(drawn, title="Concentration before and after fine-tuning")
        if drawn.sizes["statistic"]
        else None,
        sentences=(selectivity.verdict,),
        charts=(
            plots.correlation_matrix(
                selectivity.correlation.sel(stage=BOTH),
                order=selectivity.order(),
                title="Correlation of the tasks' patterns",
            ),
        ),
        tables=(
            Table.of(
                selectivity.table.T.rename_axis("statistic"),
                "Statistics of each task, bias-corrected, with 95 % intervals",
            ),
        ),
        grids=(
            HeadGrid.of(changes_of(selectivity), title="Change of the levels by fine-tuning"),
            HeadGrid.of(changes_of(selectivity, scale_free=True), title="Change of the scale-free levels"),
        ),
    )


def _change_of_means(selectivity: Selectivity, statistic: str) -> str:
    """`0.50 → 0.33`: means over tasks."""
    before, after = selectivity.means(statistic)
    return f"{fixed(before)} → {fixed(after)}" if math.isfinite(before + after) else NEEDS_MORE_SAMPLES


def specificity_section(specificity: Specificity) -> Section:
    """Section on the dependence of a pattern's change on the trained task."""
    answer = specificity_answer(specificity)
    start = {
        FOUND: "A pattern changes more after training on its own task than on another",
        NOT_FOUND: "A pattern does not change more after training on its own task than on another",
        UNDECIDED: "It is undecided whether a pattern changes more after training on its own task than on another",
    }[answer.verdict]
    return Section(
        "Specificity",
        "Does the change of a pattern depend on the trained task?",
        Finding(
            answer.verdict,
            f"{start}: relative change {fixed(specificity.own)} and {fixed(specificity.others)}.",
            answer.reason,
            (
                Number("relative change, trained on the evaluated task", specificity.own),
                Number("relative change, trained on another task", specificity.others),
                Number("p of their difference", specificity.own_p),
                Number("p of the variance between models", specificity.p),
            ),
        ),
        picture=plots.train_eval(specificity.change, title="Relative change of the pattern"),
        sentences=(specificity.verdict,),
    )


def specificity_answer(specificity: Specificity) -> Answer:
    """Found if the own task changes a pattern more than other tasks do, and the models differ beyond noise."""
    tasks, alpha = specificity.change.sizes["train"], 1 - specificity.level
    least = 1 / math.factorial(tasks)
    fewest = ""
    if least >= alpha:
        fewest = f"with {tasks} tasks the smallest possible p-value is {least:.2g}, and at least 4 tasks are needed"
    answer = answer_of_test(specificity.own_p, claimed=specificity.own > specificity.others, alpha=alpha, fewest=fewest)
    if answer.verdict == FOUND and not specificity.p < alpha:
        return Answer(UNDECIDED, f"The models do not differ significantly beyond the noise of {specificity.unit}.")
    return answer


def composition_section(run: Run, target: str, basics: Sequence[str], papers: Mapping[str, str]) -> Section:
    """Section on the fit of a complex task's change from the changes of basic tasks."""
    fits = combinations_of(run, target, basics)
    main = fits["dAP"]
    answer = composition_answer(main, *detection_power(run, target))
    parts = join_names(basics)
    headline = {
        FOUND: f"The change of {target} is partly a combination of the changes of {parts}",
        NOT_FOUND: f"The change of {target} is not a combination of the changes of {parts}",
        UNDECIDED: f"It is undecided whether the change of {target} is a combination of the changes of {parts}",
    }[answer.verdict]
    tables = [
        Table.of(forms_table({target: fits}).reset_index("target", drop=True), "Fit in each form"),
        *([Table.of(main.evidence.table.reset_index("of"), EVIDENCE)] if len(main.evidence.table) else []),
        Table.of(main.table, "Weights of the fit to dAP"),
        Table.of(main.nulls, "Null models of the fit to dAP"),
    ]
    if len(run.trained) > 2:
        tables.append(Table.of(pairs_of(run, target).head(10), "Fit from each pair of tasks to dAP, scale-free"))
    return Section(
        f"Composition of {target}",
        f"Is the change from fine-tuning on {target} a combination of the changes from {parts}?",
        Finding(answer.verdict, f"{headline}.", answer.reason, tuple(_composition_numbers(fits, target, papers))),
        picture=main.plot(),
        sentences=(main.verdict,),
        tables=tuple(tables),
    )


def composition_answer(fit: CombinationFit, share: float, power: float) -> Answer:
    """Found if composition is supported; not found if no level of evidence is reached and composition is excluded.

    It is excluded if this study would have detected it (`share`, `power`) and the upper limit of the gain is low.
    """
    evidence = fit.evidence
    if fit.supported:
        return Answer(FOUND, f"Level of evidence: {evidence.level}.")
    if evidence.change is None:
        return Answer(UNDECIDED, f"It was not tested: {evidence.reason_untested}.")
    if not evidence.has_verdict:
        return Answer(
            UNDECIDED,
            "The part of the change that the patterns before fine-tuning do not explain is too noisy (reliability "
            f"{fixed(evidence.change.reliability)}). More samples or training runs are needed.",
        )
    if evidence.level:
        return Answer(UNDECIDED, f"Level of evidence: {evidence.level}. {_not_shown(evidence)}")
    answer, gain = answer_of_power(power, share), evidence.change.gain
    if answer.verdict == NOT_FOUND and not gain.high < ABSENT:
        return Answer(
            UNDECIDED, f"The upper limit of the gain is not below {ABSENT:g}, so composition is not excluded."
        )
    return answer


def _not_shown(evidence: CompositionEvidence) -> str:
    """What is not shown beyond the level of evidence that is reached, in one sentence."""
    change = evidence.change
    if change is None or change.excess is None:
        return f"The next level needs {evidence.missing}."
    if not change.has_excess:
        return "The basic tasks are not shown to explain more than other tasks do."
    missing = [name for name in evidence.basics if name not in change.contributing]
    return f"No unique contribution is shown for {join_names(missing)}."


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


def rapid_section(run: Run) -> Section:
    """Section on the speed of a pattern's change during fine-tuning."""
    question = "Do the first samples change a pattern sharply, with only a small change of the parameters?"
    tracked = [run.study(task, seed).sizes["step"] for task, seeds in run.trained.items() for seed in seeds]
    if min(tracked) < FEWEST_STEPS:
        reason = f"It needs at least {FEWEST_STEPS} tracked steps in every training; one has {min(tracked)}."
        return Section(RAPID, question, Finding(UNDECIDED, f"{RAPID_STARTS[UNDECIDED]}.", reason))
    trajectories = trajectories_of(run)
    means = trajectory_table(trajectories)
    undecided = (
        f"the 95 % interval of the early speed is missing or reaches values between 1/{SHARP} and {SHARP}, which "
        "dividing by the mean over heads may cause, or the loss reaches half of its change first"
    )
    answer = answer_of_verdicts(map(rapid_verdict, trajectories.values()), "training runs", undecided)
    samples = float(means["samples at half-change"].mean())
    measured = measured_runs(trajectories)
    half = f"half of the change is reached after {samples:.0f} samples{measured}" if math.isfinite(samples) else ""
    return Section(
        RAPID,
        question,
        Finding(
            answer.verdict,
            ": ".join(filter(None, (RAPID_STARTS[answer.verdict], half))) + ".",
            answer.reason,
            (
                Number(f"half-change step{measured}", float(means["half-change step"].mean())),
                Number(f"samples at half-change{measured}", samples),
                Number(f"90 % step{measured}", float(means["90 % step"].mean())),
                Number("parameter distance (relative)", float(means["parameter distance"].mean())),
            ),
        ),
        picture=plots.trajectory(progress_of(trajectories), title="Fraction of the change completed"),
        sentences=tuple(f"Seed {seed}. {of_run.verdict}" for (_, seed), of_run in trajectories.items()),
        charts=(
            plots.curves(
                training_curves(trajectories), along="samples_seen", log=True, title="Distance to the final pattern"
            ),
        ),
        tables=(Table.of(means, "Mean over seeds; scale-free patterns"),),
    )


def rapid_verdict(course: Trajectory) -> Verdict:
    """Found if a scale-free pattern changes sharply in early steps, and reaches half of its change before the loss.

    Dividing by the mean over heads alone gives an early speed of `course.scale`.
    """
    speed = course.early_speed
    if speed.low > max(SHARP, course.scale):
        return UNDECIDED if course.half.value >= course.half_loss else FOUND
    return NOT_FOUND if speed.high < min(1 / SHARP, course.scale) else UNDECIDED
