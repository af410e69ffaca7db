from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.operators.consensus import Consensus
from evomerge.merge.operators.port import Values, operator
from evomerge.merge.pool import ModelPool
from evomerge.testing.operator import SIZE, OperatorContract, Whole, whole

Doubles = NDArray[np.float64]


def consensus(taus: Doubles, together: Doubles, values: Values) -> Doubles:
    claims = [abs(tau) >= claim * abs(together - tau) for claim, tau in zip(values.each("lambda"), taus, strict=True)]
    found: Doubles = values.one("alpha") * (np.sum(claims, axis=0) >= values.one("k")) * together
    return found


class TestConsensus(OperatorContract):
    name = "consensus"

    def direct(self, theta: Whole, values: Values) -> Whole:
        return {
            name: tensor[0] + consensus(tensor[1:] - tensor[0], (tensor[1:] - tensor[0]).sum(axis=0), values)
            for name, tensor in theta.items()
        }


class TestConsensusTies(OperatorContract):
    name = "consensus_ties"

    def direct(self, theta: Whole, values: Values) -> Whole:
        names = list(theta)
        flat = np.concatenate([theta[name].reshape(self.sources, -1) for name in names], axis=1)
        taus = flat[1:] - flat[0]
        smallest = np.sort(abs(taus), axis=1)[:, SIZE - round(values.one("density") * SIZE), None]
        trimmed = np.where(abs(taus) >= smallest, taus, 0.0)
        sign = np.where(trimmed.sum(axis=0) >= 0.0, 1.0, -1.0)
        together = np.where(np.sign(trimmed) == sign, trimmed, 0.0).sum(axis=0)
        return whole(flat[0] + consensus(taus, together, values))


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    return TestConsensus().make_pool(tmp_path, TestConsensus().vectors(1))


def built(pool: ModelPool, *values: float, name: str = "consensus") -> Doubles:
    contract = TestConsensus() if name == "consensus" else TestConsensusTies()
    return contract.build(pool, contract.recipe(tuple(map(float, values)))).astype(np.float64)


def theta(pool: ModelPool) -> Doubles:
    return np.stack([pool.vector(member) for member in pool.sources]).astype(np.float64)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_lambda_zero_claims_everything(pool: ModelPool, k: int) -> None:
    base, *experts = theta(pool)
    np.testing.assert_allclose(
        built(pool, 0.0, 0.0, k, 0.5), base + 0.5 * sum(e - base for e in experts), rtol=1e-5, atol=1e-6
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=4, max_size=4), st.sampled_from([1, 2]))
def test_masks_shrink_as_lambda_grows_and_nest_in_k(lambdas: list[float], k: int) -> None:
    contract = TestConsensus()
    taus = contract.vectors(1)[1:] - contract.vectors(1)[0]
    pairs = list(zip(sorted(lambdas[:2]), sorted(lambdas[2:]), strict=True))
    small, large = (contract.operator().values((*pair, k, 1.0), 3) for pair in pairs)
    loose = contract.operator().values((*pairs[0], k - 1, 1.0), 3)
    kept = [consensus(taus, taus.sum(axis=0), values) != 0.0 for values in (large, small, loose)]
    assert not (kept[0] & ~kept[1]).any()
    assert not (kept[1] & ~kept[2]).any()


def test_one_expert_that_claims_for_itself_is_task_arithmetic(tmp_path: Path) -> None:
    contract = TestConsensus()
    contract.sources = 2  # type: ignore[misc]
    pool = contract.make_pool(tmp_path, contract.vectors(1))
    base, expert, _ = theta(pool)
    found = contract.build(pool, contract.recipe((0.7, 1.0, 0.4)))
    np.testing.assert_allclose(found, base + 0.4 * (expert - base), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["consensus", "consensus_ties"])
def test_more_claims_than_experts_are_refused(name: str) -> None:
    flat = (0.4, 0.4, 3, 1.0, 0.2)
    with pytest.raises(RecipeError, match="k = 3 is impossible: there are 2 experts"):
        operator(name).values(flat[: operator(name).width(3)], 3)


@pytest.mark.parametrize(("claim", "kept"), [(0.9, True), (1.1, False)])
def test_two_identical_experts_agree_up_to_lambda_one(tmp_path: Path, claim: float, kept: bool) -> None:
    vectors = TestConsensus().vectors(1)
    vectors[2] = vectors[1]
    pool = TestConsensus().make_pool(tmp_path, vectors)
    base, expert, _ = theta(pool)
    found = built(pool, claim, claim, 2, 1.0)
    np.testing.assert_allclose(found, base + kept * 2.0 * (expert - base), rtol=1e-5, atol=1e-6)


def test_ties_that_keeps_all_of_agreeing_experts_is_the_sum(tmp_path: Path) -> None:
    vectors = TestConsensus().vectors(1)
    vectors[2] = vectors[0] + 2.0 * (vectors[1] - vectors[0])
    pool = TestConsensus().make_pool(tmp_path, vectors)
    one, two = built(pool, 0.3, 0.3, 1, 1.0), built(pool, 0.3, 0.3, 1, 1.0, 1.0, name="consensus_ties")
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_ties_leaves_alone_what_no_expert_changes_much(pool: ModelPool) -> None:
    base, *experts = theta(pool)
    found = built(pool, 0.0, 0.0, 0, 1.0, 0.1, name="consensus_ties")
    largest = [np.abs(expert - base) >= np.sort(np.abs(expert - base))[-round(0.1 * SIZE)] for expert in experts]
    np.testing.assert_array_equal(found != base, np.any(largest, axis=0))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["consensus", "consensus_ties"]), st.integers(1, 4))
def test_the_kernel_gives_the_bytes_of_the_plain_text(seed: int, name: str, experts: int) -> None:
    draw = np.random.default_rng(seed)
    theta = draw.choice([-1.5, -0.0, 0.0, 0.3, 1.5], (experts + 1, 5000)).astype(np.float32)
    theta[:, 2500:] = draw.standard_normal((experts + 1, 2500)).astype(np.float32)
    flat = (*draw.random(experts), float(draw.integers(experts + 1)), 0.7, 0.4)
    merge = operator(name)
    assert isinstance(merge, Consensus)
    values = merge.values(flat[: merge.width(experts + 1)], experts + 1)
    thresholds = list(2 * draw.random(experts)) if merge.elects else [0.0] * experts
    found = merge.merge(SimpleNamespace(theta=theta), values, thresholds)
    assert found.tobytes() == merge.plain(theta, values, thresholds).tobytes()
