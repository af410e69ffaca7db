from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.merge.operators.port import Values, operator
from evomerge.testing.operator import OperatorContract, Whole
from tests.merge.operators.tasks import Options, merged, taus

few = settings(max_examples=25, deadline=None)
ALL: Options = (("kept", 1.0),)


def truncation(matrix: Any, kept: float) -> Any:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    k = max(1, int(kept * len(values) + 1e-9))
    return (left[:, :k] * values[:k]) @ right[:k]


class TestTwin(OperatorContract):
    name = "twin"
    shared, kept = 0.3, 0.1

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, tensor in theta.items():
            common = tensor[0] + self.shared * (tensor[1:] - tensor[0]).sum(axis=0)
            own = [one - common for one in tensor[1:]]
            if common.ndim == 2:
                own = [truncation(one, self.kept) for one in own]
            found[name] = common + sum(gate * one for gate, one in zip(values.each("gate"), own, strict=True))
        return found


class TestTwinInOtherNumbers(TestTwin):
    options = (("kept", 0.5), ("shared", 0.6))
    shared, kept = 0.6, 0.5


@given(st.integers(0, 99), st.integers(0, 2))
@few
def test_one_open_gate_gives_that_expert_where_nothing_is_cut_off(seed: int, which: int) -> None:
    of = taus(seed)
    gates = [float(at == which) for at in range(3)]
    np.testing.assert_allclose(merged("twin", of, gates, ALL), of[which], atol=1e-5)


def test_closed_gates_leave_what_is_shared() -> None:
    of = taus(1)
    np.testing.assert_allclose(merged("twin", of, (0.0, 0.0, 0.0)), 0.3 * sum(of), atol=1e-5)


def test_the_more_is_kept_the_nearer_is_the_expert() -> None:
    of = taus(2, (9, 12))
    found = [merged("twin", of, (1.0, 0.0, 0.0), (("kept", kept),)) for kept in (0.1, 0.4, 0.8, 1.0)]
    errors = [np.linalg.norm(one - of[0]) for one in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4 < errors[-2]


@pytest.mark.parametrize("kept", [0.0, 1.5])
def test_an_impossible_share_is_refused(kept: float) -> None:
    with pytest.raises(RecipeError, match="twin cannot"):
        operator("twin", (("kept", kept),))
