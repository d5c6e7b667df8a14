"""What the notebooks say below their pictures: sentences and small tables, computed from the results."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

from headnb.analysis.composition.verdict import UNCENTRED
from headnb.stats.patterns import compare
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
    """Each task's strongest heads, and those that all tasks have among their ten strongest."""
    shared = sorted(set.intersection(*(set(one.heads.top(10).index) for one in scores.values())))
    heads = "; ".join(f"{task} {', '.join(one.heads.top(3).index)}" for task, one in scores.items())
    return f"Strongest heads: {heads}. Among the ten strongest of every task: **{', '.join(shared) or 'none'}**."


def concentration_of(scores: xr.Dataset) -> dict[str, Estimate]:
    """The statistics that stand under a grid, by their labels, corrected for the number of samples."""
    samples = samples_of(scores)
    return {one.label: one.of_samples(samples) for one in CONCENTRATION.values()}


def statistics_table(scores: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """A row per task: samples, loss, Gini, coefficient of variation, kurtosis, with intervals over samples."""
    rows = {
        task: {
            "samples": one.sizes["sample"],
            "loss": f"{float(one['loss'].mean()):.2f}",
            **{label: str(found) for label, found in concentration_of(one).items()},
        }
        for task, one in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def correlation_summary(scores: Mapping[str, xr.Dataset]) -> str:
    """Which two tasks' patterns are least and most alike."""
    pairs = {pair: scores[pair[0]].heads.correlation(scores[pair[1]]) for pair in itertools.combinations(scores, 2)}
    if not pairs:
        return "There is only one task."
    ranked = sorted((pair for pair in pairs if math.isfinite(pairs[pair].value)), key=lambda pair: pairs[pair].value)
    missing = len(pairs) - len(ranked)
    unknown = [f"Of {missing} of {len(pairs)} pairs it cannot be told from so few samples."] if missing else []
    if not ranked:
        return "How alike the patterns are cannot be told from so few samples."
    lines = [
        f"{word} alike are {first} and {second}: r = **{r}**, corrected for noise."
        for word, (first, second) in (("Least", ranked[0]), ("Most", ranked[-1]))
        for r in [pairs[first, second]]
    ]
    return " ".join([*lines[: len(ranked)], *unknown])


def reliability(scores: Mapping[str, xr.Dataset]) -> str:
    """How reliable the least reliable of the patterns is, and what it would need."""
    evidence = {task: one.heads.evidence() for task, one in scores.items()}
    task = min(evidence, key=lambda name: np.nan_to_num(evidence[name].reliability, nan=-np.inf))
    return f"The least reliable pattern is that of {task}. {evidence[task].sentence}."


def training_summary(tuned: FineTuned, task: str) -> str:
    """What the loss on a task's test samples did during a fine-tuning."""
    loss = tuned.study["eval_loss"].sel(task=task)
    lowest = int(loss["step"].to_numpy()[loss.to_numpy().argmin()])
    attrs = tuned.study.attrs
    moved = float(tuned.study["movement"].isel(step=-1).mean())
    return (
        f"The loss of test samples of {task} went from **{float(loss[0]):.2f}** to **{float(loss[-1]):.2f}** nats in "
        f"{attrs['steps']} steps of {attrs['batch_size']} samples, and was lowest at step {lowest}. The parameters "
        f"moved by {moved:.2%} of their length."
    )


def change_summary(before: xr.Dataset, after: xr.Dataset) -> str:
    """What a fine-tuning did to a pattern: to its level, and to its shape."""
    shape = compare(before, after, scale_free=True)
    rose, fell = (int((shape["significant"] & (sign * shape["difference"] > 0)).sum()) for sign in (1, -1))
    levels = [float(one.heads.pattern().mean()) for one in (before, after)]
    r = before.heads.correlation(after)
    return (
        f"The mean level went from {levels[0]:.4f} to {levels[1]:.4f} nats. Relative to it {rose} heads rose and "
        f"{fell} fell significantly, of {int(shape['difference'].count())}; the "
        f"correlation of the patterns before and after is **{r}**."
    )


def losses_table(before: Mapping[str, xr.Dataset], after: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """A row per evaluated task: mean loss before and after, of the samples that were scored both times."""
    rows = {
        task: {
            "samples": one.sizes["sample"],
            "loss before": float(before[task]["loss"].sel(sample=one["sample"]).mean()),
            "loss after": float(one["loss"].mean()),
        }
        for task, one in after.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def answer_summary(result: Mapping[str, Any]) -> str:
    """How many test samples were answered right before and after, from what `finish_finetuning` returns."""
    if "accuracy_after" not in result:
        return "No answers were asked for."
    before, after = (f"{result[f'accuracy_{stage}']:.0%}" for stage in ("before", "after"))
    return f"Of {result['answers']} test samples {before} were answered right before and **{after}** after."


def shuffled_training_summary(result: Mapping[str, Any]) -> str:
    """What the loss did in a fine-tuning on shuffled answers, from what `finish_shuffled` returns."""
    loss = result["loss"]
    return (
        f"With answers of other questions the loss of test samples of {result['task']} went from "
        f"**{loss['before']:.2f}** to **{loss['after']:.2f}** nats in {result['steps']} steps of "
        f"{result['batch_size']} samples."
    )


def increased_heads(found: Selectivity, k: int = 8) -> str:
    """The heads that rose most with each task, a line per task: in nats, and relative to the mean head."""
    lines = []
    for task in map(str, found.heads["task"].values):
        of_task = []
        for scale_free in (False, True):
            table = found.rose(task, k, scale_free=scale_free)
            heads = [f"{head} ({row.difference:+.3f}, q = {row.q_value:.2g})" for head, row in table.iterrows()]
            of_task.append(", ".join(heads) or "no head rose")
        lines.append("**{}**: {}. Relative to the mean head: {}.".format(task, *of_task))
    return "\n\n".join(lines)


def forms_table(fits: Mapping[str, Mapping[str, CombinationFit]]) -> pd.DataFrame:
    """A row per complex task and form of the fit: R², what bounds it, and the best null model beside it."""
    rows = [
        {
            "target": target,
            "fitted on": form,
            "R²": fit.r2,
            f"R² {UNCENTRED}": fit.r2_uncentred,
            "layers left out": fit.r2_cv,
            "corrected": str(fit.r2_corrected),
            "ceiling": fit.ceiling,
            "best null": fit.nulls["r2"].max(),
            "which": fit.nulls["r2"].idxmax(),
        }
        for target, forms in fits.items()
        for form, fit in forms.items()
    ]
    return pd.DataFrame(rows).set_index(["target", "fitted on"])


def composition_summary(fits: Mapping[str, Mapping[str, CombinationFit]], pairs: Mapping[str, pd.DataFrame]) -> str:
    """What evidence for composition there is, the same for each form of the fit, and which two tasks fit best."""
    evidence = [next(iter(forms.values())).evidence for forms in fits.values()]
    shown = [one.target for one in evidence if one.composed]
    levels = [f"{one.target}: {one.level or 'no level reached'}" for one in evidence]
    first = f"Composition is shown for **{len(shown)} of {len(evidence)}** complex tasks ({'; '.join(levels)})."
    best = [
        f"Of all pairs {table.index[0]} fits {target} best, with R² {table['r2'].iloc[0]:.2f}."
        for target, table in pairs.items()
    ]
    return " ".join([first, *best])


def summary(contents: ReportContents) -> str:
    """A line for each finding of a report."""
    words = {True: "holds", False: "does not hold", None: "cannot be told"}
    found = [(section.title, section.finding) for section in contents.sections if section.finding]
    return "\n".join(f"- **{title}** {words[finding.supported]}: {finding.sentence}" for title, finding in found)


def speed_summary(found: Mapping[tuple[str, int], Trajectory], means: pd.DataFrame) -> str:
    """When half and nine tenths of the change are done, and in which runs the early steps are the faster ones."""
    sharp = [f"{task} (seed {seed})" for (task, seed), one in found.items() if one.early_speed.low > 1]
    return (
        f"Half of the change is done after **{means['half'].mean():.1f}** steps or "
        f"{means['samples at half'].mean():.0f} samples on average, nine tenths after "
        f"{means['nine tenths'].mean():.1f} steps. Early steps are faster than later ones beyond the noise of samples "
        f"in **{len(sharp)} of {len(found)}** runs{': ' + ', '.join(sharp) if sharp else ''}."
    )
