"""HSIC against its definition over all quadruples of samples, invariances of CKA, and coverage of the jackknife."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from headnb.analysis.cka import cka, gram, hsic
from headnb.errors import HeadnbError
from headnb.stats.significance import crossed_intervals
from scipy import stats


def by_fours(X, Y):
    """Song et al. 2012, equation 4: the mean over all ordered quadruples of different samples."""
    K, L = X @ X.T, Y @ Y.T
    fours = itertools.permutations(range(len(X)), 4)
    return np.mean([K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in fours])


def pair(seed, n, dims=3, shared=0.5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, dims))
    return X, shared * X @ rng.standard_normal((dims, dims + 1)) + rng.standard_normal((n, dims + 1)) + 2


def test_hsic_is_the_mean_over_all_fours_of_samples_also_without_each():
    X, Y = pair(0, 7)
    found = hsic(gram(X), gram(Y))
    assert float(found.full) == pytest.approx(by_fours(X, Y))
    left = [by_fours(np.delete(X, i, axis=0), np.delete(Y, i, axis=0)) for i in range(7)]
    np.testing.assert_allclose(found.left_out, left)


def test_hsic_is_the_inner_product_of_u_centred_matrices():
    """Szekely and Rizzo 2014; the rows need not be centred."""
    X, Y = pair(1, 12)

    def centred(matrix):
        a, n = matrix - np.diag(np.diag(matrix)), len(matrix)
        rows = a.sum(axis=0) / (n - 2)
        a = a - rows - rows[:, None] + a.sum() / ((n - 1) * (n - 2))
        return a - np.diag(np.diag(a))

    expected = (centred(X @ X.T) * centred(Y @ Y.T)).sum() / (12 * 9)
    assert float(hsic(X @ X.T, Y @ Y.T).full) == pytest.approx(expected)
    assert float(hsic(gram(X), gram(Y)).full) == pytest.approx(expected)


def test_rotation_scale_and_shift_change_nothing():
    X, Y = pair(2, 20, dims=6)
    rotation = stats.ortho_group.rvs(6, random_state=0)
    plain = cka(gram(X), gram(Y))
    moved = cka(gram(3 * X @ rotation + 7), gram(Y))
    np.testing.assert_allclose(moved.full, plain.full)
    np.testing.assert_allclose(moved.left_out, plain.left_out)
    assert float(cka(gram(X), gram(-2 * X @ rotation)).full) == pytest.approx(1)
    assert float(cka(gram(X), gram(X * np.arange(1, 7))).full) < 0.99  # CKA is not invariant to a scale per dimension


def test_independent_representations_have_zero_cka_in_many_dimensions():
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((2, 200, 10, 50))  # 200 pairs of 10 samples in 50 dimensions
    K, L = gram(X), gram(Y)
    found = hsic(K, L).full
    assert abs(found.mean()) < 3 * stats.sem(found)
    assert abs(cka(K, L).full.mean()) < 0.1
    centre = np.eye(10) - 0.1
    plain = [np.sum(a * b) for a, b in zip(centre @ K @ centre, centre @ L @ centre, strict=True)]
    norms = [
        np.linalg.norm(centre @ a @ centre) * np.linalg.norm(centre @ b @ centre) for a, b in zip(K, L, strict=True)
    ]
    assert np.mean(np.divide(plain, norms)) > 0.5  # the bias without the correction


def test_every_two_matrices_of_two_stacks():
    stacks = [gram(np.random.default_rng(seed).standard_normal((3, 8, 4))) for seed in (4, 5)]
    found = cka(stacks[0][:, None], stacks[1][None])
    assert (found.full.shape, found.left_out.shape) == ((3, 3), (3, 3, 8))
    for i, j in np.ndindex(3, 3):
        one = cka(stacks[0][i], stacks[1][j])
        np.testing.assert_allclose(found.full[i, j], one.full)
        np.testing.assert_allclose(found.left_out[i, j], one.left_out)


@pytest.mark.parametrize(("n", "mixed"), [(24, 0.3), (64, 0.05)])
def test_intervals_of_the_jackknife_on_fishers_scale_cover(n, mixed):
    """Intervals of the population CKA: at 95 % coverage, fewer than 86 of 100 cover with probability 1 / 5000."""
    rng = np.random.default_rng(6)
    scales = 0.8 ** np.arange(12)
    change = mixed * rng.standard_normal((12, 12)) * scales + np.eye(12)
    S = np.diag(scales**2)

    def size(matrix):
        return np.linalg.norm(matrix)

    truth = size(S @ change) ** 2 / (size(S) * size(change.T @ S @ change))
    inside = 0
    for _ in range(100):
        X = rng.standard_normal((n, 12)) * scales
        found = cka(gram(X), gram(X @ change))
        of_samples = type(found)(*(np.arctanh(part) for part in found)).pseudo_values()
        interval = crossed_intervals(of_samples[None, :, None])
        inside += int(interval.low[0] <= np.arctanh(truth) <= interval.high[0])
    assert inside / 100 >= 0.86


def test_a_constant_representation_has_no_cka():
    X, _ = pair(7, 8)
    assert np.isnan(cka(gram(X), gram(np.ones((8, 3)))).full)


def test_too_few_or_other_samples_are_refused():
    with pytest.raises(HeadnbError, match="at least 5; got 4 and 4"):
        cka(np.eye(4), np.eye(4))
    with pytest.raises(HeadnbError, match="got 6 and 7"):
        cka(np.eye(6), np.eye(7))
    with pytest.raises(HeadnbError, match="square matrix"):
        cka(np.ones((6, 5)), np.eye(6))
