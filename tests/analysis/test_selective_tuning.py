"""Selective tuning on planted losses: changes on the trained task and on other tasks, and the verdict."""

from __future__ import annotations

import html

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.selective_tuning import RANDOM, TOP, SelectiveTuning
from headnb.errors import HeadnbError

TASKS, SEEDS, N = ["a", "b", "c"], [0, 1, 2], 10


def tuning(own: dict[str, float], others: dict[str, float], trained: int = 2, evaluated: int = 3) -> SelectiveTuning:
    """Losses with planted changes by method, `own` on the trained task and `others` on other tasks."""
    rng = np.random.default_rng(0)
    before = rng.gamma(4, size=(evaluated, N))
    before[-1, 7:] = np.nan
    loss = np.empty((len(own), trained, len(SEEDS), evaluated, N))
    for row, way in enumerate(own):
        for column in range(trained):
            change = np.array([own[way] if column == task else others[way] for task in range(evaluated)])
            noise = np.where(np.isnan(before), np.nan, rng.normal(size=(len(SEEDS), evaluated, N)) * 0.01)
            noise -= np.nanmean(noise, axis=(0, 2), keepdims=True)  # the means equal the planted changes
            loss[row, column] = before + change[:, None] + noise
    return SelectiveTuning(
        xr.Dataset(
            {
                "loss_before": (("evaluated", "sample"), before),
                "loss": (("way", "trained", "seed", "evaluated", "sample"), loss),
                "parameters": ("way", [0.01, 0.01, 1.0, 0.03][: len(own)]),
            },
            {"way": list(own), "trained": TASKS[:trained], "evaluated": TASKS[:evaluated], "seed": SEEDS},
            {"heads": 20, "of_heads": 270},
        )
    )


GAINS = {TOP: -0.5, RANDOM: -0.3, "all weights": -0.9, "LoRA": -0.5}
LOSSES = {TOP: 0.1, RANDOM: 0.1, "all weights": 0.4, "LoRA": 0.05}


def test_changes_are_separated_by_task() -> None:
    found = tuning(GAINS, LOSSES)
    for way, gain in GAINS.items():
        assert found.change(way, "trained task").value == pytest.approx(gain, abs=1e-9)
        assert found.change(way, "other tasks").value == pytest.approx(LOSSES[way], abs=1e-9)
    assert found.change(TOP, "trained task", RANDOM).value == pytest.approx(-0.2, abs=1e-9)
    by_hand = found.arrays["loss"].sel(way=TOP) - found.arrays["loss_before"]
    own = np.mean([by_hand.sel(trained=task, evaluated=task).mean() for task in ("a", "b")])
    assert found.changes("trained task")["value"].sel(way=TOP).item() == pytest.approx(own)
    assert found.change(TOP, "trained task").samples == 2 * N
    assert found.change(TOP, "other tasks").samples == 2 * N + 7


def test_the_verdict_follows_the_paired_intervals() -> None:
    found = tuning(GAINS, LOSSES)
    assert found.supported is True
    own, others = found.verdict.split("On the trained task, ")[1].split("On the other tasks, ")
    assert "lower than with random heads" in own
    assert "higher than with all weights" in own
    assert "not significantly different from LoRA" in own
    assert "not significantly different from random heads" in others
    assert "lower than with all weights" in others
    assert "20 of 270 heads with the highest levels (1.00% of the parameters)" in found.verdict


@pytest.mark.parametrize(("top", "holds"), [(-0.3, None), (-0.1, False)])
def test_heads_that_gain_no_more_than_random_heads_are_not_supported(top: float, holds: bool | None) -> None:
    assert tuning({**GAINS, TOP: top}, LOSSES).supported is holds


def test_one_task_alone_has_no_others() -> None:
    found = tuning({TOP: -0.5, RANDOM: -0.3}, {TOP: 0.0, RANDOM: 0.0}, trained=1, evaluated=1)
    assert found.tests == ["trained task"]
    assert "other tasks" not in found.verdict
    assert len(found.plot().plots) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((TOP, "trained tasks"), "unknown test 'trained tasks'; did you mean 'trained task'"),
        (("Lora", "trained task"), "unknown tuning method 'Lora'; known: LoRA, all weights"),
        ((TOP, "trained task", "random"), "unknown tuning method 'random'; did you mean 'random heads'"),
    ],
)
def test_unknown_names_are_refused(asked: tuple[str, ...], message: str) -> None:
    with pytest.raises(HeadnbError, match=message):
        tuning(GAINS, LOSSES).change(*asked)


def test_the_comparison_is_a_table_a_chart_and_plain_numbers(tmp_path) -> None:
    found = tuning(GAINS, LOSSES)
    assert list(found.table.index) == list(GAINS)
    assert found.table.loc["all weights", "parameters"] == "100.00%"
    assert len(found.plot().plots) == 2
    assert len(found.to_dict()["rows"]) == 8
    assert "LoRA" in repr(found)
    assert "<table" in found._repr_html_()
    assert f"<b>{found.verdict}</b>" in html.unescape(found._repr_html_())
    found.arrays.to_netcdf(tmp_path / "tuning.nc")
    with xr.open_dataset(tmp_path / "tuning.nc") as stored:
        assert SelectiveTuning(stored.load()).to_dict() == found.to_dict()
