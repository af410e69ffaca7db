from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.merge.adapters.operators.rmm import basis, kept
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.adapters import EQUAL, Dense, FactorContract


def row_by_row(x: NDArray[np.float64], p: int) -> NDArray[np.float64]:
    """``m + U U' (X - m)`` for every place: (n, places, r) to the same."""
    out = np.empty_like(x)
    for place in range(x.shape[1]):
        here = x[:, place].T  # r x n
        mean = here.mean(axis=1, keepdims=True)
        u = np.linalg.svd(here - mean)[0][:, :p]
        out[:, place] = (mean + u @ (u.T @ (here - mean))).T
    return out


class TestRMM(FactorContract):
    name = "rmm"
    ranks = EQUAL

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        some = next(one for one in adapters if one is not None)
        zero = Dense(0.0 * some.B, 0.0 * some.A, 1.0)
        there = [zero if one is None else one for one in adapters]
        p, weights = int(values.one("p")), np.array(values.each("weight"))
        b = row_by_row(np.stack([one.scale * one.B for one in there]), p)
        a = row_by_row(np.stack([one.A.T for one in there]), p)
        return np.asarray(np.tensordot(weights, b, 1) @ np.tensordot(weights, a, 1).T)

    def values(self, seed: int = 0) -> tuple[float, ...]:
        *weights, _ = super().values(seed)
        return (*weights, float(seed % 4))

    @pytest.mark.parametrize("p", [2.0, 3.0, 8.0])
    def test_an_adapters_own_coefficients_give_it_back(self, pool: ModelPool, p: float) -> None:
        """Lossless at ``p >= min(r, n - 1)``: 3 and 2 here."""
        for at, member in enumerate(("one", "two", "three")):
            weights = tuple(float(at == other) for other in range(3))
            built = self.build(pool, self.recipe((*weights, p)))
            assert built.tobytes() == pool.vector(member).tobytes()

    def test_without_directions_every_adapter_is_the_mean(self, pool: ModelPool) -> None:
        one, other = (self.build(pool, self.recipe((*weights, 0.0))) for weights in ((1.0, 0.0, 0.0), (0.2, 0.3, 0.5)))
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4, 3), (3, 4, 7), (2, 1, 1), (8, 3, 2)])
def test_the_error_is_what_the_dropped_directions_hold(shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    n, places, r = shape
    for p in range(min(r, n - 1) + 1):
        errors = kept(x, basis(x)[..., :p]) - x
        for place in range(places):
            s = np.linalg.svd(x[:, place] - x[:, place].mean(axis=0), compute_uv=False)
            assert np.sum(errors[:, place] ** 2) == pytest.approx(np.sum(s[p:] ** 2), rel=1e-5, abs=1e-9)
