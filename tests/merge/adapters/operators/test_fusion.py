from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evomerge.candidate import Recipe
from evomerge.merge.adapters.operators.fusion import sparse
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.adapters import EQUAL, Dense, FactorContract


def trimmed(values: NDArray[np.float64], keep: float) -> NDArray[np.float64]:
    """By a full sort."""
    count = max(round(keep * values.size), int(keep > 0))
    order = np.sort(np.abs(values), axis=None)[::-1]
    return np.where(np.abs(values) >= order[count - 1], values, 0.0) if count else np.zeros_like(values)


def terms(adapters: Sequence[Dense | None], values: Values) -> list[tuple[float, Dense]]:
    """beta_i s_i, and the adapter with its A trimmed."""
    each = zip(values.each("alpha"), values.each("beta"), adapters, strict=True)
    return [(b * one.scale, one._replace(A=trimmed(one.A, a))) for a, b, one in each if one is not None]


class TestFactorFusion(FactorContract):
    name = "factor_fusion"
    ranks = EQUAL

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        there = terms(adapters, values)
        return np.asarray(sum(c * one.B for c, one in there) @ sum(c / one.scale * one.A for c, one in there))

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


class TestFactorFusionBySignedRoots(FactorContract):
    name = "factor_fusion"
    options = (("mode", "sqrt_sign"),)
    ranks = EQUAL

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        there = terms(adapters, values)
        left = sum(np.sqrt(abs(c)) * one.B for c, one in there)
        return np.asarray(left @ sum(np.sign(c) * np.sqrt(abs(c)) * one.A for c, one in there))

    def test_of_one_adapter_a_negative_beta_subtracts_what_its_opposite_adds(self, pool: ModelPool) -> None:
        base = pool.vector("base")
        more, less = (self.build(pool, self.recipe((0.5, 1.0, 1.0, beta, 0.0, 0.0))) - base for beta in (0.7, -0.7))
        assert np.abs(more).max() > 0.1
        np.testing.assert_allclose(more, -less, rtol=1e-4, atol=1e-5)

    def test_with_every_entry_kept_it_is_pefts_linear(self, pool: ModelPool) -> None:
        betas = (0.7, -0.2, 1.1)
        linear = Recipe("lora_linear", self.recipe(()).sources, self.recipe(betas).segments)
        built = self.build(pool, self.recipe((1.0, 1.0, 1.0, *betas)))
        np.testing.assert_array_equal(built, self.build(pool, linear))


class TestFactorFusionConcatenated(FactorContract):
    name = "factor_fusion"
    options = (("mode", "concat"),)

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        return np.asarray(sum(c * one.B @ one.A for c, one in terms(adapters, values)))

    def test_scaled_betas_scale_the_difference_alike(self, pool: ModelPool) -> None:
        base = pool.vector("base")
        small, large = (
            self.build(pool, self.recipe((0.5, 1.0, 0.3, *(c * beta for beta in (0.7, -0.2, 1.1))))) - base
            for c in (1.0, -3.0)
        )
        np.testing.assert_allclose(large, -3.0 * small, rtol=1e-4, atol=1e-5)


class TestFactorFusionCompressed(TestFactorFusionConcatenated):
    options = (("mode", "svd"),)

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        u, s, vt = np.linalg.svd(np.asarray(super().direct(adapters, values)))
        kept = min(len(s), max(one.A.shape[0] for one in adapters if one is not None))
        return np.asarray(u[:, :kept] * s[:kept] @ vt[:kept])


def test_keep_fractions_by_hand() -> None:
    a = np.array([[3.0, -1.0, 2.0], [-2.0, 0.5, 0.0]], dtype=np.float32)
    kept = {
        0.0: [[0, 0, 0], [0, 0, 0]],
        0.01: [[3, 0, 0], [0, 0, 0]],  # at least one
        0.34: [[3, 0, 2], [-2, 0, 0]],  # two, and a third that equals the second
        0.7: [[3, -1, 2], [-2, 0, 0]],
        1.0: a,
    }
    for alpha, expected in kept.items():
        np.testing.assert_array_equal(sparse(a, alpha), np.array(expected, dtype=np.float32))


@given(
    arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])),
    st.floats(0.0, 1.0),
)
def test_sparse_keeps_the_largest_and_their_equals(values: NDArray[np.float32], keep: float) -> None:
    found, count = sparse(values, keep), max(round(keep * values.size), int(keep > 0))
    kept, dropped = np.abs(values[found != 0.0]), np.abs(values[(found == 0.0) & (values != 0.0)])
    assert np.count_nonzero(found) <= values.size
    assert np.count_nonzero(found) >= min(count, np.count_nonzero(values))
    if len(kept) and len(dropped):
        assert kept.min() > dropped.max()
        assert np.count_nonzero(kept > kept.min()) < count
    np.testing.assert_array_equal(found[found != 0.0], values[found != 0.0])
