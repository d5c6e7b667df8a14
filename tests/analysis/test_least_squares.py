"""Least squares over heads against scipy, numpy and formulas by hand."""

from __future__ import annotations

import numpy as np
import pytest
from headnb.analysis.composition.least_squares import (
    Form,
    condition_number,
    permuted_r_squared,
    predicted_across_layers,
    r_squared,
)
from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern
from scipy import optimize, stats

RNG = np.random.default_rng(0)
X = RNG.gamma(2, size=(40, 3))
Y = X @ [0.5, 0.0, 1.5] - 0.3 * X[:, 1] + 0.2 * RNG.standard_normal(40)
LAYERS = np.repeat(np.arange(8), 5)
FORMS = [Form(n, i) for n in (True, False) for i in (True, False)]


def solved(x: np.ndarray, y: np.ndarray, form: Form) -> tuple[np.ndarray, float]:
    """Solve by scipy's bounded least squares, with the constant as a column."""
    design = np.column_stack([x, np.ones(len(x))]) if form.intercept else x
    low = np.r_[np.full(x.shape[1], 0.0 if form.nonnegative else -np.inf), [-np.inf] * form.intercept]
    found = optimize.lsq_linear(design, y, (low, np.inf), tol=1e-14).x
    return found[: x.shape[1]], found[-1] if form.intercept else 0.0


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_fit_is_that_of_bounded_least_squares(form):
    weights, constant = form.fit(X, Y)
    expected, expected_constant = solved(X, Y, form)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert constant == pytest.approx(expected_constant, abs=1e-6)


def test_nonnegative_fit_is_scipys_nnls_and_ordinary_fit_is_linregress():
    np.testing.assert_allclose(Form(True, False).fit(X, Y)[0], optimize.nnls(X, Y)[0])
    weights, constant = Form(False, True).fit(X[:, :1], Y)
    by_scipy = stats.linregress(X[:, 0], Y)
    assert (weights[0], constant) == pytest.approx((by_scipy.slope, by_scipy.intercept))
    assert r_squared(X[:, :1], Y, Form(False, True)) == pytest.approx(by_scipy.rvalue**2)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_products_determine_the_same_fit(form):
    """Patterns without samples have no noise to correct, so the fit to products equals the fit to patterns."""
    products = DebiasedProducts([MeasuredPattern(row[None, None]) for row in [Y, *X.T]]).corrected()
    unit = np.eye(4)
    weights, r2 = form.fit_products(products, unit[0], unit[:, 1:])
    np.testing.assert_allclose(weights, form.fit(X, Y)[0], atol=1e-9)
    assert r2 == pytest.approx(r_squared(X, Y, form))


def test_products_that_determine_nothing_give_nan():
    unit = np.eye(3)
    for patterns in ([Y, X[:, 0], 2 * X[:, 0]], [Y, X[:, 0], 0 * Y], [0 * Y + 1, X[:, 0], X[:, 1]]):
        products = DebiasedProducts([MeasuredPattern(row[None, None]) for row in patterns]).corrected()
        weights, r2 = Form(False, False).fit_products(products, unit[0], unit[:, 1:])
        assert np.isnan(weights).all()
        assert np.isnan(r2)


def test_r_squared_is_about_the_mean_and_negative_when_worse_than_it():
    # y = (1, 2, 3) from x = (1, 0, 0): weight 1, errors (0, 2, 3), SSE 13, SS about the mean 2
    assert r_squared(np.array([[1.0], [0], [0]]), np.array([1.0, 2, 3]), Form()) == pytest.approx(1 - 13 / 2)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_layer_is_predicted_from_the_others(form):
    expected = np.empty(40)
    for layer in range(8):
        out = layer == LAYERS
        weights, constant = solved(X[~out], Y[~out], form)
        expected[out] = X[out] @ weights + constant
    np.testing.assert_allclose(predicted_across_layers(X, Y, LAYERS, form), expected, atol=1e-6)


def test_one_layer_predicts_nothing():
    assert np.isnan(predicted_across_layers(X, Y, np.zeros(40), Form())).all()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_permuted_r_squared_is_that_of_refits_to_heads_shuffled_within_layers(form):
    """One head per layer has one order. Two heads in each of three layers have 2^3 orders, and all occur."""
    identity = permuted_r_squared(X, Y, np.arange(40), form, permutations=3)
    np.testing.assert_allclose(identity, r_squared(X, Y, form))
    x, y = X[:6], Y[:6]
    every = set()
    for bits in range(8):
        order = np.arange(6)
        for pair in range(3):
            if bits >> pair & 1:
                order[2 * pair : 2 * pair + 2] = order[2 * pair : 2 * pair + 2][::-1]
        every.add(round(r_squared(x, y[order], form), 9))
    found = permuted_r_squared(x, y, np.array([4, 4, 2, 2, 9, 9]), form, permutations=300)
    assert set(found.round(9)) == every


def test_condition_number_does_not_depend_on_the_patterns_scale():
    # columns at an angle of 60 degrees: singular values sqrt(1 +- cos 60)
    x = np.array([[1.0, 0.5], [0.0, np.sqrt(3) / 2]])
    for scale in (1, 1e-6):
        assert condition_number(x * [1, scale], Form()) == pytest.approx(np.sqrt(1.5 / 0.5))
    assert condition_number(x * [1, 0], Form()) == np.inf
