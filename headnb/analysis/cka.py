"""Linear CKA of two sets of representations of the same samples, freed of the bias of few samples.

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),    K = X X^T, L = Y Y^T    (Kornblith et al. 2019, arXiv 1905.00414)

X (n, C) and Y (n, C') hold a row for each sample. It is 1 for representations that are equal up to rotation and one
common scale, and does not depend on the number of dimensions as such. But with fewer samples than dimensions the plain
HSIC of independent X and Y is far above zero, and CKA near 1. Here HSIC is the unbiased estimate of Song et al. (2012,
JMLR 13, equation 5), with K~ and L~ the matrices without their diagonals, k and l their row sums:

    HSIC = [ sum_ij K~ L~  +  sum(k) sum(l) / ((n - 1)(n - 2))  -  2 sum_i k l / (n - 2) ] / (n (n - 3))

So CKA of independent representations is 0 in the mean, and may be negative. Only the matrices of inner products (n, n)
are needed, whatever C is. Uncertainty comes from leaving samples out: in a bootstrap a sample would meet itself, as if
two had the same representation, which is the very bias that is taken off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from headnb.stats.descriptive import Array

MIN_SAMPLES = 5  # samples: the estimate needs four, and one is left out


class LeaveOneOut(NamedTuple):
    """A statistic of all samples (...), and without each of them (..., n)."""

    full: Array
    left_out: Array

    def pseudo_values(self) -> Array:
        """(..., n): n full - (n - 1) left, whose mean is the jackknife's estimate and whose spread is its error."""
        n = self.left_out.shape[-1]
        return np.asarray(n * self.full[..., None] - (n - 1) * self.left_out)


def gram(representations: ArrayLike) -> Array:
    """Inner products of samples, (..., n, C) -> (..., n, n), of the deviations from the samples' mean.

    HSIC is the same with or without the mean, which is often so large that differences would be lost in rounding.
    """
    values = np.asarray(representations, dtype=np.float64)
    centred = values - values.mean(axis=-2, keepdims=True)
    return np.asarray(centred @ centred.swapaxes(-1, -2))


def hsic(K: ArrayLike, L: ArrayLike) -> LeaveOneOut:
    """The unbiased estimate for every two matrices of inner products, (..., n, n) each, broadcast to each other.

    Raises:
        HeadnbError: fewer than five samples, or not as many in both.
    """
    K, L = (_without_diagonal(matrix) for matrix in (K, L))
    n = K.shape[-1]
    if n < MIN_SAMPLES or L.shape[-1] != n:
        raise HeadnbError(f"CKA needs the same samples twice, at least {MIN_SAMPLES}; got {n} and {L.shape[-1]}")
    k, l = K.sum(axis=-1), L.sum(axis=-1)
    rows = np.einsum("...ij,...ij->...i", K, L)
    sums = k.sum(axis=-1), l.sum(axis=-1)
    of_rows = (k * l).sum(axis=-1)
    crossed = (L @ k[..., None])[..., 0] + (K @ l[..., None])[..., 0]
    return LeaveOneOut(
        _hsic_from_sums(rows.sum(axis=-1), *sums, of_rows, n),
        _hsic_from_sums(
            rows.sum(axis=-1, keepdims=True) - 2 * rows,
            sums[0][..., None] - 2 * k,
            sums[1][..., None] - 2 * l,
            of_rows[..., None] - k * l - crossed + rows,
            n - 1,
        ),
    )


def cka(K: ArrayLike, L: ArrayLike) -> LeaveOneOut:
    """CKA for every two matrices of inner products, (..., n, n) each, broadcast to each other; NaN of constant ones."""
    both, first, second = hsic(K, L), hsic(K, K), hsic(L, L)
    parts = zip(both, first, second, strict=True)
    return LeaveOneOut(*(_divide_by_root(of_both, one * other) for of_both, one, other in parts))


def _hsic_from_sums(products: Array, of_k: Array, of_l: Array, of_rows: Array, n: int) -> Array:
    found = products + of_k * of_l / ((n - 1) * (n - 2)) - 2 * of_rows / (n - 2)
    return np.asarray(found / (n * (n - 3)))


def _without_diagonal(matrix: ArrayLike) -> Array:
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != values.shape[-2]:
        raise HeadnbError(f"inner products of n samples are a square matrix; got the shape {values.shape}")
    return np.asarray(values * (1 - np.eye(values.shape[-1])))


def _divide_by_root(covariance: Array, variances: Array) -> Array:
    known = variances > 0
    found = covariance / np.sqrt(np.where(known, variances, 1))
    return np.where(known, np.clip(found, -1, 1), np.nan)  # beyond 1 is rounding
