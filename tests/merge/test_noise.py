import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.candidate import Noise
from evomerge.merge.kernels.memory import address
from evomerge.merge.kernels.philox import BLOCK, LANES, PLANES, below, fill
from evomerge.merge.noise import bit_stream, normal, uniform_bits

NOISE = Noise(0.01, 3, 11)
WHOLE = normal(NOISE, "all", 0, 3000)


@given(st.integers(0, 2999), st.integers(1, 200))
def test_any_stretch_is_a_stretch_of_the_whole(start: int, length: int) -> None:
    stop = min(start + length, 3000)
    assert np.array_equal(normal(NOISE, "all", start, stop), WHOLE[start:stop])


def test_seed_number_and_group_each_give_other_noise() -> None:
    others = [(Noise(0.01, 4, 11), "all"), (Noise(0.01, 3, 12), "all"), (NOISE, "rest")]
    for noise, group in others:
        assert abs(np.corrcoef(normal(noise, group, 0, 3000), WHOLE)[0, 1]) < 0.1


def test_it_is_normal() -> None:
    drawn = normal(Noise(1.0, 0, 0), "all", 0, 400_000).astype(np.float64)
    assert drawn.dtype == np.float64
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert abs((drawn**power).mean() - expected) < 0.03 * power
    for limit, share in ((1.0, 0.158655), (2.0, 0.022750), (3.0, 0.001350)):
        assert abs((drawn > limit).mean() - share) < 4 * np.sqrt(share / 400_000)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01


BITS = uniform_bits(bit_stream(1, "m:w"), 0, 20_000)


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10 as Salmon et al. write it."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        one, two = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = two >> 32 ^ c1 ^ k0, two % 2**32, one >> 32 ^ c3 ^ k1, one % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]) -> None:
    """Those published with the Random123 library."""
    assert philox(counter, key) == words
    block, lane = divmod(counter[0] + (counter[1] << 32), LANES)
    out = np.empty((1, 4, LANES), dtype=np.uint32)
    fill(out, block, np.array([*counter[2:], *key], dtype=np.uint32))
    assert tuple(out[0, :, lane].tolist()) == words


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4))
@settings(deadline=None)  # numba compiles on the first call
def test_blocks_are_consecutive_counters(first: int, stream: list[int]) -> None:
    out = np.empty((2, 4, LANES), dtype=np.uint32)
    fill(out, first, np.array(stream, dtype=np.uint32))
    for block, lane in ((0, 0), (0, 7), (1, LANES - 1)):
        at = (first + block) * LANES + lane
        expected = philox((at % 2**32, at >> 32, *stream[:2]), (stream[2], stream[3]))
        assert tuple(out[block, :, lane].tolist()) == expected


@given(st.integers(0, 19_999), st.integers(1, 9000))
def test_any_stretch_of_bits_is_a_stretch_of_the_whole(start: int, length: int) -> None:
    stop = min(start + length, 20_000)
    assert np.array_equal(uniform_bits(bit_stream(1, "m:w"), start, stop), BITS[start:stop])


def test_seed_and_name_each_give_other_bits() -> None:
    for seed, name in ((2, "m:w"), (1, "n:w"), (1, "m:v")):
        assert abs(np.corrcoef(uniform_bits(bit_stream(seed, name), 0, 20_000), BITS)[0, 1]) < 0.03


def test_bits_are_uniform_and_independent() -> None:
    drawn = uniform_bits(bit_stream(0, "m:w"), 0, 1 << 20)
    assert drawn.dtype == np.uint16
    for counts in (np.bincount(drawn >> 8), np.bincount(drawn & 255)):
        expected = drawn.size / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 5 * np.sqrt(2 * 255)  # chi-squared
    for lag in (1, 2, 8, LANES, 64, BLOCK):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 0.005
    for bit in range(16):
        assert abs(np.mean(drawn >> bit & 1) - 0.5) < 0.0025


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 65_535))
def test_a_mask_says_which_numbers_are_below_a_limit(block: int, limit: int) -> None:
    stream = bit_stream(0, "m:w")
    mask = np.empty(2 * BLOCK // 64, dtype=np.uint64)
    below(address(mask), 2, block, stream, limit, np.empty((PLANES, 4, LANES), dtype=np.uint32))
    expected = uniform_bits(stream, block * BLOCK, (block + 2) * BLOCK) < limit
    assert np.array_equal(np.unpackbits(mask.view(np.uint8), bitorder="little").astype(bool), expected)
