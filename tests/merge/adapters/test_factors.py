import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.merge.adapters.factors import Factors, stretch, total


def drawn(out: int, rank: int, into: int, scale: float = 1.0, seed: int = 0) -> Factors:
    random = np.random.default_rng(seed)
    b, a = random.standard_normal((out, rank)), random.standard_normal((rank, into))
    return Factors(b.astype(np.float32), a.astype(np.float32), scale)


def dense(one: Factors | None, shape: tuple[int, int] = (0, 0)) -> NDArray[np.float64]:
    return np.zeros(shape) if one is None else one.scale * one.B.astype(np.float64) @ one.A.astype(np.float64)


@pytest.mark.parametrize("rank", [0, 1, 3, 4, 5, 17])
def test_values_are_the_product_to_rounding(rank: int) -> None:
    one = drawn(6, rank, 2500, 0.7)
    np.testing.assert_allclose(one.values(0, 15_000), dense(one).ravel(), rtol=1e-5, atol=1e-5)
    assert one.rank == rank
    assert one.shape == (6, 2500)


@given(st.integers(1, 4), st.integers(0, 9), st.integers(1, 3000), st.data())
def test_any_cut_gives_the_same_bytes(out: int, rank: int, into: int, data: st.DataObject) -> None:
    one = drawn(out, rank, into, -1.3)
    whole = one.values(0, out * into)
    start = data.draw(st.integers(0, out * into))
    stop = data.draw(st.integers(start, out * into))
    assert one.values(start, stop).tobytes() == whole[start:stop].tobytes()


def test_a_total_is_the_weighted_sum_and_its_rank_the_sum_of_ranks() -> None:
    terms = [(0.5, drawn(5, 2, 7, 2.0, 1)), (-1.25, drawn(5, 3, 7, 0.1, 2)), (3.0, drawn(5, 0, 7))]
    found = total(terms)
    assert found is not None
    assert found.rank == 5
    np.testing.assert_allclose(dense(found), sum(c * dense(term) for c, term in terms), rtol=1e-6, atol=1e-6)


def test_a_total_of_one_term_keeps_its_bytes() -> None:
    one = drawn(5, 2, 7)
    found = total([(1.0, one)])
    assert found is not None
    assert (found.B.tobytes(), found.A.tobytes()) == (one.B.tobytes(), one.A.tobytes())


def test_a_total_of_nothing_is_none() -> None:
    assert total([]) is None
    assert total([(0.0, drawn(5, 2, 7)), (1.0, drawn(5, 0, 7)), (1.0, drawn(5, 1, 7, scale=0.0))]) is None


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 6), st.data())
def test_a_stretch_is_that_part_alone(out: int, rank: int, into: int, data: st.DataObject) -> None:
    one = drawn(out, rank, into, 0.5)
    start = data.draw(st.integers(0, out * into))
    stop = data.draw(st.integers(start, out * into))
    terms = list(stretch(one, start, stop))
    expected = np.zeros(out * into)
    expected[start:stop] = dense(one).ravel()[start:stop]
    found = sum((dense(term) for term in terms), np.zeros((out, into)))
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5, atol=1e-6)
    assert sum(term.rank for term in terms) <= rank + (start % into > 0) + (stop % into > 0)
