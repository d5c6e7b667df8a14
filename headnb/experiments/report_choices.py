"""Report sections on instruction selection and selective tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.analysis.selection.study import SelectionStudy
from headnb.analysis.selective_tuning import RANDOM, TESTS, TOP, SelectiveTuning
from headnb.analysis.training_means import format_estimate
from headnb.display.report import FOUND, NOT_FOUND, UNDECIDED, Finding, Number, Section, Table
from headnb.experiments.verdicts import LOSS, PRECISION, Answer, Effect, answer_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.experiments.folder import Run

CHANGES = "Change of the target's held-out samples by fine-tuning; intervals are over samples and training seeds"


def choice_sections(run: Run) -> Iterator[Section]:
    """A section for each of the findings `instruction_selection` and `selective_tuning` that exists."""
    if run.findings.has_arrays("instruction_selection"):
        yield _selection(SelectionStudy(run.findings.arrays("instruction_selection")))
    if run.findings.has_arrays("selective_tuning"):
        yield _selective(SelectiveTuning(run.findings.arrays("selective_tuning")))


def _selection(study: SelectionStudy) -> Section:
    attrs = study.arrays.attrs
    way, baseline = study.ways[0], study.baseline
    answer, difference = Answer(UNDECIDED, "It was not compared with another method."), ""
    if baseline:
        found = study.precision_of(way, study.most, baseline)
        answer, difference = answer_of(Effect.of(found), PRECISION), f": difference {format_estimate(found)}"
    other = baseline or "text similarity"
    headline = {
        FOUND: f"Selection by {way} is more precise than by {other}",
        NOT_FOUND: f"Selection by {way} is not more precise than by {other}",
        UNDECIDED: f"It is undecided whether selection by {way} is more precise than by {other}",
    }[answer.verdict]
    return Section(
        "Instruction selection",
        "Do head patterns select samples of the target's task from a pool better than text similarity does?",
        Finding(
            answer.verdict,
            f"{headline}{difference}.",
            answer.reason,
            tuple(
                Number(f"precision at {study.most}, {way}", study.precision_of(way, study.most)) for way in study.ways
            ),
        ),
        picture=study.plot(),
        sentences=(study.verdict,),
        tables=(
            _texts(
                study.table,
                f"Pool of {attrs['pool_samples']} training samples per task, {attrs['target_samples']} samples per "
                "target; intervals of the precision are over targets",
            ),
            *([_texts(study.changes_table.reset_index().set_index("trained on"), CHANGES)] if study.trainings else []),
        ),
    )


def _selective(tuning: SelectiveTuning) -> Section:
    change = tuning.change(TOP, TESTS[0], RANDOM)
    answer = answer_of(Effect.of(change, -1), LOSS)
    headline = {
        FOUND: "Training the top heads lowers the loss more than training random heads",
        NOT_FOUND: "Training the top heads does not lower the loss more than training random heads",
        UNDECIDED: "It is undecided whether training the top heads lowers the loss more than training random heads",
    }[answer.verdict]
    return Section(
        "Selective tuning",
        "Does training only the top heads of a task lower its loss more than training random heads?",
        Finding(
            answer.verdict,
            f"{headline}: difference {format_estimate(change)} nats.",
            answer.reason,
            tuple(Number(f"change of the loss, {way}", tuning.change(way, TESTS[0])) for way in tuning.ways),
        ),
        picture=tuning.plot(),
        sentences=(tuning.verdict,),
        tables=(_texts(tuning.table, f"Losses in nats; the {TOP} have the highest activation levels"),),
    )


def _texts(table: pd.DataFrame, caption: str) -> Table:
    columns = (str(table.index.name), *map(str, table.columns))
    return Table(columns, tuple((str(row[0]), *map(str, row[1:])) for row in table.itertuples()), caption)
