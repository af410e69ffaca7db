from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.merge.kernels.delta import l1_sums
from evomerge.merge.noise import uniform_bits
from evomerge.merge.operators.delta import (
    ALL,
    Aggregation,
    Election,
    Plan,
    Sieve,
    Sieves,
    blended,
    fused,
    says,
    settled,
)
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
)
experts = st.lists(st.tuples(sieves, st.sampled_from([-0.4, 0.0, 0.3, 1.0])), min_size=1, max_size=5)
sizes = st.one_of(st.integers(1, 200), st.sampled_from([4096, 4200, 9000]))
places = st.tuples(st.sampled_from([0, 1, 64, 4000, 4096, 1 << 40]), sizes)
NUMBERS = np.array([0.0, -0.0, 0.5, -0.5, 1.0, -2.0, 3.25, 1e-30, -7.0], dtype=np.float32)


def sifted(of: list[tuple[Sieve, float]], scale: float = 1.5) -> Sieves:
    streams = np.random.default_rng(1).integers(0, 2**32, (len(of), 4)).astype(np.uint32)
    weights = [weight for _, weight in of]
    return Sieves.of([sieve for sieve, _ in of], [scale * weight for weight in weights], weights, streams)


def drawn(of: Sieves, start: int, size: int) -> list[Any]:
    each = zip(of.limits, of.streams, strict=True)
    return [uniform_bits(stream, start, start + size) if limit < ALL else None for limit, stream in each]


def models(count: int, size: int, seed: int) -> NDArray[np.float32]:
    """Numbers of which many are equal, opposite or zero."""
    draw = np.random.default_rng(seed)
    some, other = draw.choice(NUMBERS, (count, size)), draw.standard_normal((count, size))
    return np.where(draw.random((count, size)) < 0.5, some, other).astype(np.float32)


@settings(deadline=None, max_examples=200)  # numba compiles on the first call
@given(experts, plans, places, st.sampled_from(["F32", "BF16", "F16"]), st.integers(0, 9))
def test_the_kernel_gives_the_bytes_of_the_text(
    of: list[tuple[Sieve, float]], plan: Plan, place: tuple[int, int], dtype: str, seed: int
) -> None:
    start, size = place
    stored = [(from_float32(row, dtype), dtype) for row in models(len(of) + 1, size, seed)]
    theta = np.stack([to_float32(*each) for each in stored])
    text = blended(theta, drawn(sifted(of), start, size), sifted(of), plan, 0.7)
    assert fused(stored, start, sifted(of), plan, 0.7).tobytes() == text.tobytes()


@settings(deadline=None)
@given(experts, st.sampled_from(get_args(Election)), st.integers(1, 200), st.integers(0, 9))
def test_the_kernel_elects_the_signs_of_the_text(
    of: list[tuple[Sieve, float]], elect: Election, size: int, seed: int
) -> None:
    theta = models(len(of) + 1, size, seed)
    signs = fused([(row, "F32") for row in theta], 0, sifted(of), Plan(elect, "sign"), 1.0)
    heard = says(theta, drawn(sifted(of), 0, size), sifted(of))
    assert np.array_equal(signs, settled(heard, [1.0] * len(of), Plan(elect, "sign")))


@settings(deadline=None)
@given(experts, places, st.integers(0, 9))
def test_magnitudes_are_added_up_with_and_without_what_is_lost(
    of: list[tuple[Sieve, float]], place: tuple[int, int], seed: int
) -> None:
    start, size = place
    theta = models(len(of) + 1, size, seed)
    unweighted = sifted([(sieve, 1.0) for sieve, _ in of], scale=1.0)
    found = l1_sums([(row, "F32") for row in theta], start, unweighted)
    kept = says(theta, drawn(unweighted, start, size), unweighted)
    for (whole, left), tau, survivors in zip(found, theta[1:] - theta[0], kept, strict=True):
        assert whole == pytest.approx(np.abs(tau).sum(dtype=np.float64), rel=1e-5)
        assert left == pytest.approx(np.abs(survivors).sum(dtype=np.float64), rel=1e-5)


@pytest.mark.parametrize(
    "plan", [Plan(elect, result) for elect in (None, "sum", "count") for result in ("sum", "mean")]
)
def test_the_text_runs_on_torch_tensors(plan: Plan) -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    theta = draw.standard_normal((4, 3, 5)).astype(np.float32)
    of = sifted([(Sieve(low=0.4), 0.5), (Sieve(limit=30_000), 0.3), (Sieve(high=1.0), 0.2)])
    bits = draw.integers(0, ALL, (3, 5))
    plain = blended(theta, [None, bits, None], of, plan, 0.7)
    moved = blended(torch.from_numpy(theta), [None, torch.from_numpy(bits), None], of, plan, 0.7)
    np.testing.assert_allclose(moved.numpy(), plain, rtol=1e-6)


opinions = st.lists(st.floats(-2, 2), min_size=1, max_size=5)


def alone(x: list[float], plan: Plan) -> Any:
    return float(settled([np.array([each]) for each in x], [1.0] * len(x), plan)[0])


@given(opinions, st.permutations(range(5)), plans)
def test_the_order_of_experts_changes_rounding_only(x: list[float], order: list[int], plan: Plan) -> None:
    x = [round(each, 2) for each in x]  # no vote so close that rounding decides
    turned = [x[at] for at in order if at < len(x)]
    if plan.elect is None or abs(sum(x)) > 1e-9 or all(each == 0 for each in x):
        assert alone(turned, plan) == pytest.approx(alone(x, plan))


@given(opinions, st.sampled_from(get_args(Election)), st.booleans())
def test_the_mean_and_the_largest_lie_within_what_the_winners_say(x: list[float], elect: Election, up: bool) -> None:
    for result in ("mean", "max"):
        found = alone(x, Plan(elect, result, up))  # type: ignore[arg-type] # a literal
        assert min(*x, 0.0) - 1e-12 <= found <= max(*x, 0.0) + 1e-12
    assert alone(x, Plan(elect, "sum", up)) == pytest.approx(sum(each for each in x if each * found > 0))


@given(opinions)
def test_a_count_asks_for_most_experts_and_a_sum_for_most_weight(x: list[float]) -> None:
    ups, downs = sum(each > 0 for each in x), sum(each < 0 for each in x)
    if ups != downs:
        assert (alone(x, Plan("count")) > 0) == (ups > downs)
    if abs(sum(x)) > 1e-9:
        assert (alone(x, Plan("sum")) > 0) == (sum(x) > 0)
