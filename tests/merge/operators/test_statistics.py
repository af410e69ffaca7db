import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from evomerge.merge.operators import statistics
from evomerge.merge.operators.statistics import Magnitudes, model_sums, model_threshold, sums, threshold
from evomerge.merge.pieces import MergedModel, Sources
from evomerge.merge.pool import ModelPool
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.stream import Member
from evomerge.merge.tensorfile import from_float32, to_float32

Floats = NDArray[np.float32]
shares = st.floats(0, 1)
few = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0 + 2**-20, 2**-140, 3.0, -7.5])
numbers = st.one_of(few, st.floats(-(2.0**100), 2.0**100, width=32))
vectors = arrays(np.float32, st.integers(1, 60), elements=numbers)


class Held:
    """One tensor of two sources in memory, the base zero."""

    name, sources, shape = "w", 2, (1,)

    def __init__(self, *theta: Floats) -> None:
        self.theta = theta if len(theta) > 1 else (np.zeros_like(theta[0]), theta[0])
        self.size = self.theta[0].size

    def read(self, source: int, start: int, stop: int) -> Floats:
        return self.theta[source][start:stop]

    def stored(self, source: int, start: int, stop: int) -> tuple[Floats, str]:
        return self.read(source, start, stop), "F32"

    def remember(self, key: str, compute: Callable[[], Mapping[str, Any]], of: Sequence[int] | None = None) -> Any:
        return compute()


def plain(magnitudes: NDArray[Any], keep: float) -> float:
    """By sorting."""
    dropped = magnitudes.size - round(keep * magnitudes.size)
    if dropped in (0, magnitudes.size):
        return math.inf if dropped else 0.0
    return float(np.sort(magnitudes)[dropped])


def measured(*parts: Floats) -> Magnitudes:
    return Magnitudes([Held(part) for part in parts], 1)  # type: ignore[list-item] # enough of a Tensor


@settings(deadline=None)  # numba compiles on the first call
@given(vectors, shares)
def test_a_threshold_keeps_what_sorting_keeps(tau: Floats, keep: float) -> None:
    magnitudes = np.abs(tau)
    found = measured(tau).threshold(keep)
    assert np.array_equal(magnitudes >= found, magnitudes >= plain(magnitudes, keep))


@settings(deadline=None)  # numba compiles on the first call
@given(vectors, vectors, shares)
def test_a_threshold_over_two_tensors_is_that_of_both_together(one: Floats, two: Floats, keep: float) -> None:
    assert measured(one, two).threshold(keep) == measured(np.concatenate([one, two])).threshold(keep)


@settings(deadline=None)  # numba compiles on the first call
@given(vectors, numbers)
def test_what_a_threshold_keeps_is_counted(tau: Floats, at: float) -> None:
    limit = abs(float(at))
    assert measured(tau).kept(limit) == np.count_nonzero(np.abs(tau) >= limit)


@settings(deadline=None)  # numba compiles on the first call
@given(vectors, shares)
def test_at_least_what_was_asked_for_is_kept_and_more_only_by_ties(tau: Floats, keep: float) -> None:
    found = measured(tau)
    cut = found.threshold(keep)
    wanted = round(keep * tau.size)
    assert found.kept(cut) >= wanted
    assert found.kept(np.nextafter(np.float32(cut), np.float32(np.inf))) <= wanted


@settings(deadline=None)  # numba compiles on the first call
@given(vectors)
def test_the_ends_keep_all_and_none(tau: Floats) -> None:
    assert measured(tau).threshold(1.0) == 0.0
    assert measured(tau).threshold(0.0) == math.inf
    assert measured(tau).share(0.0) == 1.0
    assert measured(tau).share(math.inf) == 0.0


def test_differences_of_bfloat16_need_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    tau = to_float32(from_float32(draw.standard_normal(5000).astype(np.float32), "BF16"), "BF16")
    expected = plain(np.abs(tau), 0.2)
    monkeypatch.setattr(statistics, "_near", None)
    assert measured(tau).threshold(0.2) == expected


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tau = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    whole = measured(tau)
    monkeypatch.setattr(statistics, "_SPAN", 64)
    for keep in (0.01, 0.3, 0.9):
        assert measured(tau).threshold(keep) == whole.threshold(keep)


@settings(deadline=None)  # numba compiles on the first call
@given(vectors, vectors)
def test_sums_are_those_of_float64(base: Floats, other: Floats) -> None:
    size = min(base.size, other.size)
    found = sums(Held(base[:size], other[:size]), 1)  # type: ignore[arg-type] # enough of a Tensor
    tau = (other[:size] - base[:size]).astype(np.float64)
    assert found.total == pytest.approx(tau.sum(), abs=1e-12 * np.abs(tau).sum())
    assert found.absolute == pytest.approx(np.abs(tau).sum(), rel=1e-12)
    assert found.norm == pytest.approx(float(np.linalg.norm(tau)), rel=1e-12)
    assert found.largest == np.abs(tau).max()


def over(pool: ModelPool, cache: PoolCache, threads: int = 1) -> MergedModel:
    streams = tuple(Member(pool, name) for name in pool.sources)
    return MergedModel(Sources(pool, pool.sources, streams, cache), threads)


@pytest.fixture
def pool(make_pool: Callable[..., ModelPool]) -> ModelPool:
    return make_pool(3)


@pytest.fixture
def model(pool: ModelPool, tmp_path: Path) -> MergedModel:
    return over(pool, PoolCache(tmp_path / "cache"))


def deltas(model: MergedModel, source: int) -> Iterator[Floats]:
    for tensor in model.tensors():
        yield tensor.read(source, 0, tensor.size) - tensor.read(0, 0, tensor.size)


def test_threads_change_nothing(pool: ModelPool) -> None:
    alone, together = (over(pool, PoolCache(None), threads) for threads in (1, 3))
    assert model_sums(alone, 1) == model_sums(together, 1)
    for keep in (0.1, 0.5):
        assert model_threshold(alone, 2, keep) == model_threshold(together, 2, keep)


@pytest.mark.parametrize("source", [1, 2])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.99])
def test_each_tensor_and_the_model_have_their_own_thresholds(model: MergedModel, source: int, keep: float) -> None:
    everything = np.abs(np.concatenate(list(deltas(model, source))))
    for _ in range(2):  # computed, then read from the cache
        assert model_threshold(model, source, keep) == plain(everything, keep)
        for tensor, tau in zip(model.tensors(), deltas(model, source), strict=True):
            assert threshold(tensor, source, keep) == plain(np.abs(tau), keep)


def test_the_models_sums_are_those_of_its_tensors(model: MergedModel) -> None:
    tau = np.concatenate(list(deltas(model, 1))).astype(np.float64)
    assert model_sums(model, 1).total == pytest.approx(tau.sum(), abs=1e-12 * np.abs(tau).sum())
    assert model_sums(model, 1).absolute == pytest.approx(np.abs(tau).sum(), rel=1e-12)
    assert model_sums(model, 1).norm == pytest.approx(float(np.linalg.norm(tau)), rel=1e-12)
    assert model_sums(model, 1).largest == np.abs(tau).max()
