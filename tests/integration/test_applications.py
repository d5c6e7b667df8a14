"""Mixtures and sequences of tasks in a run folder: the training samples, and the errors for invalid arguments."""

from __future__ import annotations

import json
from pathlib import Path

import headnb
import pytest
from headnb.errors import HeadnbError
from headnb.experiments import continual as continual_runs
from headnb.experiments import mixtures as mixture_runs
from headnb.experiments.folder import Run, Settings

TASKS = ("gcd", "lcm", "leg_counting")
WAYS = ["random", "weights", "contributions", "uniform", "single"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Settings("tiny", TASKS, n=6))


def store_fit(run: Run, weights: tuple[float, float], contributions: tuple[float, float] = (1.0, 1.0)) -> None:
    """Store a fit as notebook 04 does. The second basic task alone explains more."""
    rows = [
        {"basic": basic, "weight": weight, "contribution": contribution, "alone": alone}
        for basic, weight, contribution, alone in zip(TASKS, weights, contributions, (0.2, 0.4), strict=False)
    ]
    run.findings.save(
        "composition",
        {"leg_counting": {"dAP": {"weights": rows, "evidence": {"verdict": "No evidence for composition: made up."}}}},
    )


def test_mixtures_have_the_shares_of_the_stored_fit_and_no_scored_sample(run: Run) -> None:
    store_fit(run, (0.6, 0.2), (0.1, 0.3))
    found = mixture_runs.mixtures_for(run, "leg_counting", 0, 8, WAYS)
    assert found["weights"].counts == {"gcd": 6, "lcm": 2}
    assert found["contributions"].counts == {"gcd": 2, "lcm": 6}
    assert found["uniform"].counts == {"gcd": 4, "lcm": 4}
    assert found["single"].counts == {"gcd": 0, "lcm": 8}
    assert sum(found["random"].counts.values()) == 8
    scored = {sample.prompt for task in TASKS for sample in run.samples.scored(task).samples}
    assert not scored & {sample.prompt for mix in found.values() for sample in mix.samples}
    again = mixture_runs.mixtures_for(run, "leg_counting", 0, 8, WAYS)
    other = mixture_runs.mixtures_for(run, "leg_counting", 1, 8, WAYS)
    assert again["weights"].samples == found["weights"].samples != other["weights"].samples


def test_a_random_mixture_draws_from_all_samples_of_tasks_of_different_size(tmp_path: Path) -> None:
    """The tasks have 900 and 60 training samples. Each sample has the same probability."""
    large, small = (str(tmp_path / f"{name}.jsonl") for name in ("large", "small"))
    for name, count in ((large, 906), (small, 66)):  # six samples of each are scored and not trained on
        rows = [json.dumps({"prompt": f"{count} {row}", "completion": "x"}) for row in range(count)]
        Path(name).write_text("\n".join(rows))
    run = Run.create(tmp_path / "run", Settings("tiny", (large, small), n=6))
    row = {"weight": 1.0, "contribution": 1.0, "alone": 0.5}
    run.findings.save("composition", {large: {"dAP": {"weights": [{"basic": name, **row} for name in (large, small)]}}})
    drawn = []
    for seed in range(20):
        found = mixture_runs.mixtures_for(run, large, seed, 64, ["random", "uniform"])
        assert found["uniform"].counts == {large: 32, small: 32}
        drawn.append(found["random"].counts[small])
        assert len({sample.prompt for sample in found["random"].samples}) == 64
    share, size = 60 / 960, 20 * 64
    assert abs(sum(drawn) - size * share) < 4 * (size * share * (1 - share)) ** 0.5


def test_without_positive_weights_only_the_other_mixtures_are_returned(run: Run) -> None:
    store_fit(run, (-0.1, 0.0))
    assert list(mixture_runs.mixtures_for(run, "leg_counting", 0, 4, WAYS[:2])) == ["random"]


def test_names_that_are_unknown_are_answered_with_the_nearest(run: Run) -> None:
    store_fit(run, (0.6, 0.2))
    for message, arguments in (
        ("did you mean 'uniform'", ("leg_counting", 0, 4, ["unifrm"])),
        ("did you mean 'leg_counting'", ("leg_countin", 0, 4, ["uniform"])),
        ("known: dAP", ("leg_counting", 0, 4, ["uniform"], "after")),
    ):
        with pytest.raises(HeadnbError, match=message):
            mixture_runs.mixtures_for(run, *arguments)
    with pytest.raises(HeadnbError, match="did you mean 'gcd'"):
        continual_runs.task_order(run, ["gdc"])


def test_missing_results_name_the_notebook_that_computes_them(run: Run) -> None:
    with pytest.raises(HeadnbError, match="run notebook 07_mixture_training first"):
        mixture_runs.mixture_effect_of(run, "leg_counting")
    with pytest.raises(HeadnbError, match="run notebook 12_continual_training first"):
        continual_runs.forgetting_of(run)
    with pytest.raises(HeadnbError, match="04_composition"):
        mixture_runs.mixtures_for(run, "leg_counting", 0, 4, ["uniform"])


def test_sequences_of_one_order_are_compared(run: Run) -> None:
    assert continual_runs.task_order(run, []) == list(TASKS)
    assert continual_runs.task_order(run, ["lcm", "gcd"]) == ["lcm", "gcd"]
    with pytest.raises(HeadnbError, match="lcm twice"):
        continual_runs.task_order(run, ["lcm", "gcd", "lcm"])
    for seed, order in enumerate((["gcd", "lcm"], ["lcm", "gcd"])):
        continual_runs.finish_continual(run, seed, order, {})
    with pytest.raises(HeadnbError, match="different orders: gcd, lcm; lcm, gcd"):
        continual_runs.forgetting_of(run)


def test_a_sequence_with_scores_that_are_not_complete_is_refused(run: Run, model, tokenizer) -> None:
    def stop(progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    run.score(model, tokenizer, "gcd", run.paths.before("gcd"))
    with pytest.raises(KeyboardInterrupt):
        headnb.score_heads(
            model,
            tokenizer,
            run.samples.scored("gcd"),
            batch_tokens=64,
            out=run.paths.stage(0, 1, "gcd"),
            on_progress=stop,
        )
    with pytest.raises(HeadnbError, match="is incomplete; run notebook 12_continual_training, seed 0 again"):
        continual_runs.stages_of(run, 0, ["gcd"])
