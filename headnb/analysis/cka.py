"""Linear CKA of two sets of representations of the same samples, corrected for the bias of few samples.

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),    K = X X^T, L = Y Y^T    (Kornblith et al. 2019, arXiv 1905.00414)

X (n, C) and Y (n, C') have one row per sample. CKA is 1 for representations that are equal up to rotation and one
common scale. With fewer samples than dimensions, the plain HSIC of independent X and Y is far above zero and CKA is
near 1. Here HSIC is the unbiased estimate of Song et al. (2012, JMLR 13, equation 5). K~ and L~ are the matrices
without their diagonals; k and l are their row sums:

    HSIC = [ sum_ij K~ L~  +  sum(k) sum(l) / ((n - 1)(n - 2))  -  2 sum_i k l / (n - 2) ] / (n (n - 3))

The CKA of independent representations is then 0 on average, and may be negative. Only the inner products (n, n) are
needed, whatever C is. Uncertainty is estimated by a jackknife over samples. A bootstrap would pair a sample with its
own copy, as if two samples had the same representation, and so add the bias that the estimate removes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headnb.errors import HeadnbError
from headnb.stats.jackknife import correlation_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from headnb.stats.descriptive import Array

MIN_SAMPLES = 5  # the estimate needs four samples, and the jackknife leaves one out


class LeaveOneOut(NamedTuple):
    """A statistic of all samples (...), and with each sample left out (..., n)."""

    full: Array
    left_out: Array

    def pseudo_values(self) -> Array:
        """(..., n): n full - (n - 1) left_out; their mean is the jackknife estimate, their spread gives its error."""
        n = self.left_out.shape[-1]
        return np.asarray(n * self.full[..., None] - (n - 1) * self.left_out)


def gram(representations: ArrayLike) -> Array:
    """Inner products of the samples' deviations from their mean, (..., n, C) -> (..., n, n).

    HSIC does not depend on the mean; subtracting a large mean avoids rounding errors.
    """
    values = np.asarray(representations, dtype=np.float64)
    centred = values - values.mean(axis=-2, keepdims=True)
    return np.asarray(centred @ centred.swapaxes(-1, -2))


def hsic(K: ArrayLike, L: ArrayLike) -> LeaveOneOut:
    """Unbiased HSIC of two stacks of inner products, (..., n, n) each, broadcast against each other.

    Raises:
        HeadnbError: fewer than five samples, or different numbers of samples.
    """
    K, L = (_without_diagonal(matrix) for matrix in (K, L))
    n = K.shape[-1]
    if n < MIN_SAMPLES or L.shape[-1] != n:
        raise HeadnbError(f"CKA needs the same samples in both sets, at least {MIN_SAMPLES}; got {n} and {L.shape[-1]}")
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
    """CKA of two stacks of inner products, (..., n, n) each, broadcast; NaN for constant representations."""
    both, first, second = hsic(K, L), hsic(K, K), hsic(L, L)
    parts = zip(both, first, second, strict=True)
    return LeaveOneOut(*(np.clip(correlation_of(of_both, one, other), -1, 1) for of_both, one, other in parts))


def _hsic_from_sums(products: Array, of_k: Array, of_l: Array, of_rows: Array, n: int) -> Array:
    total = products + of_k * of_l / ((n - 1) * (n - 2)) - 2 * of_rows / (n - 2)
    return np.asarray(total / (n * (n - 3)))


def _without_diagonal(matrix: ArrayLike) -> Array:
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != values.shape[-2]:
        raise HeadnbError(f"inner products must be a square matrix (n, n); got the shape {values.shape}")
    return np.asarray(values * (1 - np.eye(values.shape[-1])))
