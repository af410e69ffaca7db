from pathlib import Path
from typing import Any

import numpy as np

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import OperatorContract, Whole


def importance(base: Any, other: Any) -> Any:
    rows = [np.atleast_2d(one) for one in (base, other)]
    q, p = (np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) + 1e-8 for one in rows)
    divergence = (p * np.log(p / q)).sum(axis=1, keepdims=True)
    return (np.abs(rows[1] - rows[0]) * divergence).reshape(base.shape)


class TestArceeFusion(OperatorContract):
    name = "arcee_fusion"
    sources = 2
    homogeneous = False  # importance is not

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, (base, other) in theta.items():
            sizes = importance(base, other)
            ordered = np.sort(sizes, axis=None)
            low, median, high = (ordered[int(q * (ordered.size - 1))] for q in (0.25, 0.5, 0.75))
            least = median + values.one("fence") * (high - low)
            found[name] = np.where(sizes >= least * (1 - 1e-9), other, base)
        return found


def test_a_higher_fence_takes_less_and_always_either_sources_value(tmp_path: Path) -> None:
    contract = TestArceeFusion()
    vectors = contract.vectors(1).astype(np.float32)
    pool = contract.make_pool(tmp_path, vectors)
    taken = []
    for fence in (0.0, 1.0, 2.0):
        built = contract.build(pool, contract.recipe((fence,)), "table")
        assert ((built == vectors[0]) | (built == vectors[1])).all()
        taken.append(built == vectors[1])
    assert (taken[2] <= taken[1]).all()
    assert (taken[1] <= taken[0]).all()
    assert 0 < taken[2].sum() < taken[0].sum()


def test_the_row_that_diverges_most_is_taken_first(tmp_path: Path) -> None:
    contract = TestArceeFusion()
    vectors = contract.vectors(2).astype(np.float32)
    vectors[1] = vectors[0]
    vectors[1, :60] += 0.01 * np.tile([1, -1], 30)
    vectors[1, 20:30] += np.tile([1, -1], 5)  # the third row of the first tensor
    built = contract.build(contract.make_pool(tmp_path, vectors), contract.recipe((1.5,)), "table")
    assert np.array_equal(np.flatnonzero(built[:60] != vectors[0, :60]), np.arange(20, 30))
