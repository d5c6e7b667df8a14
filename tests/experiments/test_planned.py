"""Expected reliability in `headnb suite plan`, extrapolated from the last scores to other designs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from headnb.experiments import planned
from headnb.experiments.planned import planned_reliability
from headnb.suite.graph import planned_designs

from simulated_compositions import study
from suites import graph, write_suite


def as_run(monkeypatch, pairs) -> None:
    run = SimpleNamespace(trained={"a": (0, 1, 2)}, pairs=lambda _: pairs)
    monkeypatch.setattr(planned, "Run", lambda _: run)


def expected_reliability(samples: int, runs: int) -> float:
    line = planned_reliability(Path("run"), samples, runs)
    return float(line.split(": ", 1)[1].split(" ", 1)[0])


@pytest.mark.parametrize(("samples", "runs"), [(32, 3), (8, 3), (100, 2)])
def test_the_planned_reliability_is_that_of_studies_of_this_size(monkeypatch, samples, runs):
    """Mean over ten simulations: expected from 32 samples and three runs, and measured at the planned size."""
    expected, measured = [], []
    for seed in range(10):
        as_run(monkeypatch, study(np.random.default_rng(seed), "null")["basics"]["a"])
        expected.append(expected_reliability(samples, runs))
        as_run(monkeypatch, study(np.random.default_rng(100 + seed), "null", n=samples, runs=runs)["basics"]["a"])
        measured.append(expected_reliability(samples, runs))
    assert np.mean(expected) == pytest.approx(np.mean(measured), abs=0.05)


def test_without_scores_the_reliability_is_not_available(tmp_path):
    assert "is not available: " in planned_reliability(tmp_path / "none", 64, 3)


def test_one_run_has_no_variance_between_training_runs(monkeypatch):
    as_run(monkeypatch, study(np.random.default_rng(4), "null", runs=1)["basics"]["a"])
    assert "tasks with one run do not include the variance between training runs" in planned_reliability(
        Path("run"), 32, 3
    )


def test_the_design_is_that_of_the_parameters(tmp_path):
    nodes = graph(write_suite(tmp_path), tmp_path / "out")
    assert planned_designs(nodes) == {}  # these notebooks have no n
    given = [replace(node, parameters={**node.parameters, "n": 24}) for node in nodes]
    assert list(planned_designs(given).values()) == [(24, 2)]
