"""Report sections on applications: training mixtures and continual learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.analysis.mixture_effect import BASE, FITTED, NAMES, PLAIN, RANDOM
from headnb.analysis.result import signed_text
from headnb.display.charts import plots
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.report import Finding, Number, Section, Table
from headnb.experiments.continual import continual_results, forgetting_of
from headnb.experiments.mixtures import describe_fit, mixture_effect_of, mixture_results

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headnb.analysis.forgetting import Forgetting
    from headnb.analysis.mixture_effect import MixtureEffect
    from headnb.experiments.folder import Run


def application_sections(run: Run, targets: Iterable[str]) -> list[Section]:
    """Sections on the mixtures for each target and on continual learning, if the run has their results."""
    sections = [
        mixture_section(mixture_effect_of(run, target), describe_fit(run, target))
        for target in targets
        if mixture_results(run, target)
    ]
    return [*sections, *([continual_section(forgetting_of(run))] if continual_results(run) else [])]


def mixture_chart(effect: MixtureEffect) -> Chart:
    """Loss of each training minus that of plain fine-tuning, and minus that of a random mixture: one plot each."""
    changes = effect.loss_change
    parts = []
    for against in map(str, changes["against"].to_numpy()):
        others = [way for way in changes["way"].to_numpy() if way not in {BASE, against}]
        table = changes.sel(against=against, way=others).drop_vars("against")
        named = table.assign_coords(way=[NAMES[str(way)] for way in others])
        parts.append(plots.weights(named, title=f"compared with {NAMES[against]}"))
    return chart_row(*parts, title=f"{effect.target}: held-out loss after different trainings")


def mixture_section(effect: MixtureEffect, of_fit: str) -> Section:
    """Section on the effect of training on a mixture first; `of_fit` describes the evidence for the weights."""
    numbers = [
        Number(
            f"change of the loss, {NAMES[FITTED]} compared with {NAMES[baseline]}",
            signed_text(effect.loss_change.sel(against=baseline, way=FITTED)),
        )
        for baseline in (RANDOM, PLAIN)
        if FITTED in effect.loss["way"].to_numpy() and baseline in effect.loss_change["against"].to_numpy()
    ]
    return Section(
        f"Mixture for {effect.target}",
        f"Does training on the fit's mixture before {effect.target} lower the loss more than a random mixture?",
        Finding(effect.supported, effect.verdict, tuple(numbers)),
        sentences=(of_fit,),
        charts=(mixture_chart(effect),),
        tables=(_rows(effect),),
    )


def continual_section(result: Forgetting) -> Section:
    """Section on the forgetting of tasks that are learned one after another."""
    numbers = (
        Number("backward transfer, nats", signed_text(result.transfer)),
        Number("forgetting, nats", signed_text(result.mean)),
        Number("rank correlation of pattern distance and loss", result.association.value),
    )
    return Section(
        "Continual learning",
        "Are earlier tasks forgotten, and do head patterns predict which?",
        Finding(result.supported, result.verdict, numbers),
        charts=continual_charts(result),
    )


def continual_charts(result: Forgetting) -> tuple[Chart, ...]:
    """Two charts (stage by task): rise of the loss since the task was learned, and distance of its pattern."""
    later = {"stage": slice(2, None), "task": slice(None, -1)}
    rise, moved = result.rise.isel(later), result.moved.isel(later)
    return (
        plots.train_eval(rise, title="rise of the loss since the task was learned, nats"),
        plots.train_eval(moved, title="relative distance of the pattern since the task was learned"),
    )


def _rows(effect: MixtureEffect) -> Table:
    table = effect.table
    rows = tuple((str(name), *map(str, row)) for name, row in zip(table.index, table.to_numpy(), strict=True))
    return Table(("", *map(str, table.columns)), rows, "Means over samples and training runs, with 95 % intervals.")
