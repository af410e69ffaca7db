import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.kernels.lanes import CODES
from evomerge.merge.kernels.products import add_products
from evomerge.merge.tensorfile import STORED, Array, from_float32, to_float32

KINDS = sorted(set(CODES) & set(STORED))


def drawn(seed: int, kind: str, count: int) -> Array:
    random = np.random.default_rng(seed)
    if kind.startswith("F8"):
        return random.integers(0, 0x70, count, dtype=np.uint8)
    return from_float32(random.standard_normal(count).astype(np.float32), kind)


@settings(deadline=None)
@given(st.data())
def test_every_block_has_the_products_of_its_elements(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    count, start = data.draw(st.integers(0, 900)), data.draw(st.integers(0, 300))
    block = data.draw(st.integers(1, 700))
    sources = [(drawn(at, kind, count), kind) for at, kind in enumerate(kinds)]
    rows, columns = np.tril_indices(len(kinds))
    sums = np.ones((-(-(start + count) // block), len(rows)))
    add_products(sources, start, block, sums)
    values = np.stack([to_float32(stored, kind) for stored, kind in sources]).astype(np.float64)
    for at, found in enumerate(sums):
        inside = values[:, max(0, at * block - start) : max(0, (at + 1) * block - start)]
        scale = np.abs(inside) @ np.abs(inside).T
        np.testing.assert_allclose(found - 1.0, (inside @ inside.T)[rows, columns], atol=1e-13 * (1.0 + scale.max()))


def test_products_of_float32_are_exact() -> None:
    values = np.array([1.0 + 2.0**-23, 2.0**60, -(2.0**60)], np.float32)
    sums = np.zeros((3, 1))
    add_products([(values, "F32")], 0, 1, sums)
    assert sums[:, 0].tolist() == [float(value) ** 2 for value in values]


@pytest.mark.parametrize("cut", [100, 256, 1000])
def test_blocks_may_be_added_apart(cut: int) -> None:
    """Which blocks one call has changes no byte, as long as each is whole."""
    sources = [(drawn(at, "BF16", 3000), "BF16") for at in range(3)]
    whole = np.zeros((-(-3000 // cut), 6))
    add_products(sources, 0, cut, whole)
    apart = np.zeros_like(whole)
    for at in range(len(whole)):
        pieces = [(stored[at * cut : (at + 1) * cut], kind) for stored, kind in sources]
        add_products(pieces, 0, cut, apart[at : at + 1])
    assert apart.tobytes() == whole.tobytes()


def test_a_pair_does_not_see_the_other_sources() -> None:
    sources = [(drawn(at, "F16", 3000), "F16") for at in range(4)]
    every, two = np.zeros((1, 10)), np.zeros((1, 3))
    add_products(sources, 0, 5000, every)
    add_products([sources[1], sources[3]], 0, 5000, two)
    assert every[0, [2, 7, 9]].tolist() == two[0].tolist()
