import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.merge.adapters.operators.clusters import k_means


def lines(seed: int, centres: int, each: int, spread: float) -> NDArray[np.float64]:
    """Unit vectors near ``centres`` perpendicular lines, on either side of the origin."""
    draw = np.random.default_rng(seed)
    where = np.repeat(np.eye(12)[:centres], each, axis=0) + spread * draw.standard_normal((centres * each, 12))
    where *= draw.choice([-1.0, 1.0], size=(len(where), 1))
    return where / np.linalg.norm(where, axis=1, keepdims=True)


def labels(means: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.abs(means).argmax(axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_finds_lines_that_are_far_apart_whatever_their_signs(seed: int) -> None:
    points = lines(seed, 4, 5, 0.05)
    found = k_means(points @ points.T, 4, seed)
    assert found.count == 4
    assert [len(set(labels(found.means)[at : at + 5])) for at in range(0, 20, 5)] == [1, 1, 1, 1]
    assert len(set(labels(found.means))) == 4
    np.testing.assert_allclose(np.linalg.norm(found.means @ points, axis=1), 1.0, atol=0.1)


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 3))
def test_every_vector_is_in_one_cluster_and_none_is_empty(n: int, k: int, seed: int) -> None:
    points = np.random.default_rng(n).standard_normal((n, 5))
    found = k_means(points @ points.T, k, seed)
    assert found.means.shape == (found.count, n)
    assert (np.count_nonzero(found.means, axis=0) == 1).all()
    np.testing.assert_allclose(np.abs(found.means).sum(axis=1), 1.0)
    assert found.count == (n if k >= n else min(k, found.count))


def test_rounds_end_where_every_vector_is_nearest_to_its_own_mean() -> None:
    points = lines(1, 5, 6, 0.4)
    found = k_means(points @ points.T, 4, 0)
    means = found.means @ points
    distances = np.minimum(*(np.linalg.norm(points[:, None] - sign * means, axis=2) for sign in (1.0, -1.0)))
    assert np.array_equal(distances.argmin(axis=1), labels(found.means))


def test_fewer_clusters_than_asked_where_vectors_are_equal() -> None:
    points = np.repeat(np.eye(3), 4, axis=0) * np.array([1.0, -1.0, 1.0, -1.0] * 3)[:, None]
    found = k_means(points @ points.T, 5, 0)
    assert found.count == 3


def test_the_seed_alone_decides() -> None:
    points = lines(2, 6, 4, 0.5)
    gram = points @ points.T
    assert np.array_equal(k_means(gram, 5, 1).means, k_means(gram, 5, 1).means)
    assert any(not np.array_equal(k_means(gram, 5, 1).means, k_means(gram, 5, seed).means) for seed in range(2, 9))
