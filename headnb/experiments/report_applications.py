"""Sections of the report on what patterns are good for, as far as the run folder has results of them."""

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
    """Mixtures before each complex task, and tasks learned one after another."""
    sections = [
        mixture_section(mixture_effect_of(run, target), describe_fit(run, target))
        for target in targets
        if mixture_results(run, target)
    ]
    return [*sections, *([continual_section(forgetting_of(run))] if continual_results(run) else [])]


def mixture_chart(found: MixtureEffect) -> Chart:
    """The change of the loss by every way, against plain fine-tuning and against a random mixture: a row each."""
    changes = found.loss_change
    parts = []
    for against in map(str, changes["against"].to_numpy()):
        others = [way for way in changes["way"].to_numpy() if way not in {BASE, against}]
        table = changes.sel(against=against, way=others).drop_vars("against")
        named = table.assign_coords(way=[NAMES[str(way)] for way in others])
        parts.append(plots.weights(named, title=f"against {NAMES[against]}"))
    return chart_row(*parts, title=f"{found.target}: held-out loss after different trainings")


def mixture_section(found: MixtureEffect, of_fit: str) -> Section:
    """What training on a mixture first did to one complex task; `of_fit` says what the weights are worth."""
    numbers = [
        Number(
            f"loss, {NAMES[FITTED]} against {NAMES[one]}", signed_text(found.loss_change.sel(against=one, way=FITTED))
        )
        for one in (RANDOM, PLAIN)
        if FITTED in found.loss["way"].to_numpy() and one in found.loss_change["against"].to_numpy()
    ]
    return Section(
        f"Mixture for {found.target}",
        f"Does training on the mixture that the fit gives, before {found.target}, help more than a random one?",
        Finding(found.supported, found.verdict, tuple(numbers)),
        sentences=(of_fit,),
        charts=(mixture_chart(found),),
        tables=(_rows(found),),
    )


def continual_section(found: Forgetting) -> Section:
    """What became of tasks that were learned one after another."""
    numbers = (
        Number("backward transfer, nats", signed_text(found.transfer)),
        Number("forgetting, nats", signed_text(found.mean)),
        Number("rho of pattern and loss", found.association.value),
    )
    return Section(
        "Tasks one after another",
        "Are earlier tasks forgotten, and do head patterns tell which?",
        Finding(found.supported, found.verdict, numbers),
        charts=continual_charts(found),
    )


def continual_charts(found: Forgetting) -> tuple[Chart, ...]:
    """The rise of every task's loss since it was learned, and how far its pattern moved since: stage by task."""
    later = {"stage": slice(2, None), "task": slice(None, -1)}
    rise, moved = found.rise.isel(later), found.moved.isel(later)
    return (
        plots.train_eval(rise, title="rise of the loss since the task was learned, nats"),
        plots.train_eval(moved, title="distance of the pattern since then, relative"),
    )


def _rows(found: MixtureEffect) -> Table:
    table = found.table
    rows = tuple((str(name), *map(str, row)) for name, row in zip(table.index, table.to_numpy(), strict=True))
    return Table(("", *map(str, table.columns)), rows, "Means over samples and training runs, with 95 % intervals.")
