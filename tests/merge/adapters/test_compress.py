import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merge.adapters.compress import nearest, smaller
from evomerge.merge.adapters.factors import Factors


def dense(one: Factors | None) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    assert one is not None
    return one.scale * one.B.astype(np.float64) @ one.A.astype(np.float64)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 6), st.integers(1, 8))
def test_factors_shrink_to_the_best_of_their_rank(out: int, into: int, has: int, rank: int) -> None:
    draw = np.random.default_rng([out, into, has])
    one = Factors(
        draw.standard_normal((out, has)).astype(np.float32), draw.standard_normal((has, into)).astype(np.float32), 0.5
    )
    found = smaller(one, rank)
    s = np.linalg.svd(dense(one), compute_uv=False)
    assert found.whole == pytest.approx(np.sum(s**2), rel=1e-6)
    assert found.lost == pytest.approx(0.0 if has <= rank else np.sum(s[rank:] ** 2), rel=1e-6, abs=1e-9 * found.whole)
    assert found.error == pytest.approx(np.sqrt(found.lost / found.whole))
    assert np.linalg.norm(dense(one) - dense(found.factors)) ** 2 == pytest.approx(found.lost, rel=1e-3, abs=1e-8)
    if has <= rank:
        assert found.factors is one


@pytest.mark.parametrize("shape", [(40, 25), (300, 200), (200, 300)])
@pytest.mark.parametrize("rank", [1, 5])
def test_a_matrix_is_nearly_its_best_and_its_error_the_true_one(shape: tuple[int, int], rank: int) -> None:
    draw = np.random.default_rng(0)
    signal = draw.standard_normal((shape[0], 8)) * 2.0 ** -np.arange(8) @ draw.standard_normal((8, shape[1]))
    matrix = (signal + 0.01 * draw.standard_normal(shape)).astype(np.float32)
    found = nearest(matrix, rank)
    best = np.sum(np.linalg.svd(matrix.astype(np.float64), compute_uv=False)[rank:] ** 2)
    true = np.linalg.norm(matrix - dense(found.factors)) ** 2
    assert found.lost == pytest.approx(true, rel=1e-4)
    assert best * (1.0 - 1e-6) <= found.lost <= best * 1.001
    assert found.whole == pytest.approx(np.sum(matrix.astype(np.float64) ** 2))


def test_the_flattest_spectrum_costs_a_few_per_cent() -> None:
    """Noise has no best directions worth finding; the reported error is still the true one."""
    matrix = np.random.default_rng(1).standard_normal((256, 256)).astype(np.float32)
    found = nearest(matrix, 8)
    best = np.sum(np.linalg.svd(matrix, compute_uv=False)[8:] ** 2)
    assert best * (1.0 - 1e-5) <= found.lost <= 1.03 * best


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (50, 50)])
def test_a_matrix_of_zeros_has_no_factors(shape: tuple[int, int]) -> None:
    assert nearest(np.zeros(shape, np.float32), 3) == (None, 0.0, 0.0)
    assert nearest(np.zeros(shape, np.float32), 3).error == 0.0


def test_the_whole_rank_loses_nothing() -> None:
    matrix = np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)
    found = nearest(matrix, 4)
    assert found.lost == 0.0
    np.testing.assert_allclose(dense(found.factors), matrix, rtol=1e-5, atol=1e-6)
