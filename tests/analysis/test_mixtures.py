"""Mixtures: shares against a hand calculation, zero and negative weights, short sources, and baselines."""

from __future__ import annotations

from collections import Counter

import headnb
import numpy as np
import pytest
from headnb import HeadnbError
from headnb.analysis.composition.null_models import SINGLE
from headnb.analysis.mixtures import Mixture, largest_remainder
from headnb.tasks.loading import Task
from hypothesis import given
from hypothesis import strategies as st

from combined_changes import BASICS, combined_change
from simulated_finetuning import flat, random_change
from trainers import PAIRS


def source(name: str, n: int) -> Task:
    return Task(name, [(f"{name} question {i} ", f"answer {i}") for i in range(n)], range(n), "made up")


SOURCES = {"gsm8k": source("gsm8k", 60), "mbpp": source("mbpp", 40)}


@pytest.fixture(scope="module")
def fit():
    return headnb.fit_combination(
        combined_change({"gsm8k": 0.7, "mbpp": 0.2}, noise=0), BASICS, permutations=20, resamples=5
    )


def origins(mix: Task) -> Counter:
    """Number of samples of each source, read from the prompts."""
    return Counter(sample.prompt.split()[0] for sample in mix.samples)


def test_largest_remainder_is_the_hand_calculation():
    # Shares of 10: 4.7, 1.6, 1.58, 1.2, 0.92; floors 4 1 1 1 0 = 7; the remaining 3 go to .92, .7, .6.
    assert largest_remainder(np.array([47, 16, 15.8, 12, 9.2]), 10).tolist() == [5, 2, 1, 1, 1]
    assert largest_remainder(np.array([1, 1, 1]), 4).tolist() == [2, 1, 1]  # equal fractions: the earlier task
    assert largest_remainder(np.array([3.5, 4.5, 0]), 8).tolist() == [3, 5, 0]  # equal fractions: the larger weight
    assert largest_remainder(np.array([0.29, 0.71]), 100).tolist() == [29, 71]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(lambda w: sum(w) > 1e-3), st.integers(1, 5000))
def test_largest_remainder_uses_the_whole_size_and_is_within_one_of_each_share(weights, size):
    weights = np.array(weights)
    counts = largest_remainder(weights, size)
    assert counts.sum() == size
    assert (abs(counts - size * weights / weights.sum()) < 1 + 1e-6).all()
    assert (counts[weights == 0] == 0).all()


def test_shares_are_those_of_the_weights(fit):
    mix = headnb.mixture(fit, 45, SOURCES)
    assert mix.counts == {"gsm8k": 35, "mbpp": 10}  # 45 * 0.7 / 0.9 and 45 * 0.2 / 0.9
    assert origins(mix) == mix.counts
    assert len(set(mix.ids)) == 45
    assert isinstance(mix, Task)


def test_shares_by_contribution_weigh_with_the_norm_of_each_change(fit):
    contributions = {name: w * np.linalg.norm(flat(BASICS[name])) for name, w in (("gsm8k", 0.7), ("mbpp", 0.2))}
    share = 45 * contributions["gsm8k"] / sum(contributions.values())
    mix = headnb.mixture(fit, 45, SOURCES, by="contributions")
    assert mix.counts["gsm8k"] == round(share)
    assert mix.counts != headnb.mixture(fit, 45, SOURCES).counts
    assert mix.weights == pytest.approx(contributions)


def test_ids_name_the_sample_of_the_source(fit):
    mix = headnb.mixture(fit, 45, SOURCES)
    for key, sample in zip(mix.ids, mix.samples, strict=True):
        name, number = key.split("/")
        assert sample.prompt == f"{name} question {number} "


def test_a_mixture_depends_on_its_seed_and_on_nothing_else(fit):
    first, again, other = (headnb.mixture(fit, 45, SOURCES, seed) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert first.counts == other.counts


def test_tasks_are_interleaved_in_a_mixture(fit):
    beginning = headnb.mixture(fit, 90, {"gsm8k": source("gsm8k", 90), "mbpp": source("mbpp", 90)}, by="uniform").ids
    assert 5 < sum(key.startswith("mbpp") for key in beginning[:30]) < 25


def test_weights_of_zero_and_below_give_no_samples_and_are_named():
    mix = headnb.mixture({"gsm8k": 0.5, "mbpp": -0.3, "svamp": 0.0}, 10, SOURCES)
    assert mix.counts == {"gsm8k": 10, "mbpp": 0, "svamp": 0}
    assert "mbpp (-0.3), svamp (0)" in repr(mix)
    with pytest.raises(HeadnbError, match="no basic task has a weight above zero"):
        headnb.mixture({"gsm8k": 0.0, "mbpp": -0.3}, 10, SOURCES)
    with pytest.raises(HeadnbError, match="weight of 'mbpp' is nan"):
        headnb.mixture({"gsm8k": 0.5, "mbpp": float("nan")}, 10, SOURCES)


def test_share_that_rounds_to_nothing_is_named():
    assert "share rounds to zero: mbpp" in repr(headnb.mixture({"gsm8k": 1, "mbpp": 0.001}, 10, SOURCES))


def test_uniform_mixture_has_equal_shares_whatever_the_weights():
    assert headnb.mixture({"gsm8k": 5, "mbpp": -1}, 31, SOURCES, by="uniform").counts == {"gsm8k": 16, "mbpp": 15}


def test_random_mixture_samples_uniformly():
    counts = [headnb.mixture({"gsm8k": 5, "mbpp": -1}, 50, SOURCES, seed, by="random") for seed in range(60)]
    taken = np.array([mix.counts["gsm8k"] for mix in counts])
    # Hypergeometric, 50 of 60 + 40: mean 30, variance 50 * .6 * .4 * 50 / 99.
    assert abs(taken.mean() - 30) < 4 * np.sqrt(50 * 0.24 * 50 / 99 / 60)
    assert len(set(taken)) > 3
    assert all(origins(mix) == mix.counts for mix in counts)


def test_a_random_mixture_of_procedural_tasks_is_balanced():
    mix = headnb.mixture(
        {"gsm_symbolic": 1, "gcd": 1}, 40, {name: name for name in ("gsm_symbolic", "gcd")}, by="random"
    )
    assert min(mix.counts.values()) > 8
    assert len(set(mix.ids)) == 40


def test_single_mixture_is_of_the_task_that_fits_best_alone():
    change = combined_change({"gsm8k": 0.1, "mbpp": 0.9})
    fit = headnb.fit_combination(change, BASICS, permutations=20, resamples=5)
    mix = headnb.mixture(fit, 12, SOURCES, by="single")
    assert mix.counts == {"gsm8k": 0, "mbpp": 12}
    # Least squares with one weight w >= 0: w = x.y / x.x.
    y, x = flat(change), flat(BASICS["mbpp"])
    error = y - x * (x @ y) / (x @ x)
    assert mix.weights["mbpp"] == pytest.approx(1 - error @ error / ((y - y.mean()) ** 2).sum())
    assert mix.weights["mbpp"] == pytest.approx(fit.nulls.loc[SINGLE, "r2"])
    with pytest.raises(HeadnbError, match="needs a result of fit_combination"):
        headnb.mixture({"gsm8k": 1}, 3, SOURCES, by="single")


def test_a_fit_that_shows_no_composition_says_so_in_its_mixture():
    unrelated = headnb.fit_combination(random_change(9, "other"), BASICS, permutations=20, resamples=5)
    assert not unrelated.supported
    assert "does not support composition" in repr(headnb.mixture(unrelated, 10, SOURCES))


def test_a_source_that_is_too_small_is_an_error_that_says_what_would_do(fit):
    with pytest.raises(HeadnbError, match=r"gsm8k has 60 of 78 samples.*repeat=True.*size of about 76"):
        headnb.mixture(fit, 100, SOURCES)
    assert headnb.mixture(fit, 76, SOURCES).counts["gsm8k"] <= 60


@pytest.mark.parametrize("by", ["weights", "random"])
def test_repeated_samples_are_all_taken_once_before_any_is_taken_twice(by):
    mix = headnb.mixture({"gsm8k": 1, "mbpp": 1}, 250, SOURCES, by=by, repeat=True)
    assert len(mix) == len(set(mix.ids)) == 250
    for name, task in SOURCES.items():
        times = Counter(sample.prompt for sample in mix.samples if sample.prompt.startswith(name))
        assert len(times) == len(task)
        assert max(times.values()) - min(times.values()) <= 1
    assert "samples repeated: gsm8k (60 samples), mbpp (40 samples)" in repr(mix)


def test_sources_may_be_all_that_load_task_accepts(nothing_outside, jsonl):
    path = jsonl(*({"prompt": f"file {i} ", "completion": "x"} for i in range(9)))
    mix = headnb.mixture({"file": 1, "pairs": 1, "chain_sum": 2}, 12, {
        "file": path, "pairs": [(f"pairs {i}", "y") for i in range(5)], "chain_sum": "chain_sum",
    })  # fmt: skip
    assert mix.counts == {"file": 3, "pairs": 3, "chain_sum": 6}
    assert headnb.mixture({"chain_sum": 1}, 100, {"chain_sum": "chain_sum"}).counts == {"chain_sum": 100}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "wieghts"}, "did you mean 'weights'"),
        ({"size": 0}, "size must be a whole number"),
        ({"size": 2.5}, "size must be a whole number"),
        ({"sources": {**SOURCES, "gsm8": SOURCES["mbpp"]}}, "did you mean 'gsm8k'"),
        ({"sources": {"mbpp": SOURCES["mbpp"]}}, "sources lacks samples of these basic tasks: 'gsm8k'"),
        ({"fit": 3}, "not int"),
        ({"fit": {}}, "no weights"),
    ],
)
def test_bad_input_is_one_plain_line(arguments, message):
    with pytest.raises(HeadnbError, match=message):
        headnb.mixture(**{"fit": {"gsm8k": 1.0, "mbpp": 1.0}, "size": 10, "sources": SOURCES, **arguments})


def test_mixture_shows_itself_in_a_notebook_with_names_escaped():
    mix = headnb.mixture({"<b>": 1.0}, 3, {"<b>": source("x", 5)})
    assert "&lt;b&gt;" in mix._repr_html_()
    assert "<b>" not in mix._repr_html_()
    assert isinstance(mix, Mixture)


def test_finetune_trains_on_a_mixture(model, tokenizer):
    mix = headnb.mixture({"a": 2, "b": 1}, 9, {"a": PAIRS[:12], "b": PAIRS[12:]})
    tuned = headnb.finetune(model, tokenizer, mix, steps=1, track=[])
    assert tuned.study.attrs["trained_on"] == mix.name
    assert tuned.study.attrs["trained_on_fingerprint"] == mix.fingerprint()


def test_sources_of_equal_length_are_drawn_at_ranks_of_their_own():
    sources = {name: source(name, 90) for name in ("gsm8k", "mbpp")}
    mix = headnb.mixture({"gsm8k": 1, "mbpp": 1}, 60, sources)
    ranks = {name: {int(key.split("/")[1]) for key in mix.ids if key.startswith(name)} for name in sources}
    assert len(ranks["gsm8k"]) == len(ranks["mbpp"]) == 30
    assert len(ranks["gsm8k"] & ranks["mbpp"]) < 20  # 10 on average
