"""Coverage of intervals and error rates of tests, in simulated scores whose true statistics have a closed form.

The score of a sample in head h is S * exp(w_h . v) * level_h * (a_h + e). S is a lognormal scale of the sample, shared
by all heads (a few samples have large gradients). v are three normal factors of the sample, which correlate heads.
level_h is the lognormal level of the head. e is normal noise about the head's mean a_h, which determines how often the
sign is the same. Then

    AL_h = E|score| = exp(sigma^2 / 2) * exp(|w_h|^2 / 2) * level_h * E|a_h + e|,

where the last factor is the mean of a folded normal. Each replicate has its own heads and samples; sigma is 0.5 in half
of the replicates and 1 in the other half. Its 270 heads have Gini, CV and kurtosis similar to those measured on a 135M
model (about 0.33, 0.65, and 2 to 40).

The default run has few replicates, and fails by chance once in a thousand runs. `-m slow` measures with 1000 replicates
(differences of heads: 250). Results of 2000 replicates (500) in per cent, with a binomial error of 0.5:

    95 % intervals cover            n = 24     64    256
    Gini                              95.7   96.1   95.2
    CV                                96.1   96.7   94.9
    kurtosis                          95.2   95.3   93.7
    correlation of tasks              95.0   94.9   96.5
    correlation before and after      96.4   96.7   95.2
    level of a head                   95.4   95.2   95.0   (Student's t: 86.5, 90.2, 92.8)
    difference of a head              95.1   95.1   95.0   (scale-free: 95.7, 95.4, 95.3)
    identical models with any false positive
    by q-value                         0.5    1.2    2.3   (scale-free: 0.4, 1.3, 2.2)
    by max-T                           4.9    5.4    4.8   (scale-free: 5.1, 5.5, 4.7)
"""

from __future__ import annotations

import headnb
import numpy as np
import pytest
from headnb.stats import jackknife, significance
from scipy import stats

from population import HEADS, Population, as_scores, significantly_above, significantly_below, true_statistics

COUNTS = (24, 64, 256)
STATISTICS = ("gini", "cv", "kurtosis", "correlation of tasks", "correlation before and after")
REPLICATES = {24: 300, 64: 300, 256: 150}
MANY = 1000


def half_shared(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal noise of two models on the same samples, with correlation 0.5."""
    shared, one, other = rng.standard_normal((3, n, HEADS))
    return (shared + one) / np.sqrt(2), (shared + other) / np.sqrt(2)


def covered(n: int, replicates: int, seed: int) -> dict[str, tuple[int, int]]:
    """Statistic -> numbers of replicates in which its 95 % interval covers the truth, and in which it is shown."""
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(STATISTICS, 0)
    shown = dict.fromkeys(STATISTICS, 0)
    for replicate in range(replicates):
        population = Population.random(rng, sigma=(0.5, 1.0)[replicate % 2])
        other = population.tuned(rng, correlation=(0.5, 0.95)[replicate // 2 % 2])
        levels, other_levels = population.activation_levels, other.activation_levels
        truth = true_statistics(levels)
        truth["correlation of tasks"] = truth["correlation before and after"] = np.corrcoef(levels, other_levels)[0, 1]
        scale, noise = population.scale(rng, n), half_shared(rng, n)
        before, after = np.abs(population.scores(scale, noise[0])), np.abs(other.scores(scale, noise[1]))
        found = {
            "gini": jackknife.gini(before),
            "cv": jackknife.coefficient_of_variation(before),
            "kurtosis": jackknife.kurtosis(before),
            "correlation of tasks": jackknife.correlation(before, np.abs(other.draw(rng, n)), paired=False),
            "correlation before and after": jackknife.correlation(before, after, paired=True),
        }
        for name, estimate in found.items():
            hits[name] += estimate.low <= truth[name] <= estimate.high
            shown[name] += not estimate.reason
    return {name: (hits[name], shown[name]) for name in STATISTICS}


def head_coverage(n: int, replicates: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Per replicate, fraction of heads whose interval covers the level: pooled bootstrap-t, and Student's t."""
    rng = np.random.default_rng(seed)
    shares = np.empty((2, replicates))
    for replicate in range(replicates):
        population = Population.random(rng, sigma=(0.5, 1.0)[replicate % 2])
        samples, truth = np.abs(population.draw(rng, n)), population.activation_levels
        for row, intervals in enumerate((significance.level_intervals, significance.t_intervals)):
            found = intervals(samples)
            shares[row, replicate] = np.mean((found.low <= truth) & (truth <= found.high))
    return shares[0], shares[1]


def difference_coverage(n: int, replicates: int, seed: int, *, scale_free: bool) -> np.ndarray:
    """Per replicate, fraction of heads whose interval covers the true difference between before and after."""
    rng = np.random.default_rng(seed)
    shares = np.empty(replicates)
    for replicate in range(replicates):
        before = Population.random(rng, sigma=(0.5, 1.0)[replicate % 2])
        after = before.tuned(rng, correlation=0.95)
        scale, noise = before.scale(rng, n), half_shared(rng, n)
        pair = (as_scores(p.scores(scale, e)) for p, e in zip((before, after), noise, strict=True))
        change = headnb.compare(*pair, scale_free=scale_free)
        a, b = (p.activation_levels / (p.activation_levels.mean() if scale_free else 1) for p in (after, before))
        shares[replicate] = np.mean((change["low"].values.ravel() <= a - b) & (a - b <= change["high"].values.ravel()))
    return shares


def comparisons(n: int, replicates: int, seed: int, *, raised: int = 0, scale_free: bool = False):
    """(replicates, 3): false positives by q and by max-T, and true positives by q, with `raised` heads doubled."""
    rng = np.random.default_rng(seed)
    finds = np.empty((replicates, 3), dtype=int)
    for replicate in range(replicates):
        before = Population.random(rng, sigma=(0.5, 1.0)[replicate % 2])
        level = before.level * np.where(np.arange(HEADS) < raised, 2, 1)
        after = Population(level, before.sign, before.factors, before.sigma)
        scale, noise = before.scale(rng, n), half_shared(rng, n)
        pair = (as_scores(p.scores(scale, e)) for p, e in zip((before, after), noise, strict=True))
        change = headnb.compare(*pair, scale_free=scale_free)
        by_q, by_max_t = (change["significant"].values.ravel(), change["p_max_t"].values.ravel() < 0.05)
        finds[replicate] = by_q[raised:].sum(), by_max_t[raised:].sum(), by_q[:raised].sum()
    return finds


def test_the_closed_form_of_the_truth_is_the_mean_of_many_draws():
    rng = np.random.default_rng(0)
    population = Population.random(rng, sigma=0.5)
    drawn = np.mean([np.abs(population.draw(rng, 1000)).mean(axis=0) for _ in range(100)], axis=0)
    np.testing.assert_allclose(drawn, population.activation_levels, rtol=0.06)


@pytest.mark.parametrize("n", [COUNTS[0], *(pytest.param(n, marks=pytest.mark.long) for n in COUNTS[1:])])
def test_intervals_of_statistics_cover(n):
    hits = covered(n, REPLICATES[n], seed=n)
    outside = {
        name: count / shown
        for name, (count, shown) in hits.items()
        if significantly_below(count, shown, 0.93) or significantly_above(count, shown, 0.98)
    }
    assert not outside


@pytest.mark.parametrize("n", COUNTS)
def test_intervals_of_heads_cover_where_students_t_does_not(n):
    pooled, student = head_coverage(n, 150, seed=100 + n)
    margin = 3 * pooled.std(ddof=1) / np.sqrt(len(pooled))
    assert 0.93 - margin < pooled.mean() < 0.97 + margin
    assert pooled.mean() > student.mean()


@pytest.mark.parametrize("scale_free", [False, True], ids=["raw", "scale-free"])
@pytest.mark.parametrize("n", [24, 64])
def test_intervals_of_differences_cover(n, scale_free):
    shares = difference_coverage(n, 60, seed=500 + n, scale_free=scale_free)
    margin = 3 * shares.std(ddof=1) / np.sqrt(len(shares))
    assert 0.93 - margin < shares.mean() < 0.97 + margin


@pytest.mark.parametrize("scale_free", [False, True], ids=["raw", "scale-free"])
@pytest.mark.parametrize("n", [24, 64])
def test_identical_models_rarely_differ(n, scale_free):
    finds = comparisons(n, 200, seed=200 + n, scale_free=scale_free)
    for false_finds in finds[:, :2].T:
        assert not significantly_above(int((false_finds > 0).sum()), 200, 0.05)


def test_of_the_heads_found_to_have_risen_few_are_false():
    finds = comparisons(64, 60, seed=300, raised=30)
    share = finds[:, 0] / np.maximum(finds[:, 0] + finds[:, 2], 1)
    assert share.mean() < 0.05 + 3 * share.std(ddof=1) / np.sqrt(60)
    assert finds[:, 2].mean() > 15


@pytest.mark.parametrize("n", [24, 64])
def test_rank_intervals_hold_the_true_rank(n):
    rng = np.random.default_rng(400 + n)
    hits = total = 0
    for replicate in range(100):
        population = Population.random(rng, sigma=(0.5, 1.0)[replicate % 2])
        ranks = stats.rankdata(-population.activation_levels)
        samples = np.abs(population.draw(rng, n))
        top = np.argsort(-samples.mean(axis=0))[:5]
        found = significance.rank_intervals(samples, list(top))
        hits += int(((found[:, 0] <= ranks[top]) & (ranks[top] <= found[:, 1])).sum())
        total += 5
    assert hits / total > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("n", COUNTS)
def test_measured_coverage_of_statistics(n):
    found = covered(n, MANY, seed=1000 + n)
    shares = {name: count / shown for name, (count, shown) in found.items()}
    print(n, shares, "shown", {name: shown / MANY for name, (_, shown) in found.items()})
    assert all(0.925 < share < 0.98 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.parametrize("n", COUNTS)
def test_measured_coverage_of_heads(n):
    pooled, student = head_coverage(n, MANY, seed=2000 + n)
    raw, free = (difference_coverage(n, MANY // 4, seed=3000 + n, scale_free=choice) for choice in (False, True))
    print(n, "levels", pooled.mean(), "student", student.mean(), "differences", raw.mean(), "scale-free", free.mean())
    assert all(0.93 < shares.mean() < 0.97 for shares in (pooled, raw, free))


@pytest.mark.slow
@pytest.mark.parametrize("scale_free", [False, True], ids=["raw", "scale-free"])
@pytest.mark.parametrize("n", COUNTS)
def test_measured_false_finds_between_identical_models(n, scale_free):
    by_q, by_max_t = (comparisons(n, MANY, seed=4000 + n, scale_free=scale_free)[:, :2] > 0).sum(axis=0)
    print(n, scale_free, "any find by q", by_q / MANY, "by max-T", by_max_t / MANY)
    assert not significantly_above(int(by_q), MANY, 0.05)
    assert not significantly_above(int(by_max_t), MANY, 0.05)
