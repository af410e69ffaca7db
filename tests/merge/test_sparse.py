import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.sparse import PAGE, SparseRows, pack

SIZE = 2 * PAGE + 1000
edges = st.sampled_from([0, 1, 5, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, SIZE - 1, SIZE])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 1.0]), edges, edges, st.integers(0, 1))
def test_any_stretch_of_any_row_is_added(seed: int, density: float, one: int, other: int, row: int) -> None:
    draw = np.random.default_rng(seed)
    dense = draw.standard_normal((2, SIZE)).astype(np.float32) * (draw.random((2, SIZE)) < density)
    rows = SparseRows(pack(dense[:, at : at + PAGE] for at in range(0, SIZE, PAGE)), rows=2)
    start, stop = sorted((one, other))
    out = draw.standard_normal(stop - start).astype(np.float32)
    expected = out + np.float32(0.3) * dense[row, start:stop]
    rows.add(row, start, 0.3, out)
    assert np.array_equal(out, expected)
