from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.operators.port import Values
from evomerge.merge.operators.wudi import outstanding
from evomerge.testing.operator import OperatorContract, Whole
from tests.merge.operators.tasks import Matrix, Options, merged, taus

SUM: Options = (("start", "sum"),)
EVER = 1e12


def filtered(targets: Any, start: Matrix, a: Any, t: float, kept: Any) -> Matrix:
    """The formula, with all eigenvectors; ``kept`` says how many move."""
    c = sum(weight * one.T @ one for weight, one in zip(a, targets, strict=True))
    d = sum(weight * one @ one.T @ one for weight, one in zip(a, targets, strict=True))
    eigenvalues, vectors = np.linalg.eigh(c)
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 1e-300), vectors[:, ::-1]
    f = np.where(eigenvalues > 1e-10 * eigenvalues[0], 1 - np.exp(-t * eigenvalues), 0.0)
    f[kept(eigenvalues) :] = 0.0
    theta: Matrix = start - start @ (vectors * f) @ vectors.T + d @ (vectors * (f / eigenvalues)) @ vectors.T
    return theta


def truncation(matrix: Matrix, rank: int) -> Matrix:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray((u[:, :rank] * s[:rank]) @ vt[:rank])


def count(rank: str, rho: float, rows: int, columns: int, eigenvalues: Any) -> int:
    of = float(columns)
    if rank == "participation":
        of = np.sqrt(eigenvalues).sum() ** 2 / eigenvalues.sum()
    elif rank == "gavish_donoho":
        beta = min(rows, columns) / max(rows, columns)
        singular = np.sqrt(eigenvalues[: min(rows, columns)])
        of = (singular > (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43) * np.median(singular)).sum()
    return int(np.ceil(rho * of - 1e-9))


class TestWudi(OperatorContract):
    name = "wudi"

    def preferences(self, values: Values, experts: int) -> Any:
        return np.ones(experts)

    def direct(self, theta: Whole, values: Values) -> Whole:
        options = dict(self.options)
        found = {}
        for name, tensor in theta.items():
            taus = tensor[1:] - tensor[0]
            mean = taus.mean(axis=0)
            if tensor.ndim == 3:
                start = taus.sum(axis=0) if options.get("start") == "sum" else mean
                a = self.preferences(values, len(taus)) / (taus**2).sum(axis=(1, 2))
                rank = max(1, min(mean.shape) // len(taus))
                targets = [truncation(one, rank) for one in taus] if options.get("truncate") else taus

                def kept(eigenvalues: Any, rows: int = len(taus) * mean.shape[0], columns: int = mean.shape[1]) -> int:
                    return count(str(options.get("rank")), values.one("rho"), rows, columns, eigenvalues)

                mean = filtered(targets, start, a, values.one("t"), kept)
            found[name] = tensor[0] + values.one("lambda") * mean
        return found


class TestFromTheSum(TestWudi):
    options = SUM


class TestParticipation(TestWudi):
    options = (*SUM, ("rank", "participation"))


class TestGavishDonoho(TestWudi):
    options = (*SUM, ("rank", "gavish_donoho"))


class TestTruncated(TestWudi):
    options = (("truncate", True),)


class TestWithPreferences(TestWudi):
    name = "wudi_weighted"

    def preferences(self, values: Values, experts: int) -> Any:
        weights = np.array(values.each("weight"))
        return weights / weights.mean()


times = st.floats(0.0, 5000.0)
few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("start", ["mean", "sum"])
@few
@given(st.integers(0, 99), times, st.floats(0.0, 1.0))
def test_one_expert_stays_itself(start: str, seed: int, t: float, rho: float) -> None:
    of = taus(seed, experts=1)
    np.testing.assert_allclose(merged("wudi", of, (t, rho, 1.0), (("start", start),)), of[0], atol=1e-5)


@few
@given(st.integers(0, 99), times)
def test_equal_experts_stay_themselves_from_the_mean_and_in_the_end_from_the_sum(seed: int, t: float) -> None:
    of = taus(seed, experts=1) * 3
    np.testing.assert_allclose(merged("wudi", of, (t, 1.0, 1.0)), of[0], atol=1e-5)
    np.testing.assert_allclose(merged("wudi", of, (EVER, 1.0, 1.0), SUM), of[0], atol=1e-5)


@few
@given(st.integers(0, 99), times)
def test_experts_that_read_nothing_in_common_are_summed(seed: int, t: float) -> None:
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((9, 9)))[0]
    of = [one @ basis[3 * at : 3 * at + 3] for at, one in enumerate(taus(seed, (4, 3)))]
    np.testing.assert_allclose(merged("wudi", of, (t, 1.0, 1.0), SUM), sum(of), atol=1e-5)
    np.testing.assert_allclose(merged("wudi", of, (EVER, 1.0, 1.0)), sum(of), atol=1e-5)


@pytest.mark.parametrize(("start", "share"), [("mean", 1 / 3), ("sum", 1.0)])
@pytest.mark.parametrize("values", [(0.0, 1.0, 1.0), (300.0, 0.0, 1.0)])
def test_without_time_or_directions_it_is_where_it_starts(start: str, share: float, values: tuple[float, ...]) -> None:
    of = taus(1)
    np.testing.assert_allclose(merged("wudi", of, values, (("start", start),)), share * sum(of), atol=1e-5)


def descended(of: Sequence[Matrix], start: Matrix, t: float, steps: int) -> Matrix:
    theta = start.copy()
    for _ in range(steps):
        gradient = sum(2.0 * (theta - one) @ one.T @ one / (one**2).sum() for one in of)
        theta -= t / (2.0 * steps) * gradient
    return theta


@pytest.mark.parametrize("shape", [(6, 4), (3, 12)], ids=["tall", "wide"])
@pytest.mark.parametrize("t", [0.6, 20.0])
def test_it_is_gradient_descent_in_small_steps(shape: tuple[int, int], t: float) -> None:
    of = taus(2, shape)
    expected = descended(of, np.mean(of, axis=0), t, 20_000)
    np.testing.assert_allclose(merged("wudi", of, (t, 1.0, 1.0)), expected, atol=5e-4)


def interference(of: Sequence[Matrix], theta: Matrix) -> float:
    return float(sum((((theta - one) @ one.T) ** 2).sum() / (one**2).sum() for one in of))


def test_interference_falls_with_time_to_the_least_there_is() -> None:
    of = taus(3, (8, 6))
    found = [merged("wudi", of, (t, 1.0, 1.0)) for t in (0.0, 1.0, 10.0, 100.0, EVER)]
    amounts = [interference(of, theta) for theta in found]
    assert amounts == sorted(amounts, reverse=True)
    gradient = sum((found[-1] - one) @ one.T @ one / (one**2).sum() for one in of)
    assert np.abs(gradient).max() < 1e-5


def test_a_preferred_expert_is_interfered_with_less() -> None:
    of = taus(4)
    amounts = [
        interference(of[:1], merged("wudi_weighted", of, (EVER, 1.0, 1.0, weight, 1.0, 1.0))) for weight in (1.0, 100.0)
    ]
    assert amounts[1] < 0.1 * amounts[0]
    equal = merged("wudi_weighted", of, (20.0, 1.0, 1.0, 7.0, 7.0, 7.0))
    np.testing.assert_allclose(equal, merged("wudi", of, (20.0, 1.0, 1.0)), atol=1e-5)


def test_directions_that_no_expert_has_learned_are_left_alone() -> None:
    of = [one @ np.diag([1.0, 1.0, 1.0, 0.0, 0.0]) for one in taus(5, (6, 5))]
    np.testing.assert_allclose(merged("wudi", of, (EVER, 1.0, 1.0))[:, 3:], 0.0, atol=1e-6)


def test_what_stands_out_of_noise_is_counted() -> None:
    random = np.random.default_rng(6)
    noise = random.standard_normal((300, 200))
    signal = 60.0 * np.linalg.qr(random.standard_normal((300, 7)))[0] @ random.standard_normal((7, 200)) / 14.0
    assert outstanding(np.linalg.svd(signal + noise, compute_uv=False), 300, 200) == 7
    assert outstanding(np.array([3.0, 2.0]), 50, 30) == 2  # 28 zeros are left out


def test_matrices_may_be_left_to_the_others() -> None:
    of = taus(7)
    for options, tensor, share in (
        ((("leave", "x, w*"),), "weight", 1 / 3),
        ((("leave", "*"), ("others", "linear")), "w", 1.0),
        ((("leave", "*"), ("others", "base")), "w", 0.0),
        ((), "model.embed_tokens.weight", 1 / 3),
        ((), "lm_head.weight", 1 / 3),
    ):
        found = merged("wudi", of, (300.0, 1.0, 0.5), options, tensor)
        np.testing.assert_allclose(found, 0.5 * share * sum(of), atol=1e-5)
