import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.operators.angles import Directions
from evomerge.merge.operators.port import LinearOperator, Values, operator
from evomerge.merge.operators.spherical import (
    Karcher,
    Nlerp,
    NuSlerp,
    TaskKarcher,
    TaskNlerp,
    TaskNuSlerp,
    karcher_mean,
    logarithm,
)
from evomerge.testing.operator import Coefficients, OperatorContract, Whole

unit = st.floats(0, 1)
weights = st.lists(st.floats(0.05, 1), min_size=3, max_size=3)
MEANS: tuple[tuple[LinearOperator, int], ...] = (
    (NuSlerp(), 2),
    (TaskNuSlerp(), 3),
    (Nlerp(), 3),
    (TaskNlerp(), 4),
    (Karcher(), 3),
    (TaskKarcher(), 4),
)


def vectors(seed: int, count: int = 3, spread: float = 1.0) -> NDArray[np.float64]:
    """Vectors of different lengths around a common one: the smaller the spread, the closer."""
    random = np.random.default_rng(seed)
    drawn: NDArray[np.float64] = random.standard_normal(8) + spread * random.standard_normal((count, 8))
    return drawn * random.uniform(0.5, 2.0, (count, 1))


def merged(merge: LinearOperator, of: NDArray[np.float64], *values: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.array(Coefficients(merge, len(of), gram=of @ of.T)(*values)) @ of
    return found


def norm(vector: Any) -> float:
    return float(np.linalg.norm(vector))


def nuslerp(one: Any, two: Any, t: float) -> Any:
    cosine = np.vdot(one, two) / (norm(one) * norm(two))
    omega = math.acos(min(1.0, max(-1.0, cosine)))
    if math.sin(omega) < 1e-8:
        return (1 - t) * one + t * two
    return (math.sin((1 - t) * omega) * one + math.sin(t * omega) * two) / math.sin(omega)


def nlerp(of: Any, shares: Any) -> Any:
    mean = sum(share * one / norm(one) for share, one in zip(shares, of, strict=True))
    return sum(share * norm(one) for share, one in zip(shares, of, strict=True)) * mean / norm(mean)


def karcher(of: Any, shares: Any) -> Any:
    """Steps on whole vectors, as it is usually written; opposite vectors pull nowhere."""
    units = [one / norm(one) for one in of]
    mean = sum(share * one for share, one in zip(shares, units, strict=True))
    mean = mean / norm(mean)
    for _ in range(200):
        step = np.zeros_like(mean)
        for share, one in zip(shares, units, strict=True):
            cosine = min(1.0, max(-1.0, float(np.vdot(one, mean))))
            if abs(cosine) < 1.0 - 1e-14:
                angle = math.acos(cosine)
                step = step + share * angle / math.sin(angle) * (one - cosine * mean)
        length = norm(step)
        if length < 1e-13:
            break
        mean = math.cos(length) * mean + math.sin(length) * step / length
        mean = mean / norm(mean)
    return sum(share * norm(one) for share, one in zip(shares, of, strict=True)) * mean


class TestNuSlerp(OperatorContract):
    name = "nuslerp"
    sources = 2

    def direct(self, theta: Whole, values: Values) -> Whole:
        return {name: nuslerp(*tensor, values.one("t")) for name, tensor in theta.items()}


class TestTaskNuSlerp(OperatorContract):
    name = "task_nuslerp"

    def direct(self, theta: Whole, values: Values) -> Whole:
        t = values.one("t")
        return {name: base + nuslerp(one - base, two - base, t) for name, (base, one, two) in theta.items()}


class TestNuSlerpOfWholeModels(OperatorContract):
    name = "nuslerp"
    options = (("scope", "global"),)
    sources = 2

    def direct(self, theta: Whole, values: Values) -> Whole:
        one, two = (np.concatenate([tensor[i].ravel() for tensor in theta.values()]) for i in range(2))
        whole, at, found = nuslerp(one, two, values.one("t")), 0, {}
        for name, tensor in theta.items():
            found[name] = whole[at : at + tensor[0].size].reshape(tensor[0].shape)
            at += tensor[0].size
        return found


class WeightedMean(OperatorContract):
    """What is the same for all means of any number of vectors."""

    def shares(self, values: Values) -> NDArray[np.float64]:
        given_weights = np.array(values.each("weight"))
        return given_weights / given_weights.sum()

    def mean(self, of: Any, shares: Any) -> Any:
        raise NotImplementedError

    def direct(self, theta: Whole, values: Values) -> Whole:
        if not self.operator().based:
            return {name: self.mean(list(tensor), self.shares(values)) for name, tensor in theta.items()}
        return {
            name: tensor[0] + self.mean([one - tensor[0] for one in tensor[1:]], self.shares(values))
            for name, tensor in theta.items()
        }


class TestNlerp(WeightedMean):
    name = "nlerp"

    def mean(self, of: Any, shares: Any) -> Any:
        return nlerp(of, shares)


class TestTaskNlerp(TestNlerp):
    name = "task_nlerp"
    tolerance = 1e-4  # where directions nearly cancel, coefficients are large


class TestNlerpRaw(TestNlerp):
    name = "nlerp"
    options = (("normalize", False),)

    def shares(self, values: Values) -> NDArray[np.float64]:
        return np.array(values.each("weight"))


class TestKarcher(WeightedMean):
    name = "karcher"

    def mean(self, of: Any, shares: Any) -> Any:
        return karcher(of, shares)


class TestTaskKarcher(TestKarcher):
    name = "task_karcher"


@given(st.integers(0, 10**6))
def test_ends_of_an_arc_are_exact(seed: int) -> None:
    gram = vectors(seed) @ vectors(seed).T
    assert Coefficients(NuSlerp(), 2, gram=gram[:2, :2])(0.0) == (1.0, 0.0)
    assert Coefficients(NuSlerp(), 2, gram=gram[:2, :2])(1.0) == (0.0, 1.0)
    assert Coefficients(TaskNuSlerp(), 3, gram=gram)(1.0) == (0.0, 0.0, 1.0)


@given(st.integers(0, 10**6), unit)
def test_swapped_ends_swap_an_arc(seed: int, t: float) -> None:
    of = vectors(seed, 2)
    np.testing.assert_allclose(merged(NuSlerp(), of, t), merged(NuSlerp(), of[::-1], 1 - t), rtol=1e-9, atol=1e-12)


def test_a_vector_of_zeros_counts_as_being_at_a_right_angle() -> None:
    of = np.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(merged(NuSlerp(), of, 0.3), math.sin(0.3 * math.pi / 2) * of[1], rtol=1e-12)


@pytest.mark.parametrize("merge", [Nlerp(), Karcher()], ids=["nlerp", "karcher"])
@given(seed=st.integers(0, 10**6), given_weights=weights, spread=st.sampled_from([1e-4, 0.1, 1.0]))
def test_means_have_the_mean_length(
    merge: LinearOperator, seed: int, given_weights: list[float], spread: float
) -> None:
    of = vectors(seed, spread=spread)
    expected = np.average(np.linalg.norm(of, axis=1), weights=given_weights)
    assert norm(merged(merge, of, *given_weights)) == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 10**6), st.sampled_from([1e-4, 0.1, 1.0]))
def test_the_karcher_mean_of_two_is_their_normalised_mean(seed: int, spread: float) -> None:
    of = vectors(seed, 2, spread)
    np.testing.assert_allclose(merged(Karcher(), of, 0.5, 0.5), merged(Nlerp(), of, 0.5, 0.5), rtol=1e-6, atol=1e-8)


@given(st.integers(0, 10**6), weights)
def test_at_the_karcher_mean_nothing_pulls(seed: int, given_weights: list[float]) -> None:
    of = vectors(seed)
    found = Directions.of(of @ of.T)
    mean = karcher_mean(found, np.array(given_weights), 1e-12, 1000)
    assert found.length(logarithm(found, np.array(given_weights), mean)) < 1e-7


def test_the_karcher_mean_weights_its_vectors_along_an_arc() -> None:
    of = np.array([[1.0, 0.0], [0.0, 1.0]])
    angle = 0.25 * math.pi / 2
    np.testing.assert_allclose(merged(Karcher(), of, 0.75, 0.25), [math.cos(angle), math.sin(angle)], rtol=1e-9)


def test_the_karcher_mean_ends_after_its_rounds() -> None:
    of = vectors(1)
    none = Karcher(rounds=0)
    np.testing.assert_allclose(merged(none, of, 0.2, 0.3, 0.5), merged(Nlerp(), of, 0.2, 0.3, 0.5), rtol=1e-9)
    assert norm(merged(none, of, 0.2, 0.3, 0.5) - merged(Karcher(), of, 0.2, 0.3, 0.5)) > 1e-6
    assert norm(merged(Karcher(tolerance=10.0), of, 0.2, 0.3, 0.5) - merged(none, of, 0.2, 0.3, 0.5)) == 0.0


def test_zeros_shorten_a_karcher_mean_and_do_not_turn_it() -> None:
    of = np.array([[2.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(merged(Karcher(), of, 0.5, 0.5), [1.0, 0.0], rtol=1e-12)


def test_vectors_that_cancel_are_summed_plainly() -> None:
    of = np.array([[1.0, 0.0], [-3.0, 0.0]])
    np.testing.assert_allclose(merged(Nlerp(), of, 0.5, 0.5), [-1.0, 0.0], rtol=1e-12)


@pytest.mark.parametrize(("merge", "count"), MEANS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("case", ["zero", "one zero", "equal", "opposite", "nearly equal", "indefinite"])
def test_any_geometry_gives_finite_coefficients(merge: LinearOperator, count: int, case: str) -> None:
    of = vectors(3, count)
    if case == "zero":
        of[:] = 0.0
    elif case == "one zero":
        of[1] = 0.0
    elif case == "opposite":
        of[1] = -of[0]
    elif case == "equal":
        of[:] = of[0]
    elif case == "nearly equal":
        of = of[0] + 1e-9 * of
    gram = of @ of.T
    if case == "indefinite":
        gram = np.ones((count, count)) * (1.0 + 1e-9) - 1e-9 * np.eye(count)
    given_values = (0.5,) * merge.width(count)
    found = Coefficients(merge, count, gram=gram)(*given_values)
    assert all(map(math.isfinite, found))
    assert max(map(abs, found)) < 1e6


@pytest.mark.parametrize("name", ["nlerp", "karcher"])
def test_weights_that_sum_to_zero_are_refused(name: str) -> None:
    merge = operator(name)
    assert isinstance(merge, LinearOperator)
    with pytest.raises(RecipeError, match="sum to zero"):
        Coefficients(merge, 2)(0.0, 0.0)


def test_impossible_options_are_named() -> None:
    with pytest.raises(RecipeError, match="sideways"):
        operator("nlerp", (("scope", "sideways"),))
    with pytest.raises(RecipeError, match="rounds"):
        operator("karcher", (("rounds", -1),))
