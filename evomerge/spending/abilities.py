"""Item response theory for a pool: a merged model's answers as a mixture of the abilities of the models in it.

After MERGE3 (Mencattini et al., arXiv 2502.10436): an item i is answered rightly with probability
sigma(a_i gamma - b_i), and a merged model's ability is gamma = sum_j lambda_j gamma_j over the pool, of which only
lambda is fitted to the few answers seen. Where MERGE3 takes a and b from leaderboards of hundreds of models, a pool
of a few answers all items itself; nothing more can be known from it than gamma_j = e_j, each model an ability of its
own, so that a_ij - b_i is simply the log-odds of model j on item i, drawn towards the item's easiness. lambda lies
on the simplex.
"""

from __future__ import annotations

import numpy as np

from evomerge.spending.rounds import Floats

STEPS = 200
RATE = 0.5


def log_odds(answers: Floats) -> Floats:
    """Of each model (row) on each item: its answer in [0, 1] and the item's easiness, of equal weight.

    The easiness is (1 + sum of answers)/(2 + models): an item that all of a small pool fail is not yet impossible.
    """
    easiness = (1 + answers.sum(axis=0)) / (2 + len(answers))
    chance = (answers + easiness) / 2
    return np.asarray(np.log(chance) - np.log1p(-chance))


def mixture(odds: Floats, seen: Floats) -> Floats:
    """lambda: the point of the simplex that makes the answers ``seen`` likeliest.

    The likelihood is concave, and multiplying by the exponential of its gradient stays on the simplex
    (exponentiated gradient; Kivinen & Warmuth 1997).

    Args:
        odds: (models, N) from `log_odds`.
        seen: (n,) answers in [0, 1] to the first n items.
    """
    known = odds[:, : seen.size]
    weights = np.full(len(odds), 1 / len(odds))
    for _ in range(STEPS):
        slope = known @ (seen - _sigmoid(weights @ known)) / seen.size
        weights = weights * np.exp(RATE * (slope - slope.max()))
        weights /= weights.sum()
    return weights


def predicted(odds: Floats, weights: Floats) -> Floats:
    """The chance of a right answer to each of all items."""
    return _sigmoid(weights @ odds)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))
