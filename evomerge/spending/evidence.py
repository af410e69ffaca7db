"""How sure some items make us: estimates with standard errors, and a test that may look as often as it likes.

Items are drawn without replacement from the N of the split, in an order that was shuffled once.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from evomerge.spending.rounds import Floats

BETS = np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4])
"""Stakes that a fifth of the wealth each is put on: large ones see large differences early, small ones small ones."""


def is_worse(differences: Floats, items: int, level: float) -> bool:
    """Whether the mean of all ``items`` differences in [-1, 1] is above 0, after seeing some of them.

    If it is not, the answer is yes with probability ``level`` at most, however often one looks. This is a test by
    betting (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting"; without replacement:
    the same, 2020): were the total 0, the next difference would have the mean m_i = -(sum so far)/(items left), so a
    wealth multiplied by 1 + b (d_i - m_i)/(1 + m_i), 0 <= b < 1, never grows in expectation. By Ville's inequality it
    reaches 1/level with probability ``level`` at most.
    """
    before = np.concatenate([[0.0], np.cumsum(differences)])
    left = items - np.arange(differences.size + 1)
    if (before > left).any():  # what is left cannot make up for it
        return True
    fair = -before[:-1] / left[:-1]
    open_ = fair > -1  # else all that is left must be -1: nothing to bet on
    stakes = BETS[:, None] / (1 + fair[open_])
    wealth = np.exp(np.cumsum(np.log1p(stakes * (differences - fair)[open_]), axis=1)).mean(axis=0)
    return bool((wealth >= 1 / level).any())


def difference_estimate(seen: Floats, predicted: Floats, fitted: float = 0.0) -> tuple[float, float]:
    """The mean over all items of a row of which the beginning was ``seen``, and its standard error.

    Predictions for every item, put right by their mean error on the seen ones (the difference estimator of survey
    sampling; Särndal, Swensson & Wretman 1992, 6.3): whatever the predictions are, the estimate is unbiased, and the
    better they are, the smaller is its error. Seeing all items gives the plain mean.

    Args:
        seen: (n,) the row's beginning.
        predicted: (N,) for every item.
        fitted: how many parameters the predictions took from ``seen``.
    """
    n, items = seen.size, predicted.size
    errors = seen - predicted[:n]
    value = float(predicted.mean() + errors.mean())
    if n == items:
        return float(seen.mean()), 0.0
    freedom = n - 1 - fitted
    if freedom <= 0:
        return value, math.inf
    spread = float(np.square(errors - errors.mean()).sum()) / freedom
    return value, math.sqrt(spread / n * (1 - n / items))


def quantile(confidence: float, freedom: float) -> float:
    """Student's t quantile, from the normal one by Cornish and Fisher's expansion (good from about 7 degrees on)."""
    z, f = NormalDist().inv_cdf(confidence), max(freedom, 1.0)
    return (
        z
        + (z**3 + z) / (4 * f)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * f**3)
    )
