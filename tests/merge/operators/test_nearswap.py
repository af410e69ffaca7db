import numpy as np

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import OperatorContract, Whole


class TestNearSwap(OperatorContract):
    name = "nearswap"
    sources = 2
    homogeneous = False  # t is a distance

    def direct(self, theta: Whole, values: Values) -> Whole:
        found = {}
        for name, (base, other) in theta.items():
            c = np.minimum(values.one("t") / np.abs(other - base), 1.0)
            found[name] = c * other + (1 - c) * base
        return found
