from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.operators.delta import ALL, Aggregation, Election, Plan, Sieve, Sieves, blended, fused, settled
from evomerge.merge.tensorfile import from_float32, to_float32

shares = st.floats(0, 1)
plans = st.builds(
    Plan, st.sampled_from([None, *get_args(Election)]), st.sampled_from(get_args(Aggregation)), st.booleans()
)
sieves = st.builds(
    Sieve,
    st.sampled_from([0.0, 0.5, np.inf]),
    st.sampled_from([1.5, np.inf]),
    st.sampled_from([0, 20_000, ALL - 1, ALL]),
    st.sampled_from([1.0, 1.7]),
)
experts = st.lists(st.tuples(sieves, st.sampled_from([-0.4, 0.0, 0.3, 1.0])), min_size=1, max_size=5)
NUMBERS = np.array([0.0, -0.0, 0.5, -0.5, 1.0, -2.0, 3.25, 1e-30, -7.0], dtype=np.float32)


@settings(deadline=None, max_examples=300)  # numba compiles on the first call
@given(experts, plans, st.integers(1, 150), st.sampled_from(["F32", "BF16", "F16"]), st.integers(0, 9))
def test_the_kernel_gives_the_bytes_of_the_text(
    of: list[tuple[Sieve, float]], plan: Plan, size: int, dtype: str, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    theta = np.where(
        draw.random((len(of) + 1, size)) < 0.5,
        draw.choice(NUMBERS, (len(of) + 1, size)),
        draw.standard_normal((len(of) + 1, size)),
    ).astype(np.float32)
    stored = [(from_float32(row, dtype), dtype) for row in theta]
    theta = np.stack([to_float32(*each) for each in stored])
    sifted = Sieves.of(*zip(*of, strict=True))
    bits = [draw.integers(0, ALL, size).astype(np.uint16) if limit < ALL else None for limit in sifted.limits]
    text = blended(theta, bits, sifted, plan, 0.7)
    assert fused(stored, bits, sifted, plan, 0.7).tobytes() == text.tobytes()


@settings(deadline=None)
@given(experts, st.sampled_from(get_args(Election)), st.integers(0, 9))
def test_the_kernel_elects_the_signs_of_the_text(of: list[tuple[Sieve, float]], elect: Election, seed: int) -> None:
    theta = np.random.default_rng(seed).choice(NUMBERS, (len(of) + 1, 100)).astype(np.float32)
    sifted = Sieves.of([Sieve(one.low, one.high) for one, _ in of], [weight for _, weight in of])
    bits = [None] * len(of)
    says = [weight * (expert - theta[0]) for expert, (_, weight) in zip(theta[1:], of, strict=True)]
    signs = fused([(row, "F32") for row in theta], bits, sifted, Plan(elect, "sign"), 1.0)
    assert set(np.unique(signs)) <= {-1.0, 0.0, 1.0}
    if all(one.low == 0.0 and one.high == np.inf for one, _ in of):
        assert np.array_equal(signs, settled(says, [1.0] * len(of), Plan(elect, "sign")))


@pytest.mark.parametrize(
    "plan", [Plan(elect, result) for elect in (None, "sum", "count") for result in ("sum", "mean")]
)
def test_the_text_runs_on_torch_tensors(plan: Plan) -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    theta = draw.standard_normal((4, 3, 5)).astype(np.float32)
    sifted = Sieves.of([Sieve(low=0.4), Sieve(limit=30_000, scale=1.5), Sieve(high=1.0)], [0.5, 0.3, 0.2])
    drawn = draw.integers(0, ALL, (3, 5))
    plain = blended(theta, [None, drawn, None], sifted, plan, 0.7)
    moved = blended(torch.from_numpy(theta), [None, torch.from_numpy(drawn), None], sifted, plan, 0.7)
    np.testing.assert_allclose(moved.numpy(), plain, rtol=1e-6)


says = st.lists(st.floats(-2, 2), min_size=1, max_size=5)


def alone(x: list[float], plan: Plan) -> Any:
    return float(settled([np.array([each]) for each in x], [1.0] * len(x), plan)[0])


@given(says, st.permutations(range(5)), plans)
def test_the_order_of_experts_changes_rounding_only(x: list[float], order: list[int], plan: Plan) -> None:
    x = [round(each, 2) for each in x]  # no vote so close that rounding decides
    turned = [x[at] for at in order if at < len(x)]
    if plan.elect is None or abs(sum(x)) > 1e-9 or all(each == 0 for each in x):
        assert alone(turned, plan) == pytest.approx(alone(x, plan))


@given(says, st.sampled_from(get_args(Election)), st.booleans())
def test_the_mean_and_the_largest_lie_within_what_the_winners_say(x: list[float], elect: Election, up: bool) -> None:
    for result in ("mean", "max"):
        found = alone(x, Plan(elect, result, up))  # type: ignore[arg-type] # a literal
        assert min(*x, 0.0) - 1e-12 <= found <= max(*x, 0.0) + 1e-12
    assert alone(x, Plan(elect, "sum", up)) == pytest.approx(sum(each for each in x if each * found > 0))


@given(says)
def test_a_count_asks_for_most_experts_and_a_sum_for_most_weight(x: list[float]) -> None:
    ups, downs = sum(each > 0 for each in x), sum(each < 0 for each in x)
    if ups != downs:
        assert (alone(x, Plan("count")) > 0) == (ups > downs)
    if abs(sum(x)) > 1e-9:
        assert (alone(x, Plan("sum")) > 0) == (sum(x) > 0)
