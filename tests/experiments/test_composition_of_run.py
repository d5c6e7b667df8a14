"""Composition from a run folder: the tasks that enter the fit, and its sentences in notebook and report."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from headnb.experiments import summaries
from headnb.experiments.findings import FORMS, combinations_of, pairs_of, power_of
from headnb.experiments.finetunings import training_seed
from headnb.experiments.report_findings import composition_section

from simulated_compositions import BASICS, TASKS, study

LABEL = "uncentred: high without composition"


@pytest.fixture(scope="module")
def run() -> SimpleNamespace:
    """Three training runs of each task, on its own answers and on shuffled answers."""
    simulated = study(np.random.default_rng(1), "composed")
    own = {"target": simulated["target"], **simulated["basics"], **simulated["others"]}
    return SimpleNamespace(
        trained=dict.fromkeys(own, (0, 1, 2)),
        pairs=own.__getitem__,
        shuffled_pairs=simulated["shuffled"].__getitem__,
        findings=SimpleNamespace(has_numbers=lambda name: False),
    )


def test_every_trained_task_enters_and_every_form_has_the_evidence(run):
    fits = combinations_of(run, "target", TASKS[1 : 1 + BASICS])
    assert list(fits) == list(FORMS)
    assert {fit.evidence.level for fit in fits.values()} == {"beyond format"}
    table = summaries.forms_table({"target": fits})
    assert f"R² {LABEL}" in table.columns
    text = summaries.composition_summary({"target": fits}, {"target": pairs_of(run, "target")})
    assert "Composition is supported for **1 of 1** complex tasks (target: beyond format)." in text
    assert "Best pair of tasks for target: a + b, R²" in text


def test_report_shows_the_uncentred_r_squared_next_to_the_published_value(run):
    section = composition_section(run, "target", TASKS[1 : 1 + BASICS], {"R² target": "0.97 (from others)"})
    assert section.finding is not None
    assert section.finding.verdict == "found"
    assert section.finding.headline == "The change of target is partly a combination of the changes of a and b."
    assert section.finding.reason == "Level of evidence: beyond format."
    papers = {number.name: number.paper for number in section.finding.numbers}
    assert papers["R² (dAP)"] == "0.97 (from others)"
    assert papers[f"R² (dAP; {LABEL})"].startswith("0.97 (from others); the paper does not state")
    evidence = section.tables[1]
    assert evidence.caption.startswith("Evidence: fractions of the error")
    assert evidence.columns == ("share", "of", "value", "low", "p")
    assert evidence.rows[0][:2] == ("gain", "change")


def test_power_of_a_run_is_that_of_its_own_trainings(run):
    found = power_of(run, "target", TASKS[1 : 1 + BASICS], replicates=2)
    assert (found.target, found.runs, found.samples) == ("target", 3, 32)
    assert "beyond format" in found.table


def test_trainings_of_two_tasks_have_different_seeds():
    seeds = {training_seed(task, seed) for task in TASKS for seed in range(5)}
    assert len(seeds) == 5 * len(TASKS)
    assert all(0 <= seed < 2**32 for seed in seeds)
