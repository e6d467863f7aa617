"""95 % confidence intervals: Wilson's for shares of images, a bootstrap over images for shares of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

Z = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""

_UNIT = 2**64
"""Number of values of a random word."""


def _poisson_bounds() -> np.ndarray:
    """The cumulative Poisson(1) distribution in units of 2^-64, uint64, as far as it is less than 1."""
    bounds, total, term, k = [], 0.0, math.exp(-1), 0
    # Should the sum of floats stay below 1, terms that are too small to matter end it.
    while term * _UNIT >= 1 and (bound := round((total + term) * _UNIT)) < _UNIT:
        bounds.append(bound)
        total, k = total + term, k + 1
        term /= k
    return np.array(bounds, np.uint64)


_BOUNDS = _poisson_bounds()


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a share, without continuity correction.

    Args:
        count: Number of images that have a property, at most `total`.
        total: Number of images, at least 1.

    Returns:
        Its lower and upper end, in [0, 1].
    """
    share, z2 = count / total, Z * Z
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    # At the ends of the range, rounding would leave the last digit to chance.
    return (0.0 if count == 0 else centre - half), (1.0 if count == total else centre + half)


def bootstrap_weights(names: Sequence[str], replicates: int) -> np.ndarray:
    """How often each image is drawn in each replicate of a Poisson bootstrap.

    In an ordinary bootstrap, the number of times that one image is drawn is nearly Poisson(1). Here it is exactly that
    and independent of all other images, so that images can be counted in any order and on any number of machines. A
    weight is a pure function of the image's name and the number of the replicate.

    Args:
        names: Names of the N images.
        replicates: Number of replicates, R.

    Returns:
        (N, R) int64; more replicates begin with the same columns.
    """
    weights = np.empty((len(names), replicates), np.int64)
    for row, name in zip(weights, names, strict=True):
        key = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        # The words of a bit generator, unlike numbers drawn from its distributions, never change between versions.
        words = np.random.Philox(key=int.from_bytes(key)).random_raw(replicates)
        row[:] = np.searchsorted(_BOUNDS, words, side="right")
    return weights


def bootstrap_intervals(counts: np.ndarray, totals: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of the shares of all replicates, for the relations of one source.

    Args:
        counts: (N, R) int64: the pixels of each of N relations in each of R replicates.
        totals: (R,) int64: the source's pixels, of which `counts` is a share.
        shares: (N,) float64: the shares without resampling, which an interval always holds.

    Returns:
        Lower and upper ends, (N,) float64. Replicates in which no image with the source was drawn do not count. A
        source that is in one image only has intervals of no width, which say nothing of other images.
    """
    drawn = totals > 0
    if not drawn.any():
        return shares, shares
    low, high = np.quantile(counts[:, drawn] / totals[drawn], (0.025, 0.975), axis=1)
    return np.minimum(low, shares), np.maximum(high, shares)
