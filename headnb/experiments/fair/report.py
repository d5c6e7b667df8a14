"""Page about the state and the results of the fair experiment, from its compact results only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headnb.experiments.fair.decision import LEVEL, MIN_RUNS
from headnb.experiments.fair.descriptive import concentration_rows, specificity_of, tuning_agreements
from headnb.experiments.fair.results import KINDS, LONG, read_long, read_tracked
from headnb.stats.rounding import fixed
from headnb.storage.files import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headnb.experiments.fair.decision import Decision, Rapid
    from headnb.experiments.fair.design import Design, Tuning
    from headnb.experiments.fair.results import FairResults


def results_page(
    results: FairResults,
    design: Design,
    decisions: Sequence[Decision],
    rapid: Mapping[Tuning, Rapid],
    figures: Mapping[str, str],
) -> str:
    """Markdown page: what is done, what is missing, the verdicts and the numbers behind them.

    Args:
        results: compact results.
        design: the registered study.
        decisions: one for each family of the design.
        rapid: kind of tuning -> the verdict on rapid change.
        figures: question -> path of its figure, relative to the page.
    """
    primary = design.families[0]
    done = {kind: sum(min(len(results.seeds(kind, task)), MIN_RUNS) for task in primary.tasks) for kind in KINDS}
    wanted = MIN_RUNS * len(primary.tasks)
    command = f"python -m headnb.experiments.fair judge --design {design.name} --page docs/{design.name}_results.md"
    intro = f"Design and decision rule: [docs/experiment.md](experiment.md). This page is written by `{command}`."
    trained = f"{done['own']} of {wanted} trainings on own answers, {done['shuffled']} of {wanted} on shuffled answers"
    about_losses = (
        "Mean over the scored samples in nats, one value for each seed. Exact match: greedy answers to 24 samples, "
        "before and after training on own answers."
    )
    lines = [
        f"# Results of the registered study `{design.name}`",
        intro,
        f"**Done**: {trained}, {_long_trainings(rapid)}. {_rate(results)}",
        _missing(results, design),
        "## Verdicts",
        *(_composition(family.target, decision) for family, decision in zip(design.families, decisions, strict=True)),
        _figure(figures, "composition", "Shares of the change beyond Z, with one-sided limits"),
        *(_rapid(verdict, tuning) for tuning, verdict in rapid.items() if verdict.seeds or tuning == "lora"),
        _figure(figures, "half-times", "Steps to half of the change, for each length of the training"),
        "## Losses and exact match",
        about_losses,
        _losses(results, design.tasks),
        *(_half_times(results, primary.target, tuning) for tuning, verdict in rapid.items() if verdict.seeds),
        _agreement(results, primary.target),
        *_concentration(results, primary.tasks),
        _figure(figures, "concentration", "Change of the Gini coefficient, own minus shuffled answers"),
        *_specificity(results, primary.tasks),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _rate(results: FairResults) -> str:
    path = results.folder / "rate.json"
    if not path.exists():
        return "The learning rate has not been chosen yet."
    rate = read_json(path, "15_fair_training")
    losses = ", ".join(f"{_number(loss, 3)} at {name}" for name, loss in rate["losses"].items())
    chosen = f"{rate['rate']:g}" if "rate" in rate else "not chosen yet"
    return f"Learning rate: {chosen} (held-out loss of {rate['task']}: {losses})."


def _missing(results: FairResults, design: Design) -> str:
    family = design.families[0]
    counts = {task: [MIN_RUNS - len(results.seeds(kind, task)) for kind in KINDS] for task in family.tasks} | {
        f"{family.target}, long{_with_full(tuning)}": [MIN_RUNS - len(results.seeds(LONG[tuning], family.target))]
        for tuning in design.tunings
    }
    texts = [f"{task} ({' and '.join(str(max(0, n)) for n in few)})" for task, few in counts.items() if max(few) > 0]
    return f"**Missing** (trainings on own and on shuffled answers): {', '.join(texts)}." if texts else ""


def _composition(target: str, decision: Decision) -> str:
    numbers, verdict = decision.numbers, f"**{target}**. {decision.sentence}"
    if not decision.shares:
        return verdict
    rows = [
        [name, *(_number(limit[key]) for key in ("value", "low", "high")), _p_text(limit)]
        for name, limit in decision.shares.items()
    ]
    heading = ["share of e(Z)", "value", f"lower {decision.level:.1%} limit", "upper limit", "p over layers"]
    controls = {True: "found", False: "not found"}
    measured = {
        f"upper {LEVEL:.0%} limit of the gain": numbers["upper limit of the gain"],
        "residual reliability": numbers["reliability"],
        "share of simulated studies in which the spike is found": numbers["spike found"],
    }
    checks = [f"{name} {_number(value) if np.isfinite(value) else 'unknown'}" for name, value in measured.items()]
    checks += [
        f"composition of the control {task} {controls[found]}" for task, found in numbers["controls found"].items()
    ]
    about = (
        "The gain beyond format is a share of e(Z) of AP(own) − AP(shuffled), the other rows are shares of e(Z) of dAP."
    )
    return f"{verdict}\n\n{_table(heading, rows)}\n\n{about} Checks: {', '.join(checks)}."


def _p_text(limit: Mapping[str, float]) -> str:
    """The p-value of a share; a dash if the share is not known."""
    return _number(limit["p"] if np.isfinite(limit["value"]) else None, 4)


def _figure(figures: Mapping[str, str], question: str, caption: str) -> str:
    return f"![{caption}]({figures[question]})" if question in figures else ""


def _long_trainings(rapid: Mapping[Tuning, Rapid]) -> str:
    full = f" and {rapid['full'].seeds} with full fine-tuning" if rapid["full"].seeds else ""
    return f"{rapid['lora'].seeds} of {MIN_RUNS} long trainings{full}"


def _rapid(rapid: Rapid, tuning: Tuning) -> str:
    text = f"Rapid change{_with_full(tuning)}: {rapid.verdict}."
    for name, mean in (("Slope", rapid.slope), ("Log half-time over that of the loss", rapid.ahead)):
        if np.isfinite(mean.value):
            text += (
                f" {name} {fixed(mean.value)}, one-sided {LEVEL:.0%} limits {_number(mean.low)}, {_number(mean.high)}."
            )
    return text


def _losses(results: FairResults, tasks: Sequence[str]) -> str:
    rows = []
    for task in tasks:
        if not results.path("before", task).exists():
            continue
        before, about = results.before(task), results.meta("before", task, None)
        after = {
            kind: ", ".join(
                f"{float(results.after(kind, task, seed)['loss'].mean()):.3f}" for seed in results.seeds(kind, task)
            )
            for kind in KINDS
        }
        matches = [results.meta("own", task, seed).get("exact_match") for seed in results.seeds("own", task)]
        after_match = ", ".join(_number(match) for match in matches if match is not None)
        match = f"{_number(about.get('exact_match'))} → {after_match}" if after_match else ""
        rows.append([task, f"{float(before['loss'].mean()):.3f}", after["own"], after["shuffled"], match])
    heading = ["task", "loss before", "after own answers", "after shuffled answers", "exact match"]
    return _table(heading, rows) if rows else "No task has been scored yet."


def _half_times(results: FairResults, target: str, tuning: Tuning) -> str:
    """Section on the long trainings of one kind of tuning."""
    seeds = results.seeds(LONG[tuning], target)
    rows = [
        [f"{seed}", f"{row['length']:.0f}", _number(row["pattern"]), _number(row["loss"])]
        for seed in seeds
        for row in read_long(results, target, seed, tuning)
    ]
    heading = ["seed", "length of the training", "half-time of the pattern", "half-time of the loss"]
    tracked = [found for seed in seeds if (found := read_tracked(results, target, seed, tuning))]
    parts = [f"## Half-times{_with_full(tuning)}", _table(heading, rows)]
    if tracked:
        parts += ["At each tracked step, one value for each seed:", _tracked(tracked)]
    return "\n\n".join(parts)


def _with_full(tuning: Tuning) -> str:
    return " with full fine-tuning" if tuning == "full" else ""


def _tracked(trainings: Sequence[Mapping[str, Sequence[float]]]) -> str:
    columns = {"loss": 3, "exact_match": 2} if all("exact_match" in one for one in trainings) else {"loss": 3}
    rows = [
        [
            f"{step:.0f}",
            *(", ".join(_number(one[name][index], digits) for one in trainings) for name, digits in columns.items()),
        ]
        for index, step in enumerate(trainings[0]["step"])
    ]
    return _table(["step", *(name.replace("_", " ") for name in columns)], rows)


def _agreement(results: FairResults, target: str) -> str:
    """Section that compares LoRA with full fine-tuning; empty without both."""
    found = tuning_agreements(results, target)
    if not found:
        return ""
    about = (
        "Noise-corrected correlation over heads between the changes of the scale-free pattern in two long trainings: "
        "mean over pairs of trainings, with the lowest and the highest pair. Descriptive: there is no verdict."
    )
    rows = [[f"{one.step}", *map(_mean_of_pairs, (one.lora, one.full, one.across))] for one in found]
    heading = ["step", "two LoRA trainings", "two full fine-tunings", "LoRA and full"]
    return "\n\n".join(["## LoRA and full fine-tuning", about, _table(heading, rows)])


def _mean_of_pairs(values: Sequence[float]) -> str:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "–"
    missing = f", {len(values) - len(known)} unknown" if len(known) < len(values) else ""
    return f"{fixed(float(np.mean(known)))} ({fixed(min(known))} to {fixed(max(known))}{missing})"


def _concentration(results: FairResults, tasks: Sequence[str]) -> list[str]:
    rows = concentration_rows(results, tasks)
    about = (
        "Values before training and changes with 95 % intervals over samples and training runs, and the change by own "
        "minus that by shuffled answers with Student's t interval over seeds. Descriptive: there is no verdict."
    )
    heading = ["task", "statistic", "before", "change, own answers", "change, shuffled answers", "own − shuffled"]
    return ["## Concentration", about, _table(heading, rows)] if rows else []


def _specificity(results: FairResults, tasks: Sequence[str]) -> list[str]:
    found = specificity_of(results, tasks)
    about = "Scale-free patterns of the models trained on own answers. Descriptive: there is no verdict."
    return ["## Specificity", about, found.verdict] if found else []


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or np.isnan(value) else fixed(value, digits)


def _table(heading: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows))
