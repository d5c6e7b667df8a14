"""Report sections on applications: training mixtures and continual learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.analysis.mixture_effect import BASE, FITTED, NAMES, PLAIN, RANDOM
from headnb.analysis.result import signed_text
from headnb.display.charts import plots
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.report import FOUND, NOT_FOUND, UNDECIDED, Finding, Number, Section, Table
from headnb.experiments.continual import continual_results, forgetting_of
from headnb.experiments.mixtures import describe_fit, mixture_effect_of, mixture_results
from headnb.experiments.verdicts import LOSS, Answer, Effect, answer_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headnb.analysis.forgetting import Forgetting
    from headnb.analysis.mixture_effect import MixtureEffect
    from headnb.experiments.folder import Run


def application_sections(run: Run, targets: Iterable[str], papers: Mapping[str, str]) -> list[Section]:
    """Sections on the mixtures for each target and on continual learning, if the run has their results.

    `papers`: name of a number -> the paper's value.
    """
    sections = [
        mixture_section(mixture_effect_of(run, target), describe_fit(run, target), papers)
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
        parts.append(plots.weights(named, title=f"Compared with {NAMES[against]}"))
    return chart_row(*parts, title=f"Held-out loss on {effect.target} after different trainings")


def mixture_section(effect: MixtureEffect, of_fit: str, papers: Mapping[str, str]) -> Section:
    """Section on the effect of training on a mixture first; `of_fit` describes the evidence for the weights."""
    numbers = [
        Number(
            (name := f"change of the loss, {NAMES[FITTED]} compared with {NAMES[baseline]}"),
            signed_text(effect.loss_change.sel(against=baseline, way=FITTED)),
            papers.get(name, ""),
        )
        for baseline in (RANDOM, PLAIN)
        if FITTED in effect.loss["way"].to_numpy() and baseline in effect.loss_change["against"].to_numpy()
    ]
    answer, difference = mixture_answer(effect)
    headline = {
        FOUND: "The fit's mixture lowers the loss more than a random mixture",
        NOT_FOUND: "The fit's mixture does not lower the loss more than a random mixture",
        UNDECIDED: "It is undecided whether the fit's mixture lowers the loss more than a random mixture",
    }[answer.verdict]
    return Section(
        f"Mixture for {effect.target}",
        f"Does training on the fit's mixture before {effect.target} lower the loss more than a random mixture?",
        Finding(answer.verdict, f"{headline}{difference}.", answer.reason, tuple(numbers)),
        picture=mixture_chart(effect),
        sentences=(effect.verdict, of_fit),
        tables=(_rows(effect),),
    )


def mixture_answer(effect: MixtureEffect) -> tuple[Answer, str]:
    """The answer, and the difference of the losses for the headline."""
    if missing := [NAMES[way] for way in (FITTED, RANDOM) if way not in effect.loss["way"].to_numpy()]:
        return Answer(UNDECIDED, f"It was not tested: there is no training on {' and on '.join(missing)}."), ""
    change = effect.loss_change.sel(against=RANDOM, way=FITTED)
    return answer_of(Effect.of(change, -1), LOSS), f": difference {signed_text(change)} nats"


def continual_section(result: Forgetting) -> Section:
    """Section on the forgetting of tasks that are learned one after another."""
    numbers = (
        Number("backward transfer, nats", signed_text(result.transfer)),
        Number("forgetting, nats", signed_text(result.mean)),
        Number("rank correlation of pattern distance and loss", result.association.value),
    )
    answer = answer_of(Effect.of(result.transfer, -1), LOSS)
    headline = {
        FOUND: "Earlier tasks are forgotten",
        NOT_FOUND: "Earlier tasks are not forgotten",
        UNDECIDED: "It is undecided whether earlier tasks are forgotten",
    }[answer.verdict]
    rise, moved = continual_charts(result)
    return Section(
        "Continual learning",
        "Are earlier tasks forgotten, and how far do their head patterns move?",
        Finding(
            answer.verdict,
            f"{headline}: backward transfer {signed_text(result.transfer)} nats.",
            answer.reason,
            numbers,
        ),
        picture=rise,
        sentences=(result.verdict,),
        charts=(moved,),
    )


def continual_charts(result: Forgetting) -> tuple[Chart, ...]:
    """Two charts (stage by task): rise of the loss since the task was learned, and distance of its pattern."""
    later = {"stage": slice(2, None), "task": slice(None, -1)}
    rise, moved = result.rise.isel(later), result.moved.isel(later)
    return (
        plots.train_eval(rise, title="Rise of the loss since the task was learned, nats"),
        plots.train_eval(moved, title="Relative distance of the pattern since the task was learned"),
    )


def _rows(effect: MixtureEffect) -> Table:
    table = effect.table
    rows = tuple((str(name), *map(str, row)) for name, row in zip(table.index, table.to_numpy(), strict=True))
    return Table(("", *map(str, table.columns)), rows, "Means over samples and training runs, with 95 % intervals")
