import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merge.tensorfile import STORED, TensorFile
from evomerge.merge.writer import Blueprint, Planned, aligned, write_file

plans = st.lists(st.tuples(st.sampled_from(sorted(STORED)), st.lists(st.integers(0, 9), max_size=3)), max_size=8).map(
    lambda drawn: aligned(Planned(f"t{at}", dtype, tuple(shape)) for at, (dtype, shape) in enumerate(drawn))
)


@given(plans, st.integers(1, 20))
def test_stretches_of_a_file_hold_every_element_once_in_order(planned: list[Planned], blocks: int) -> None:
    blueprint = Blueprint(planned)
    reached = {plan.name: 0 for plan in planned}
    for start in range(0, blueprint.nbytes, 8 * blocks):
        stop = min(start + 8 * blocks, blueprint.nbytes)
        held = max(0, min(stop, len(blueprint.header)) - start)
        for plan, first, last in blueprint.within(start, stop):
            assert first == reached[plan.name] < last
            reached[plan.name] = last
            held += (last - first) * STORED[plan.dtype].itemsize
        assert held == stop - start
    assert reached == {plan.name: math.prod(plan.shape) for plan in planned}


def test_a_blueprint_is_what_is_written(tmp_path: Path) -> None:
    planned = [Planned("wide", "F64", (2, 3)), Planned("empty", "F32", (0, 4)), Planned("narrow", "BF16", (5,))]
    write_file(tmp_path / "file", planned, lambda plan: [np.zeros(math.prod(plan.shape), STORED[plan.dtype])])
    blueprint = Blueprint(planned)
    content = (tmp_path / "file").read_bytes()
    assert content.startswith(blueprint.header)
    assert len(content) == blueprint.nbytes
    assert {name: entry.shape for name, entry in TensorFile(tmp_path / "file").entries.items()} == {
        plan.name: plan.shape for plan in planned
    }


@pytest.mark.parametrize(
    ("dtype", "count", "message"), [("<f4", 5, "given as"), ("<f8", 6, "with 40 bytes but given 48")]
)
def test_wrong_pieces_are_refused(tmp_path: Path, dtype: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_file(tmp_path / "file", [Planned("t", "F64", (5,))], lambda plan: [np.zeros(count, dtype)])
