"""Sentences and small tables that the notebooks show below their charts, computed from the results."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

from headnb.analysis.composition.verdict import UNCENTRED
from headnb.analysis.trajectories import SHARP
from headnb.experiments.findings import measured_runs
from headnb.stats.paired import compare
from headnb.stats.rounding import fixed
from headnb.stats.score_statistics import CONCENTRATION, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from headnb.analysis.composition.fit import CombinationFit
    from headnb.analysis.task_selectivity import Selectivity
    from headnb.analysis.trajectories import Trajectory
    from headnb.display.report import ReportContents
    from headnb.stats.estimates import Estimate
    from headnb.tuning.result import FineTuned


def strongest_heads(scores: Mapping[str, xr.Dataset]) -> str:
    """Top three heads of each task, and the heads that are in the top ten of every task."""
    heads = "; ".join(f"{task}: {', '.join(of_task.heads.top(3).index)}" for task, of_task in scores.items())
    return f"Top three heads by level: {heads}. {shared_heads(scores)}"


def shared_heads(scores: Mapping[str, xr.Dataset], k: int = 10) -> str:
    """The heads that are among the k strongest of every task, in the order of the first task."""
    first, *others = (of_task.heads.top(k).index for of_task in scores.values())
    shared = [head for head in first if all(head in heads for heads in others)]
    return f"In the top {k} heads of every task: **{', '.join(shared) or 'none'}**."


def concentration_of(scores: xr.Dataset) -> dict[str, Estimate]:
    """Bias-corrected concentration statistics of a pattern, by label."""
    samples = samples_of(scores)
    return {statistic.label: statistic.of_samples(samples) for statistic in CONCENTRATION.values()}


def statistics_table(scores: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """One row per task: samples, loss, Gini, coefficient of variation and kurtosis, with intervals over samples."""
    rows = {
        task: {
            "samples": of_task.sizes["sample"],
            "loss": f"{float(of_task['loss'].mean()):.2f}",
            **{label: str(estimate) for label, estimate in concentration_of(of_task).items()},
        }
        for task, of_task in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def correlation_summary(scores: Mapping[str, xr.Dataset]) -> str:
    """Pairs of tasks with the lowest and the highest correlation of their patterns."""
    pairs = {pair: scores[pair[0]].heads.correlation(scores[pair[1]]) for pair in itertools.combinations(scores, 2)}
    if not pairs:
        return "There is only one task, so no pair to compare."
    ranked = sorted((pair for pair in pairs if math.isfinite(pairs[pair].value)), key=lambda pair: pairs[pair].value)
    missing = len(pairs) - len(ranked)
    unknown = [f"Not available for {missing} of {len(pairs)} pairs: too few samples."] if missing else []
    if not ranked:
        return "Correlations between the patterns are not available: too few samples."
    if len(pairs) == 1:
        first, second = ranked[0]
        return f"The patterns of {first} and {second} have the correlation r = **{pairs[first, second]}**."
    lines = [
        f"{rank} noise-corrected correlation: {first} and {second}, r = **{pairs[first, second]}**."
        for rank, (first, second) in (("Lowest", ranked[0]), ("Highest", ranked[-1]))
    ]
    return " ".join([*lines[: len(ranked)], *unknown])


def reliability(scores: Mapping[str, xr.Dataset]) -> str:
    """Reliability of the least reliable pattern, and the number of samples that it needs."""
    evidence = {task: of_task.heads.evidence() for task, of_task in scores.items()}
    task = min(evidence, key=lambda name: np.nan_to_num(evidence[name].reliability, nan=-np.inf))
    return f"Least reliable pattern: {task}. {evidence[task].sentence}."


def training_summary(tuned: FineTuned, task: str) -> str:
    """Loss on a task's test samples during a fine-tuning, and the parameter distance."""
    loss = tuned.study["eval_loss"].sel(task=task)
    lowest = int(loss["step"].to_numpy()[loss.to_numpy().argmin()])
    attrs = tuned.study.attrs
    distance = float(tuned.study["movement"].isel(step=-1).mean())
    return (
        f"Loss on test samples of {task}: **{float(loss[0]):.2f}** nats before and **{float(loss[-1]):.2f}** nats "
        f"after {attrs['steps']} steps of {attrs['batch_size']} samples, lowest at step {lowest}. Relative parameter "
        f"distance: {distance:.2%}."
    )


def change_summary(before: xr.Dataset, after: xr.Dataset) -> str:
    """Change of a pattern by fine-tuning: its mean level, and its shape."""
    shape = compare(before, after, scale_free=True)
    rose, fell = (int((shape["significant"] & (sign * shape["difference"] > 0)).sum()) for sign in (1, -1))
    levels = [float(scores.heads.pattern().mean()) for scores in (before, after)]
    r = before.heads.correlation(after)
    return (
        f"Mean level: {levels[0]:.4f} nats before and {levels[1]:.4f} nats after fine-tuning. Relative to the mean "
        f"level, {rose} of {int(shape['difference'].count())} heads rose significantly and {fell} fell significantly. "
        f"Correlation of the patterns before and after fine-tuning: **{r}**."
    )


def losses_table(before: Mapping[str, xr.Dataset], after: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """One row per evaluated task: mean loss before and after fine-tuning, over the samples scored in both."""
    rows = {
        task: {
            "samples": of_task.sizes["sample"],
            "loss before": float(before[task]["loss"].sel(sample=of_task["sample"]).mean()),
            "loss after": float(of_task["loss"].mean()),
        }
        for task, of_task in after.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def answer_summary(result: Mapping[str, Any]) -> str:
    """Accuracy before and after fine-tuning, from the result of `finish_finetuning`."""
    if "accuracy_after" not in result:
        return "No answers were generated, so there is no accuracy."
    before, after = (f"{result[f'accuracy_{stage}']:.0%}" for stage in ("before", "after"))
    return f"Accuracy on {result['answers']} test samples: {before} before and **{after}** after fine-tuning."


def shuffled_training_summary(result: Mapping[str, Any]) -> str:
    """Loss before and after training on shuffled answers, from the result of `finish_shuffled`."""
    loss = result["loss"]
    return (
        f"Training on shuffled answers, loss on test samples of {result['task']}: **{loss['before']:.2f}** nats before "
        f"and **{loss['after']:.2f}** nats after {result['steps']} steps of {result['batch_size']} samples."
    )


def increased_heads(selectivity: Selectivity, k: int = 8) -> str:
    """Heads with the largest rise, one line per task: in nats, and relative to the mean over heads."""
    lines = []
    for task in map(str, selectivity.heads["task"].values):
        of_task = []
        for scale_free in (False, True):
            table = selectivity.rose(task, k, scale_free=scale_free)
            heads = [
                f"{head} ({fixed(row.difference, 3, '+')}, q = {row.q_value:.2g})" for head, row in table.iterrows()
            ]
            of_task.append(", ".join(heads) or "no head rose")
        lines.append("**{}**: {}. Relative to the mean over heads: {}.".format(task, *of_task))
    return "\n\n".join(lines)


def forms_table(fits: Mapping[str, Mapping[str, CombinationFit]]) -> pd.DataFrame:
    """One row per complex task and form of the fit: R², its noise ceiling, and the best null model."""
    rows = [
        {
            "target": target,
            "fitted on": form,
            "R²": fit.r2,
            f"R² {UNCENTRED}": fit.r2_uncentred,
            "R² leave-layers-out": fit.r2_cv,
            "R² noise-corrected": str(fit.r2_corrected),
            "noise ceiling": fit.ceiling,
            "R² of the best null": fit.nulls["r2"].max(),
            "best null": fit.nulls["r2"].idxmax(),
        }
        for target, forms in fits.items()
        for form, fit in forms.items()
    ]
    return pd.DataFrame(rows).set_index(["target", "fitted on"])


def composition_summary(fits: Mapping[str, Mapping[str, CombinationFit]], pairs: Mapping[str, pd.DataFrame]) -> str:
    """Evidence for composition (the same for each form of the fit), and the pair of tasks with the best fit."""
    evidence = [next(iter(forms.values())).evidence for forms in fits.values()]
    supported = sum(of_target.composed for of_target in evidence)
    levels = [f"{of_target.target}: {of_target.level or 'no level reached'}" for of_target in evidence]
    first = f"Composition is supported for **{supported} of {len(evidence)}** complex tasks ({'; '.join(levels)})."
    best = [
        f"Best pair of tasks for {target}: {table.index[0]}, R² {fixed(table['r2'].iloc[0])}."
        for target, table in pairs.items()
    ]
    return " ".join([first, *best])


def summary(contents: ReportContents) -> str:
    """One line for each finding of a report."""
    findings = [(section.title, section.finding) for section in contents.sections if section.finding]
    return "\n".join(f"- **{title}**: {finding.verdict}. {finding.headline}" for title, finding in findings)


def speed_summary(trajectories: Mapping[tuple[str, int], Trajectory], means: pd.DataFrame) -> str:
    """Steps at 50 % and 90 % of the change, and the runs with a sharp early change."""
    sharp = [f"{task} (seed {seed})" for (task, seed), course in trajectories.items() if course.early_speed.low > SHARP]
    half, samples, ninety = (means[name].mean() for name in ("half-change step", "samples at half-change", "90 % step"))
    if math.isnan(half):
        return "No pattern changes beyond noise."
    return (
        f"Mean over tasks{measured_runs(trajectories)}: half of the change is reached after **{half:.1f}** steps "
        f"({samples:.0f} samples), 90 % after {ninety:.1f} steps. The change per step in early steps is more than "
        f"{SHARP} times that in later steps (95 % interval over samples) in **{len(sharp)} of {len(trajectories)}** "
        f"runs{': ' + ', '.join(sharp) if sharp else ''}."
    )
