from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evomerge.merge.adapters.operators.fusion import sparse
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.adapters import EQUAL, Dense, FactorContract


def trimmed(values: NDArray[np.float64], keep: float) -> NDArray[np.float64]:
    """By a full sort."""
    count = round(keep * values.size)
    order = np.sort(np.abs(values), axis=None)[::-1]
    return np.where(np.abs(values) >= order[count - 1], values, 0.0) if count else np.zeros_like(values)


class TestFactorFusion(FactorContract):
    name = "factor_fusion"
    ranks = EQUAL

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        alphas, betas = values.each("alpha"), values.each("beta")
        there = [(a, b, one) for a, b, one in zip(alphas, betas, adapters, strict=True) if one is not None]
        left = sum(beta * one.scale * one.B for _, beta, one in there)
        return np.asarray(left @ sum(beta * trimmed(one.A, alpha) for alpha, beta, one in there))

    def test_one_adapter_whole_is_that_model(self, pool: ModelPool) -> None:
        built = self.build(pool, self.recipe((1.0, 1.0, 1.0, 0.0, 1.0, 0.0)))
        assert built.tobytes() == pool.vector("two").tobytes()

    def test_negative_betas_are_the_same_model(self, pool: ModelPool) -> None:
        one, other = (
            self.build(pool, self.recipe((0.5, 1.0, 0.3, *(sign * beta for beta in (0.7, -0.2, 1.1)))))
            for sign in (1.0, -1.0)
        )
        assert one.tobytes() == other.tobytes()

    def test_scaled_betas_scale_the_difference_by_the_square(self, pool: ModelPool) -> None:
        base = pool.vector("base")
        small, large = (
            self.build(pool, self.recipe((0.5, 1.0, 0.3, *(c * beta for beta in (0.7, -0.2, 1.1))))) - base
            for c in (1.0, 3.0)
        )
        np.testing.assert_allclose(large, 9.0 * small, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("values", [(0.0, 0.0, 0.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)])
    def test_nothing_kept_is_the_base(self, pool: ModelPool, values: tuple[float, ...]) -> None:
        assert self.build(pool, self.recipe(values)).tobytes() == pool.vector("base").tobytes()

    def test_depends_on_how_the_product_is_split(self, pool: ModelPool) -> None:
        """The same adapters as models, ``(c A, B / c)`` as factors: cross terms differ."""
        adapters = self.adapters(1)
        one = adapters["one"]["first.0.weight"]
        other = adapters["two"]["first.0.weight"]
        values = self.operator().values((1.0, 1.0, 1.0, 1.0, 1.0, 0.0), 4)
        turned = one._replace(A=2.0 * one.A, B=one.B / 2.0)
        assert (
            np.abs(
                np.asarray(self.direct([one, other, None], values)) - self.direct([turned, other, None], values)
            ).max()
            > 0.1
        )


@given(
    arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])),
    st.floats(0.0, 1.0),
)
def test_sparse_keeps_the_largest_and_their_equals(values: NDArray[np.float32], keep: float) -> None:
    found = sparse(values, keep)
    kept, dropped = np.abs(values[found != 0.0]), np.abs(values[(found == 0.0) & (values != 0.0)])
    assert np.count_nonzero(found) <= values.size
    assert np.count_nonzero(found) >= min(round(keep * values.size), np.count_nonzero(values))
    if len(kept) and len(dropped):
        assert kept.min() > dropped.max()
        assert np.count_nonzero(kept > kept.min()) < round(keep * values.size)
    np.testing.assert_array_equal(found[found != 0.0], values[found != 0.0])
