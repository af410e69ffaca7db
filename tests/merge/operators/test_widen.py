from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.merge.kernels.columns import add_products
from evomerge.merge.operators import widen
from evomerge.merge.operators.port import Values
from evomerge.merge.operators.widen import Widen, _scores
from evomerge.testing.operator import OperatorContract, Whole

Doubles = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)


def significance(base: Doubles, expert: Doubles) -> tuple[Doubles, Doubles]:
    """Of every column of a matrix, written plainly."""
    size, direction = [], []
    for one, two in zip(base.T, expert.T, strict=True):
        norms = np.linalg.norm(one), np.linalg.norm(two)
        size.append(abs(norms[1] - norms[0]))
        direction.append(1 - one @ two / (norms[0] * norms[1]) if min(norms) > 0 else float(max(norms) > 0))
    ranks = [np.argsort(np.argsort(change, kind="stable"), kind="stable") / len(change) for change in (size, direction)]
    return ranks[0], ranks[1]


def scores(significances: Doubles, t: float, s: float) -> Doubles:
    softmax = np.exp(significances) / np.exp(significances).sum(axis=0)
    mean = significances.mean(axis=tuple(range(1, significances.ndim)), keepdims=True)
    return np.where(significances > t * mean, s, softmax)


class TestWiden(OperatorContract):
    name = "widen"
    homogeneous = False  # a softmax of magnitudes
    embeddings = "none"

    def direct(self, theta: Whole, values: Values) -> Whole:
        t, s, scale = (values.one(name) for name in ("t", "s", "lambda"))
        found = {}
        for name, (base, *experts) in theta.items():
            by_row = name == self.embeddings
            if base.ndim == 1:
                each = scores(np.stack([abs(expert - base) for expert in experts]), t, s)
            else:
                pairs = [significance(*(m.T if by_row else m for m in (base, expert))) for expert in experts]
                each = (
                    scores(np.stack([p[0] for p in pairs]), t, s) + scores(np.stack([p[1] for p in pairs]), t, s)
                ) / 2
                each = each[:, :, None] if by_row else each[:, None, :]
            found[name] = base + scale * sum(one * (expert - base) for one, expert in zip(each, experts, strict=True))
        return found


class TestWidenOfEmbeddings(TestWiden):
    embeddings = "first.0.weight"

    @pytest.fixture(autouse=True)
    def _embeddings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(widen, "is_embeddings", lambda name: name == self.embeddings)


class TestWidenOfOneExpert(TestWiden):
    sources = 2


def built(tmp_path: Path, values: tuple[float, ...], sources: int = 3) -> tuple[Doubles, Doubles]:
    contract = TestWiden() if sources == 3 else TestWidenOfOneExpert()
    pool = contract.make_pool(tmp_path, contract.vectors(1))
    sources_ = np.stack([pool.vector(member) for member in pool.sources])
    return sources_, contract.build(pool, contract.recipe(values))


def test_a_single_expert_is_returned_exactly(tmp_path: Path) -> None:
    theta, found = built(tmp_path, (1.0, 1.0, 1.0), sources=2)
    assert found.tobytes() == theta[1].tobytes()


def test_below_zero_the_threshold_gives_task_arithmetic(tmp_path: Path) -> None:
    theta, found = built(tmp_path, (-1.0, 0.7, 1.0))
    expected = theta[0] + 0.7 * (theta[1:] - theta[0]).sum(axis=0)
    several = np.r_[0:80, 84:105]  # but of a single column, whose significance is the mean one, whatever t is
    np.testing.assert_allclose(found[several], expected[several], rtol=1e-5, atol=1e-6)


@given(seeds, st.integers(1, 5), st.integers(1, 30))
def test_from_two_on_no_column_is_calibrated_and_scores_sum_to_one(seed: int, experts: int, columns: int) -> None:
    draw = np.random.default_rng(seed)
    ranks = np.stack([draw.permutation(columns) for _ in range(experts)]) / columns
    values = Widen().values((2.0, 5.0, 1.0), experts + 1)
    np.testing.assert_allclose(_scores(ranks, (columns - 1) / 2 / columns, values).sum(axis=0), 1.0)


@given(seeds, st.integers(1, 5), st.integers(1, 30), st.floats(-1, 3), st.floats(1, 3))
def test_scores_sum_to_no_less_than_one(seed: int, experts: int, columns: int, t: float, s: float) -> None:
    draw = np.random.default_rng(seed)
    ranks = np.stack([draw.permutation(columns) for _ in range(experts)]) / columns
    total = _scores(ranks, (columns - 1) / 2 / columns, Widen().values((t, s, 1.0), experts + 1)).sum(axis=0)
    assert (total >= 1.0 - 1e-12).all()
    assert (total <= experts * s + 1e-12).all()


def test_unchanged_columns_rank_lowest_in_the_order_of_their_places(tmp_path: Path) -> None:
    contract = TestWidenOfOneExpert()
    vectors = contract.vectors(2)
    vectors[1] = vectors[0]
    vectors[1, [2, 7]] += 0.5  # of first.0.weight (6, 10)
    pool = contract.make_pool(tmp_path, vectors)
    expected = contract.expected([pool.vector(member) for member in pool.sources], (1.0, 0.5, 1.0))
    found = contract.build(pool, contract.recipe((1.0, 0.5, 1.0)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found[[2, 7]] - vectors[0, [2, 7]], 0.25, rtol=1e-5)


@pytest.mark.parametrize("source", [0, 1])
def test_columns_of_zeros_are_no_division_by_zero(tmp_path: Path, source: int) -> None:
    contract = TestWiden()
    vectors = contract.vectors(3)
    vectors[source, :60].reshape(6, 10)[:, 4] = 0.0
    pool = contract.make_pool(tmp_path, vectors)
    expected = contract.expected([pool.vector(member) for member in pool.sources], contract.values())
    np.testing.assert_allclose(contract.build(pool, contract.recipe(contract.values())), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=30)
@given(seeds, st.integers(1, 40), st.integers(1, 9), st.integers(0, 40))
def test_sums_down_columns_are_the_same_however_rows_are_cut(seed: int, rows: int, columns: int, cut: int) -> None:
    one, two = np.random.default_rng(seed).standard_normal((2, rows, columns)).astype(np.float32)
    whole, parts = np.zeros((2, columns))
    add_products(one, two, whole)
    add_products(one[:cut], two[:cut], parts)
    add_products(one[cut:], two[cut:], parts)
    assert whole.tobytes() == parts.tobytes()
    np.testing.assert_allclose(whole, np.einsum("rc,rc->c", one, two, dtype=np.float64), rtol=1e-12, atol=1e-12)
