from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.merge.adapters.factors import Factors
from evomerge.merge.adapters.merged import MergedAdapter
from evomerge.merge.adapters.operators.svd import count
from evomerge.merge.build import Builder
from evomerge.merge.operators.port import Values
from evomerge.merge.pool import ModelPool
from evomerge.testing.adapters import Dense, FactorContract

RANK = 2
"""Of the tests: the tensors' own are at most 6."""


class TestLoraSVD(FactorContract):
    name = "lora_svd"

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        weights = values.each("weight")
        there = [(w, one) for w, one in zip(weights, adapters, strict=True) if one is not None]
        u, s, vt = np.linalg.svd(np.asarray(sum(w * one.scale * one.B @ one.A for w, one in there)))
        energy = np.cumsum(s**2) / np.sum(s**2)
        kept = min(int(values.one("rank")), 1 + int(np.count_nonzero(energy < values.one("energy"))))
        return np.asarray(u[:, :kept] * s[:kept] @ vt[:kept])

    def values(self, seed: int = 0) -> tuple[float, ...]:
        *weights, _, energy = super().values(seed)
        return (*weights, float(1 + seed % 5), energy)

    def factors(self, pool: ModelPool, values: tuple[float, ...], name: str = "first.0.weight") -> Factors:
        vector = Builder(pool, "table").resolve(self.recipe(values))
        assert isinstance(vector, MergedAdapter)
        found = vector.factors(next(slot for slot in pool.layout.slots if slot.name == name))
        assert found is not None
        return found

    def test_with_the_whole_rank_it_is_the_sum(self, pool: ModelPool) -> None:
        weights = (0.3, -0.7, 1.1)
        cat = self.recipe(weights)
        whole = self.build(pool, self.recipe((*weights, 7.0, 1.0)))
        np.testing.assert_allclose(whole, self.build(pool, replace(cat, operator="lora_cat")), rtol=1e-5, atol=1e-5)

    def test_rank_and_energy_bound_the_rank(self, pool: ModelPool) -> None:
        ones = (1.0, 1.0, 1.0)
        assert self.factors(pool, (*ones, 3.0, 1.0)).rank == 3
        assert 1 <= self.factors(pool, (*ones, 64.0, 0.5)).rank < 6
        assert self.factors(pool, (*ones, 64.0, 1.0)).rank == 6  # of the sum, which is 7 ranks over 6 rows

    def test_equal_adapters_have_the_rank_of_one(self, tmp_path: Path) -> None:
        adapters = self.adapters(3)
        pool = self.make_pool(tmp_path, dict.fromkeys(adapters, adapters["one"]))
        assert self.factors(pool, (0.5, 0.25, 0.25, 64.0, 1.0)).rank == self.ranks["one"]

    def test_factors_are_balanced_and_their_signs_fixed(self, pool: ModelPool) -> None:
        one = self.factors(pool, (1.0, 1.0, 1.0, 4.0, 1.0))
        other = self.factors(pool, (-1.0, -1.0, -1.0, 4.0, 1.0))
        np.testing.assert_allclose(np.linalg.norm(one.B, axis=0), np.linalg.norm(one.A, axis=1), rtol=1e-5)
        for found in (one, other):
            assert (found.B[np.abs(found.B).argmax(axis=0), range(4)] > 0.0).all()
        np.testing.assert_allclose(one.B, other.B, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.A, -other.A, rtol=1e-4, atol=1e-5)

    def test_no_other_adapter_of_the_rank_is_nearer(self, pool: ModelPool) -> None:
        """Eckart-Young: the error is what the dropped singular values hold."""
        first = [modules["first.0.weight"] for modules in self.adapters(1).values()]
        dense = np.asarray(sum(one.scale * one.B @ one.A for one in first))
        found = self.factors(pool, (1.0, 1.0, 1.0, float(RANK), 1.0))
        s = np.linalg.svd(dense, compute_uv=False)
        error = np.linalg.norm(dense - found.values(0, 60).reshape(6, 10))
        assert error == pytest.approx(np.sqrt(np.sum(s[RANK:] ** 2)), rel=1e-4)


@given(st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=8), st.integers(0, 9), st.floats(0.01, 1.0))
def test_count_is_the_fewest_that_hold_the_energy(values: list[float], rank: int, energy: float) -> None:
    s = np.sort(np.array(values))[::-1]
    kept = count(s, rank, energy)
    squares = s**2
    assert kept <= rank
    if kept < rank:
        assert squares[:kept].sum() >= energy * squares.sum() * (1.0 - 1e-9)
    if kept:
        assert squares[: kept - 1].sum() < energy * squares.sum() * (1.0 + 1e-9)
