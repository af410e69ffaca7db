"""The kernel gives the bytes of plain numpy expressions, for every dtype, number of terms, length and place."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.merge.kernels.lanes import CODES, WRITABLE
from evomerge.merge.kernels.memory import aligned
from evomerge.merge.kernels.weighted import weighted_sums
from evomerge.merge.tensorfile import STORED, Array, from_float32, to_float32

MERGED = sorted(set(CODES) & set(STORED))
RESULTS = sorted(WRITABLE)
TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def plain(sources: Sequence[tuple[Array, str]], weights: NDArray[np.float64], dtype: str) -> Array:
    """One sum, in the simplest way."""
    total: Array | None = None
    with np.errstate(over="ignore", invalid="ignore"):
        for (stored, kind), weight in zip(sources, weights.astype(np.float32), strict=True):
            if weight != 0.0:
                term = to_float32(stored, kind) * weight
                total = term if total is None else total + term
        return from_float32(np.zeros(len(sources[0][0]), np.float32) if total is None else total, dtype)


def drawn(seed: int, dtype: str, count: int, offset: int = 0) -> Array:
    """Normal numbers of many sizes in a dtype, at any place in memory."""
    random = np.random.default_rng([seed, CODES[dtype]])
    values = random.standard_normal(offset + count) * 10.0 ** random.integers(-3, 4, offset + count)
    if dtype.startswith("F8"):
        return torch.from_numpy(values).to(TORCH[dtype]).view(torch.uint8).numpy()[offset:]
    return from_float32(values.astype(np.float32), dtype)[offset:]


def every(dtype: str) -> Array:
    """All patterns of a small format."""
    bits = 8 if dtype.startswith("F8") else 16
    return np.arange(1 << bits, dtype=f"<u{bits // 8}").view(STORED.get(dtype, np.dtype("u1")))


def sums(
    sources: Sequence[tuple[Array, str]], weights: NDArray[np.float64], dtype: str, past: bool = False, offset: int = 0
) -> list[Array]:
    outs = [np.full(offset + len(sources[0][0]), 7, STORED[dtype])[offset:] for _ in weights]
    weighted_sums(sources, weights, outs, dtype, past)
    return outs


@settings(deadline=None)
@given(st.data())
def test_every_sum_has_the_bytes_of_the_plain_one(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 700))
    kinds = data.draw(st.lists(st.sampled_from(MERGED), min_size=1, max_size=6))
    rows = data.draw(st.integers(1, 4))
    offset = data.draw(st.integers(0, 40))
    weight = st.sampled_from([0.0, 1.0, -0.5, 1.0 / 3.0, 1e-60, 2.5])
    weights = np.array(data.draw(st.lists(weight, min_size=rows * len(kinds), max_size=rows * len(kinds))))
    weights = weights.reshape(rows, len(kinds))
    dtype = data.draw(st.sampled_from(RESULTS))
    sources = [(drawn(at, kind, count, offset), kind) for at, kind in enumerate(kinds)]
    if dtype == "F64":  # a lone float64 keeps its last bits, which the plain sum has not
        weights[(weights != 0).sum(axis=1) == 1] *= 0.75
    made = sums(sources, weights, dtype, past=data.draw(st.booleans()), offset=offset)
    for out, row in zip(made, weights, strict=True):
        assert out.tobytes() == plain(sources, row, dtype).tobytes()


@pytest.mark.parametrize("kind", sorted(TORCH))
def test_every_pattern_of_a_small_format_is_read_as_torch_reads_it(kind: str) -> None:
    stored = every(kind)
    (made,) = sums([(stored, kind)], np.array([[0.5]]), "F32")
    expected = (torch.from_numpy(stored.view(f"i{stored.itemsize}")).view(TORCH[kind]).float() / 2).numpy()
    assert np.array_equal(np.isnan(made), np.isnan(expected))
    numbers = ~np.isnan(expected)
    assert made[numbers].tobytes() == expected[numbers].tobytes()


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_rounding_is_to_nearest_even_everywhere(kind: str) -> None:
    values = np.sort(to_float32(every(kind), kind))
    values = values[np.isfinite(values)]
    middles = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    up, down = (np.nextafter(middles, np.float32(side)) for side in (np.inf, -np.inf))
    special = np.array([np.inf, -np.inf, 3.4e38, -3.4e38, 65519.9, 65520.0, 1e-45, 0.0, -0.0], np.float32)
    numbers = np.concatenate([values, middles, up, down, special])
    (made,) = sums([(numbers, "F32")], np.array([[1.0]]), kind)
    expected = torch.from_numpy(numbers).to(TORCH[kind]).view(torch.int16).numpy()
    assert made.view(np.int16).tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", RESULTS)
@pytest.mark.parametrize("alike", [True, False], ids=["alike", "each"])
@pytest.mark.parametrize("count", [3, 40, 700, 1024])
def test_where_results_lie_changes_no_byte_and_none_beside_them(dtype: str, alike: bool, count: int) -> None:
    sources = [(drawn(at, "BF16", count), "BF16") for at in range(3)]
    weights = np.random.default_rng(0).standard_normal((2, 3))
    kind = STORED[dtype]
    for shift in (0, 1, 3, 31, 40):
        begins = [shift + (0 if alike else row) for row in range(2)]
        memories = [aligned(count + 100, kind.itemsize) for _ in begins]
        for memory in memories:
            memory[:] = 77
        outs = [memory.view(kind)[at : at + count] for at, memory in zip(begins, memories, strict=True)]
        weighted_sums(sources, weights, outs, dtype, past=True)
        for at, memory, out, row in zip(begins, memories, outs, weights, strict=True):
            assert out.tobytes() == plain(sources, row, dtype).tobytes()
            assert {*memory[: at * kind.itemsize], *memory[(at + count) * kind.itemsize :]} == {77}


@pytest.mark.parametrize("dtype", RESULTS)
@pytest.mark.parametrize("pattern", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800001, 0xFF80FFFF])
def test_nan_stays_nan(dtype: str, pattern: int) -> None:
    values = np.full(300, pattern, np.uint32).view(np.float32)
    (made,) = sums([(values, "F32")], np.array([[0.5]]), dtype)
    assert np.isnan(to_float32(made, dtype)).all()


@pytest.mark.parametrize("dtype", RESULTS)
def test_a_lone_weight_of_one_copies_bit_for_bit(dtype: str) -> None:
    stored = np.random.default_rng(0).integers(0, 256, 999 * STORED[dtype].itemsize, dtype=np.uint8)
    values = stored.view(STORED[dtype])
    other = drawn(1, "F32", 999)
    made = sums([(other, "F32"), (values, dtype)], np.array([[0.0, 1.0], [0.5, 0.5]]), dtype)
    assert made[0].tobytes() == values.tobytes()


def test_signed_zeros_and_infinities_of_sources_without_weight_are_not_seen() -> None:
    zeros, infinite = np.full(70, -0.0, np.float32), np.full(70, np.inf, np.float32)
    weights = np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    made = sums([(zeros, "F32"), (infinite, "F32")], weights, "F32")
    assert [out.tobytes() for out in made] == [zeros.tobytes(), infinite.tobytes(), np.zeros(70, np.float32).tobytes()]


@pytest.mark.parametrize("dtype", RESULTS)
def test_several_sums_at_once_are_each_what_it_is_alone(dtype: str) -> None:
    sources = [(drawn(at, kind, 5000), kind) for at, kind in enumerate(MERGED)]
    weights = np.random.default_rng(0).standard_normal((8, len(sources)))
    weights[2, 1:] = 0.0
    together = sums(sources, weights, dtype)
    alone = [sums(sources, row[None], dtype)[0] for row in weights]
    assert [out.tobytes() for out in together] == [out.tobytes() for out in alone]


@pytest.mark.parametrize("dtype", RESULTS)
@pytest.mark.parametrize("cut", [1, 63, 64, 128, 1000])
def test_how_a_sum_is_cut_changes_no_byte(dtype: str, cut: int) -> None:
    sources = [(drawn(at, kind, 2500), kind) for at, kind in enumerate(MERGED)]
    weights = np.random.default_rng(0).standard_normal((3, len(sources)))
    pieces = [
        sums([(stored[at : at + cut], kind) for stored, kind in sources], weights, dtype, past=True)
        for at in range(0, 2500, cut)
    ]
    whole = sums(sources, weights, dtype)
    assert [b"".join(piece[row].tobytes() for piece in pieces) for row in range(3)] == [out.tobytes() for out in whole]


def test_sources_may_lie_anywhere() -> None:
    values = drawn(0, "F32", 500)
    odd = np.frombuffer(b"x" + values.tobytes(), np.float32, offset=1)
    sparse = np.repeat(values, 2)[::2]
    for source in (odd, sparse):
        (made,) = sums([(source, "F32")], np.array([[0.3]]), "F32")
        assert made.tobytes() == plain([(values, "F32")], np.array([0.3]), "F32").tobytes()
