from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.operators.compeft import ComPEFT
from evomerge.merge.operators.port import Values
from evomerge.testing.operator import SIZE, OperatorContract, Whole


class TestComPEFT(OperatorContract):
    name = "compeft"

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {name: tensor[0].copy() for name, tensor in theta.items()}
        for expert, (keep, alpha) in enumerate(zip(values.each("keep"), values.each("alpha"), strict=True), 1):
            tau = {name: tensor[expert] - tensor[0] for name, tensor in theta.items()}
            every = np.concatenate([one.ravel() for one in tau.values()])
            kept = round(keep * SIZE)
            smallest = np.sort(np.abs(every))[SIZE - kept] if kept else np.inf
            for name, one in tau.items():
                found[name] += alpha * every.std() * np.where(np.abs(one) >= smallest, np.sign(one), 0.0)
        return found


class TestComPEFTOfOneExpert(TestComPEFT):
    sources = 2


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.1, 10.0))
def test_what_it_adds_has_three_values(tmp_path_factory: pytest.TempPathFactory, keep: float, alpha: float) -> None:
    contract = TestComPEFTOfOneExpert()
    vectors = contract.vectors(1)
    vectors[0] = 0.0
    pool = contract.make_pool(tmp_path_factory.mktemp("pool"), vectors)
    found = contract.build(pool, contract.recipe((keep, alpha)))
    assert len(np.unique(np.abs(found[found != 0.0]))) == 1
    assert np.count_nonzero(found) == round(keep * SIZE)
    assert (np.sign(found) == np.where(found != 0.0, np.sign(vectors[1]), 0.0)).all()


def test_everything_kept_is_the_sign_times_the_deviation(tmp_path: Path) -> None:
    contract = TestComPEFTOfOneExpert()
    vectors = contract.vectors(2)
    vectors[0] = 0.0
    pool = contract.make_pool(tmp_path, vectors)
    found = contract.build(pool, contract.recipe((1.0, 2.0)))
    np.testing.assert_allclose(found, 2.0 * vectors[1].std() * np.sign(vectors[1]), rtol=1e-5)


def test_nothing_kept_is_the_base(tmp_path: Path) -> None:
    contract = TestComPEFT()
    pool = contract.make_pool(tmp_path, contract.vectors(3))
    found = contract.build(pool, contract.recipe((0.0, 0.0, 1.0, 1.0)))
    assert found.tobytes() == pool.vector("one").tobytes()


def test_experts_are_added(tmp_path: Path) -> None:
    both, single = TestComPEFT(), TestComPEFTOfOneExpert()
    pool = both.make_pool(tmp_path, both.vectors(4))
    base = pool.vector("one")
    one, two = (single.build(pool, single.recipe((0.2, 0.7), ["one", member])) - base for member in ("two", "three"))
    found = both.build(pool, both.recipe((0.2, 0.2, 0.7, 0.7))) - base
    np.testing.assert_allclose(found, one + two, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_kernel_gives_the_bytes_of_the_plain_text(seed: int, experts: int) -> None:
    draw = np.random.default_rng(seed)
    theta = draw.choice([-1.5, -0.0, 0.0, 0.3, 1.5], (experts + 1, 5000)).astype(np.float32)
    theta[:, 2500:] = draw.standard_normal((experts + 1, 2500)).astype(np.float32)
    prepared = [(float(draw.random()), float(draw.standard_normal())) for _ in range(experts)]
    merge = ComPEFT()
    found = merge.merge(
        SimpleNamespace(theta=theta), merge.values((0.2,) * experts + (1.0,) * experts, experts + 1), prepared
    )
    assert found.tobytes() == merge.plain(theta, prepared).tobytes()
