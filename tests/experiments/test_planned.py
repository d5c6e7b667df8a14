"""The reliability that `headnb suite plan` promises: that of the last scores, for other numbers of samples and runs."""

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


def as_run(monkeypatch, made) -> None:
    run = SimpleNamespace(trained={"a": (0, 1, 2)}, pairs=lambda _: made)
    monkeypatch.setattr(planned, "Run", lambda _: run)


def said(samples: int, runs: int) -> float:
    line = planned_reliability(Path("run"), samples, runs)
    return float(line.split(": ", 1)[1].split(" ", 1)[0])


@pytest.mark.parametrize(("samples", "runs"), [(32, 3), (8, 3), (100, 2)])
def test_the_planned_reliability_is_that_of_studies_of_this_size(monkeypatch, samples, runs):
    """Of ten worlds each, promised by 32 samples and three runs, and found with as many as planned."""
    promised, found = [], []
    for seed in range(10):
        as_run(monkeypatch, study(np.random.default_rng(seed), "null")["basics"]["a"])
        promised.append(said(samples, runs))
        as_run(monkeypatch, study(np.random.default_rng(100 + seed), "null", n=samples, runs=runs)["basics"]["a"])
        found.append(said(samples, runs))
    assert np.mean(promised) == pytest.approx(np.mean(found), abs=0.05)


def test_without_scores_the_plan_says_that_nothing_is_known(tmp_path):
    assert "not known before there are scores" in planned_reliability(tmp_path / "none", 64, 3)


def test_one_run_says_nothing_of_what_runs_differ_in(monkeypatch):
    as_run(monkeypatch, study(np.random.default_rng(4), "null", runs=1)["basics"]["a"])
    assert "what training runs differ in is not in it" in planned_reliability(Path("run"), 32, 3)


def test_the_design_is_that_of_the_parameters(tmp_path):
    nodes = graph(write_suite(tmp_path), tmp_path / "out")
    assert planned_designs(nodes) == {}  # these notebooks have no n
    given = [replace(node, parameters={**node.parameters, "n": 24}) for node in nodes]
    assert list(planned_designs(given).values()) == [(24, 2)]
