"""Report sections on instruction selection and selective tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.analysis.selection.study import SelectionStudy
from headnb.analysis.selective_tuning import TOP, SelectiveTuning
from headnb.display.report import Finding, Number, Section, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.experiments.folder import Run


def choice_sections(run: Run) -> Iterator[Section]:
    """A section for each of the findings `instruction_selection` and `selective_tuning` that exists."""
    if run.findings.has_arrays("instruction_selection"):
        yield _selection(SelectionStudy(run.findings.arrays("instruction_selection")))
    if run.findings.has_arrays("selective_tuning"):
        yield _selective(SelectiveTuning(run.findings.arrays("selective_tuning")))


def _selection(study: SelectionStudy) -> Section:
    attrs = study.arrays.attrs
    return Section(
        "Instruction selection",
        "Do head patterns select samples of the target's task from a pool better than text similarity does?",
        Finding(
            study.supported,
            study.verdict,
            tuple(
                Number(f"precision at {study.most}, {way}", study.precision_of(way, study.most)) for way in study.ways
            ),
        ),
        charts=(study.plot(),),
        tables=(
            _texts(
                study.table,
                f"Pool: {attrs['pool_samples']} training samples per task; {attrs['target_samples']} samples per "
                "target. Intervals of the precision are over targets.",
            ),
        ),
    )


def _selective(tuning: SelectiveTuning) -> Section:
    return Section(
        "Selective tuning",
        "Does training only the top heads of a task lower its loss more than training random heads?",
        Finding(
            tuning.supported,
            tuning.verdict,
            tuple(Number(f"change of the loss, {way}", tuning.change(way, "trained task")) for way in tuning.ways),
        ),
        charts=(tuning.plot(),),
        tables=(_texts(tuning.table, f"Losses in nats; the {TOP} have the highest activation levels."),),
    )


def _texts(table: pd.DataFrame, caption: str) -> Table:
    columns = (str(table.index.name), *map(str, table.columns))
    return Table(columns, tuple((str(row[0]), *map(str, row[1:])) for row in table.itertuples()), caption)
