"""The port of operators that merge low-rank adapters as factors, without ever making the matrices they stand for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from evomerge.merge.adapters.factors import Factors
from evomerge.merge.operators.port import Arrays, Operator, Values


class Module(Protocol):
    """One tensor of the base, and what each adapter adds to it."""

    name: str
    shape: tuple[int, int]
    """Of the tensor: its first axis, and all others flattened."""

    @property
    def factors(self) -> Sequence[Factors | None]:
        """One per source after the base; ``None`` where an adapter leaves the tensor alone, but not for all of them."""

    def remember(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays that ``compute()`` returns by name, from the pool's cache on disk if they are there.

        They may depend on ``key`` and on all `factors`, on nothing else: never on values.
        """


class FactorOperator(Operator):
    """Merges adapters over one base into an adapter. The first source is the base, the others adapt it.

    The recipe is the model ``theta_0 + Delta W``; it can also be written as an adapter. Each segment's values have an
    adapter of their own, of which the segment takes its stretch.
    """

    least: ClassVar[int] = 2
    based: ClassVar[bool] = True

    @property
    def equal_ranks(self) -> bool:
        """Whether all adapters of a tensor must have the same rank there. Checked before `merge` is called."""
        return False

    @abstractmethod
    def merge(self, module: Module, values: Values) -> Factors | None:
        """The merged adapter's factors for one tensor, finite for finite ones; ``None`` if it leaves the tensor alone.

        Sums in float64, results in float32. Runs with one BLAS thread, so that results do not depend on their number.

        Raises:
            RecipeError: values that have no result.
        """


def present(module: Module, name: str, values: Values) -> list[tuple[float, Factors]]:
    """The adapters that change a tensor, each with its value of a parameter."""
    each = zip(values.each(name), module.factors, strict=True)
    return [(value, factors) for value, factors in each if factors is not None]
