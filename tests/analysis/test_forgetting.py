"""Sequential fine-tuning: numbers against loops over the definitions, and detection of planted forgetting."""

from __future__ import annotations

import json

import numpy as np
import pytest
from headnb.analysis.forgetting import Forgetting, forgetting
from headnb.errors import HeadnbError
from scipy import stats

from simulated_finetuning import scores_of

ORDER = ["a", "b", "c", "d"]
N = 12


def sequence(seed: int, losses: np.ndarray, moved: np.ndarray | None = None, noise: float = 0.02) -> list[dict]:
    """One run with mean losses (stage, task), and with each pattern moved by `moved` along its own direction."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(7)
    origins = fixed.lognormal(sigma=0.5, size=(len(ORDER), 3, 4))
    ways = fixed.standard_normal((len(ORDER), 3, 4))
    difficulty = fixed.gamma(9, 1 / 9, (len(ORDER), N))
    moved = np.zeros_like(losses) if moved is None else moved
    run = []
    for stage in range(len(ORDER) + 1):
        of_stage = {}
        for place, task in enumerate(ORDER):
            pattern = origins[place] * np.exp(moved[stage, place] * ways[place])
            levels = pattern * rng.gamma(noise**-2, noise**2, (N, 3, 4))
            loss = losses[stage, place] * difficulty[place] + noise * rng.standard_normal(N)
            of_stage[task] = scores_of(levels, task).assign(loss=("sample", loss))
        run.append(of_stage)
    return run


LOSSES = np.array(
    [
        [3.0, 3.0, 3.0, 3.0],
        [1.0, 2.8, 2.9, 2.9],
        [0.8, 1.5, 2.9, 2.9],
        [1.4, 1.9, 1.0, 2.8],
        [1.6, 1.6, 1.7, 0.5],
    ]
)


def found_of(losses: np.ndarray = LOSSES, runs: int = 3, **more) -> Forgetting:
    return forgetting(ORDER, [sequence(seed, losses, **more) for seed in range(runs)])


def test_numbers_are_those_of_loops_over_the_definitions() -> None:
    runs = [sequence(seed, LOSSES) for seed in range(2)]
    found = forgetting(ORDER, runs)
    mean = np.array([[np.mean([run[k][t]["loss"].mean() for run in runs]) for t in ORDER] for k in range(5)])
    np.testing.assert_allclose(found.loss["value"], mean)
    for j, task in enumerate(ORDER[:-1]):
        lowest = min(mean[stage, j] for stage in range(j + 1, 4))
        assert float(found.forgotten["value"].sel(task=task)) == pytest.approx(mean[4, j] - lowest)
        for k in range(5):
            rise = float(found.rise["value"].isel(stage=k, task=j))
            assert np.isnan(rise) if k < j + 1 else rise == pytest.approx(mean[k, j] - mean[j + 1, j])
    assert float(found.transfer["value"]) == pytest.approx(np.mean([mean[j + 1, j] - mean[4, j] for j in range(3)]))
    assert float(found.mean["value"]) == pytest.approx(float(found.forgotten["value"].mean()))
    assert (found.samples, found.runs, found.association.pairs) == (N, 2, 6)
    patterns = [[[np.abs(run[k][t]["score"].values).mean(axis=0) for t in ORDER] for k in range(5)] for run in runs]
    shapes = np.array([[[one / one.mean() for one in stage] for stage in run] for run in patterns])
    moved, rose = [], []
    for k in range(1, 4):
        for j in range(k):
            steps = [np.linalg.norm(run[k + 1, j] - run[k, j]) / np.linalg.norm(run[k, j] - 1) for run in shapes]
            moved.append(np.mean(steps))
            rose.append(mean[k + 1, j] - mean[k, j])
    assert found.association.value == pytest.approx(stats.spearmanr(moved, rose).statistic)


def test_intervals_of_one_run_are_the_paired_t_intervals() -> None:
    (run,) = [sequence(0, LOSSES)]
    found = forgetting(ORDER, [run])
    rises = np.array(
        [run[4][task]["loss"].values - run[j + 1][task]["loss"].values for j, task in enumerate(ORDER[:-1])]
    )
    low, high = stats.t.interval(0.95, N - 1, -rises.mean(), stats.sem(rises.mean(axis=0)))
    np.testing.assert_allclose([found.transfer["low"], found.transfer["high"]], [low, high])


def test_moved_is_the_relative_distance_since_the_task_was_learned() -> None:
    run = sequence(0, LOSSES, np.linspace(0, 0.4, 5)[:, None] * np.ones(4))
    found = forgetting(ORDER, [run])
    shapes = [np.abs(run[stage]["b"]["score"].values).mean(axis=0) for stage in (2, 4)]
    first, last = (shape / shape.mean() for shape in shapes)
    expected = np.sqrt(((last - first) ** 2).sum() / ((first - 1) ** 2).sum())
    assert float(found.moved.sel(task="b", stage="after d")) == pytest.approx(expected)
    assert found.moved.sel(task="b").isnull().values.tolist() == [True, True, False, False, False]


def test_planted_forgetting_is_found_and_so_is_its_absence() -> None:
    planted = found_of()
    assert planted.supported is True
    assert "Earlier tasks are forgotten" in planted.verdict
    better = np.minimum.accumulate(LOSSES, axis=0) - 0.1 * np.arange(5)[:, None]
    assert found_of(better).supported is False
    assert "Forgetting is largest for" in planted.verdict
    assert "Forgetting is largest" not in found_of(better).verdict
    same = np.where(np.arange(5)[:, None] > np.arange(4), 1.0, 3.0)
    found = [forgetting(ORDER, [sequence(10 * trial + run, same) for run in range(3)]) for trial in range(5)]
    assert sum(one.supported is None for one in found) >= 4
    assert "No evidence that earlier tasks are forgotten" in next(one for one in found if one.supported is None).verdict


def test_association_is_high_only_where_patterns_move_with_losses() -> None:
    order = [f"t{place}" for place in range(7)]
    rng = np.random.default_rng(3)
    rises = rng.gamma(2, 0.2, (8, 7))
    losses = np.cumsum(np.where(np.arange(8)[:, None] > np.arange(7) + 1, rises, 0), axis=0) + 1

    def run(seed: int, moved: np.ndarray) -> list[dict]:
        noise = np.random.default_rng(seed)
        ways = np.random.default_rng(11).standard_normal((7, 3, 4))
        return [
            {
                task: scores_of(
                    np.exp(0.5 * ways[::-1][j] + moved[k, j] * ways[j]) * noise.gamma(2500, 1 / 2500, (N, 3, 4)), task
                ).assign(loss=("sample", losses[k, j] + 0.01 * noise.standard_normal(N)))
                for j, task in enumerate(order)
            }
            for k in range(8)
        ]

    along = forgetting(order, [run(seed, losses) for seed in range(2)]).association
    assert along.value > 0.5
    assert along.low <= along.value <= along.high + 0.05
    unrelated = np.cumsum(np.random.default_rng(5).gamma(2, 0.2, (8, 7)), axis=0)
    apart = forgetting(order, [run(seed, unrelated) for seed in range(2)]).association
    assert abs(apart.value) < 0.5


def test_too_few_pairs_give_no_correlation() -> None:
    runs = [[{task: stage[task] for task in ORDER[:3]} for stage in sequence(0, LOSSES)[:4]]]
    found = forgetting(ORDER[:3], runs)
    assert np.isnan(found.association.value)
    assert "Too few pairs of a step and an earlier task (3) to correlate" in found.verdict
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["association"]["value"] is None


def test_only_samples_of_all_stages_count() -> None:
    run = sequence(0, LOSSES)
    run[0] = {task: one.isel(sample=slice(None, None, -1)) for task, one in run[0].items()}
    run[2]["b"] = run[2]["b"].isel(sample=slice(2, None))
    found = forgetting(ORDER, [run])
    assert found.samples == N - 2
    values = [float(stage["b"]["loss"].sel(sample=range(2, N)).mean()) for stage in run]
    np.testing.assert_allclose(found.loss["value"].sel(task="b"), values)


def test_missing_tasks_stages_or_scores_are_refused() -> None:
    run = sequence(0, LOSSES)
    with pytest.raises(HeadnbError, match="at least two tasks"):
        forgetting(["a"], [run])
    with pytest.raises(HeadnbError, match="need scores at 5 stages"):
        forgetting(ORDER, [run[:4]])
    with pytest.raises(HeadnbError, match="b has no scores at 1 of 5 stages"):
        forgetting(ORDER, [[{t: s for t, s in stage.items() if (k, t) != (3, "b")} for k, stage in enumerate(run)]])
    with pytest.raises(HeadnbError, match="did you mean 'level'"):
        forgetting(ORDER, [run], levl=0.9)


def test_signed_scores_are_refused() -> None:
    run = [{task: one.assign_attrs(reduction="mean") for task, one in stage.items()} for stage in sequence(0, LOSSES)]
    with pytest.raises(HeadnbError, match="needs activation levels"):
        forgetting(ORDER, [run])


def test_scores_of_two_revisions_are_refused() -> None:
    run = sequence(0, LOSSES)
    old = [{task: one.assign_attrs(scoring_revision=1) for task, one in run[0].items()}]
    new = [{task: one.assign_attrs(scoring_revision=2) for task, one in stage.items()} for stage in run[1:]]
    with pytest.raises(HeadnbError, match="different scoring revisions, 1 and 2"):
        forgetting(ORDER, [old + new])


def test_correlation_with_the_loss_is_described_and_not_tested() -> None:
    """The steps of one task share its drift, so pairs of a step and a task are not independent."""
    found = found_of()
    rho = found.association
    assert rho.low <= rho.value <= rho.high
    assert "it was not tested" in found.verdict
    assert "p = " not in found.verdict
    assert set(found.to_dict()["association"]) == {"value", "low", "high", "pairs"}


def test_a_task_learned_twice_is_refused() -> None:
    with pytest.raises(HeadnbError, match="a is learned twice"):
        forgetting(["a", "b", "a", "d"], [sequence(0, LOSSES)])


def changed(stage: int, task: str, change) -> list[dict]:
    """A run in which the scores of one task are changed at one stage."""
    run = sequence(0, LOSSES)
    run[stage][task] = change(run[stage][task])
    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda one: one.isel(head=slice(None, None, -1)),
            "head 0 before in run 1 corresponds to head 3 after b in run 1",
        ),
        (lambda one: one.assign_attrs(task="other"), "task is 'b' before in run 1 and 'other' after b in run 1"),
        (lambda one: one.drop_vars("loss"), "the scores of b after b in run 1 have no variable 'loss'"),
        (
            lambda one: one.assign(loss=one["loss"].where(one["sample"] > 1)),
            "2 of 12 losses of b after b in run 1 are not",
        ),
        (lambda one: one.isel(sample=[3]), "1 sample ids in common"),
    ],
)
def test_scores_that_cannot_be_paired_over_stages_are_refused(change, message: str) -> None:
    with pytest.raises(HeadnbError, match=message):
        forgetting(ORDER, [changed(2, "b", change)])


def test_tasks_of_different_models_are_refused() -> None:
    run = [{**stage, "d": stage["d"].isel(head=[0, 1])} for stage in sequence(0, LOSSES)]
    with pytest.raises(HeadnbError, match="3 x 4 heads of a and 3 x 2 of d"):
        forgetting(ORDER, [run])


def test_samples_that_only_some_tasks_have_are_left_out_in_so_many_words() -> None:
    found = forgetting(ORDER, [changed(2, "b", lambda one: one.isel(sample=slice(7, None)))])
    assert (found.samples, found.left_out) == (5, 3 * (N - 5))
    assert "5 held-out samples of each task; 21 samples of tasks with more are left out" in found.verdict
    assert "left out" not in found_of().verdict
