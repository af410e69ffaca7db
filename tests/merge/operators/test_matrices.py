from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from evomerge.candidate import Recipe, Segment
from evomerge.errors import PoolError, RecipeError
from evomerge.merge.build import Builder
from evomerge.merge.operators import matrices
from evomerge.merge.operators.matrices import polar, svd
from evomerge.merge.operators.port import operator
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint
from tests.merge.operators.tasks import build, merged, pool_of, taus

VALUES = {
    "wudi": (30.0, 0.8, 1.0),
    "wudi_weighted": (30.0, 0.8, 1.0, 1.0, 2.0, 3.0),
    "tsv_m": (1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0),
    "opcm": (0.5, 1.0),
    "doge": (0.07, 0.5),
    "twin": (0.5, 0.3, 0.8),
}
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(st.integers(0, 10**6), shapes)
def test_a_decomposition_gives_the_matrix_back(seed: int, shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(seed).standard_normal(shape)
    left, values, right = svd(matrix, "it")
    np.testing.assert_allclose((left * values) @ right.T, matrix, atol=1e-7)
    np.testing.assert_allclose(values, np.linalg.svd(matrix, compute_uv=False)[: len(values)], rtol=1e-6, atol=1e-6)
    for columns in (left, right):
        np.testing.assert_allclose(columns.T @ columns, np.eye(len(values)), atol=1e-3)


def test_a_decomposition_keeps_only_what_is_there() -> None:
    random = np.random.default_rng(1)
    matrix = random.standard_normal((9, 2)) @ random.standard_normal((2, 7))
    assert len(svd(matrix, "it").values) == 2
    assert len(svd(matrix, "it", 1).values) == 1
    assert len(svd(np.zeros((3, 4)), "it").values) == 0


@given(st.integers(0, 10**6))
def test_the_polar_factor_is_the_nearest_with_orthonormal_columns(seed: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal((8, 3))
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(polar(matrix, "it"), left @ right, atol=1e-6)


def test_equal_columns_share_their_place_in_the_polar_factor() -> None:
    one = np.linalg.qr(np.random.default_rng(2).standard_normal((8, 3)))[0]
    found = polar(np.hstack([one, one]), "it")
    np.testing.assert_allclose(found, np.hstack([one, one]) / np.sqrt(2), atol=1e-9)
    np.testing.assert_allclose(found @ found.T, one @ one.T, atol=1e-9)


@pytest.mark.parametrize("name", VALUES)
def test_the_number_of_threads_changes_no_byte(name: str) -> None:
    of = taus(3, (501, 407))
    with threadpool_limits(1, user_api="blas"):
        one = merged(name, of, VALUES[name])
    with threadpool_limits(2, user_api="blas"):
        two = merged(name, of, VALUES[name])
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("name", VALUES)
def test_threads_that_read_at_once_read_the_same(name: str, tmp_path: Path) -> None:
    names = [f"w{at}" for at in range(6)]
    for member in range(4):
        random = np.random.default_rng(member)
        tensors = {one: random.standard_normal((90, 70)).astype(np.float32) for one in names}
        save_checkpoint(tmp_path / f"{member}.safetensors", tensors)
    pool = ModelPool.open(PoolSettings(members={f"m{at}": f"{at}.safetensors" for at in range(4)}), tmp_path)
    recipe = Recipe(name, tuple(f"pool:{one}" for one in pool.sources), (Segment("all", 0, pool.size, VALUES[name]),))

    def read(threads: int) -> list[bytes]:
        builder = Builder(pool, "table")
        vector = builder.resolve(recipe)
        with ThreadPoolExecutor(threads) as executor:
            whole = executor.map(lambda slot: builder.read(vector, slot, 0, slot.size), pool.layout.slots)
            return [one.tobytes() for one in whole]

    assert read(1) == read(4)


@pytest.mark.parametrize("name", VALUES)
def test_the_pool_is_decomposed_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda *a: calls.append(1) or eigh(*a))
    pool = pool_of(tmp_path, taus(4, (12, 9), experts=2 if name == "opcm" else 3))
    values = VALUES[name] if name != "tsv_m" else (1.0,) * 7

    def once() -> Any:
        segments = (Segment("all", 0, pool.size, values),)
        recipe = Recipe(name, tuple(f"pool:{one}" for one in pool.sources), segments)
        return build(Builder(pool, "table", gram_cache=tmp_path / "cache"), recipe).tobytes()

    first, found = once(), len(calls)
    assert first == once()
    assert found > 0
    assert len(calls) == found * (2 if name == "wudi_weighted" else 1)


@pytest.mark.parametrize("name", [name for name in VALUES if name != "doge"])
def test_short_task_vectors_are_merged_like_long_ones(name: str) -> None:
    of = taus(5, (12, 9))
    small = merged(name, [1e-6 * one for one in of], VALUES[name])
    np.testing.assert_allclose(1e6 * small, merged(name, of, VALUES[name]), atol=1e-4)


def test_a_matrix_too_large_to_decompose_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "LARGEST", 8)
    with pytest.raises(RecipeError, match=r"w needs an eigenproblem of side 9.* leave"):
        merged("wudi", taus(6, (12, 9)), VALUES["wudi"])


def test_a_matrix_that_is_not_finite_is_named() -> None:
    of = taus(7)
    of[1][2, 3] = np.inf
    with pytest.raises(PoolError, match="'w'"):
        merged("opcm", of, VALUES["opcm"])


def test_unknown_choices_are_named() -> None:
    with pytest.raises(RecipeError, match="median"):
        operator("wudi", (("others", "median"),))
