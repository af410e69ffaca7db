from pathlib import Path

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import OperatorContract, Whole


class TestPassthrough(OperatorContract):
    name = "passthrough"
    sources = 1

    def direct(self, theta: Whole, values: Values) -> Whole:
        return {name: values.one("scale") * tensor[0] for name, tensor in theta.items()}


def test_a_scale_of_one_is_a_copy_bit_for_bit(tmp_path: Path) -> None:
    contract = TestPassthrough()
    pool = contract.make_pool(tmp_path, contract.vectors(1))
    assert contract.build(pool, contract.recipe((1.0,)), "table").tobytes() == pool.vector("one").tobytes()
