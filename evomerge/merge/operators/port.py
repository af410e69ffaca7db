"""The Operator port: what a recipe names, and what it does to its sources.

An operator is a frozen dataclass whose fields are its options (``Recipe.options`` by name): structure, not search.
What a search may vary are its `Parameter` s; a recipe gives their values for every segment. There are three kinds:

* `LinearOperator` turns values into one coefficient per source. It never sees weights, and stays exact in coefficient
  space whatever the ancestry.
* `TensorOperator` computes weights from weights, piece by piece, on a CPU or an accelerator.
* `FactorOperator` (in `evomerge.merge.adapters`) turns low-rank adapters into a low-rank adapter.

All are pure. An impossible value is a `RecipeError` that names it. `evomerge.testing.operator` checks the contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.parameter import Declaration
from evomerge.parameter import Parameter as Parameter  # noqa: PLC0414 - operators find all they need here
from evomerge.plugins import load

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]

Scope = Literal["global", "per_segment"]
Grain = Literal["element", "row", "matrix"]


@dataclass(frozen=True, slots=True)
class Values:
    """A segment's values by parameter name. ``flat`` is how a recipe holds them: parameter by parameter."""

    flat: tuple[float, ...]
    spans: tuple[tuple[str, int, int], ...]

    def one(self, name: str) -> float:
        """The value of a parameter that has one."""
        return self.each(name)[0]

    def each(self, name: str) -> tuple[float, ...]:
        """All values of a parameter, in the order of the sources."""
        for known, start, stop in self.spans:
            if known == name:
                return self.flat[start:stop]
        raise KeyError(name)


class Stretch(Protocol):
    """Where coefficients are wanted, and the geometry of the sources there."""

    sources: int
    """How many sources there are."""
    layers: int
    """How many layers the model has."""

    @property
    def tensor(self) -> str | None:
        """Name of the tensor it lies in; ``None`` if it reaches over several (never with ``per_tensor``)."""

    @property
    def layer(self) -> int | None:
        """Number of the layer that the tensor belongs to, where it has one."""

    def angle(self, scope: Scope) -> float | None:
        """Radians between the first two sources, over all groups or here; ``None`` if one of them is zero."""

    def gram(self, scope: Scope) -> NDArray[np.float64]:
        """Inner products of the sources, K x K, over all groups or here. K is the number of sources."""

    def attached(self, kind: str) -> tuple[float, ...]:
        """A number that the pool keeps beside each source, such as its training ``loss``.

        Raises:
            RecipeError: a source has no such number, or is no pool member.
        """


class Operator(ABC):  # noqa: B024 - abstract in that only its kinds below can be built
    """What all kinds share: parameters, and how many sources they take."""

    parameters: ClassVar[tuple[Parameter, ...]] = ()
    least: ClassVar[int] = 1
    """Fewest sources it takes."""
    most: ClassVar[int | None] = None
    """Most sources it takes, where there is a limit."""
    based: ClassVar[bool] = False
    """Whether the first source is the base that the others are told apart from."""
    ordered: ClassVar[bool] = False
    """Whether the order of the sources (after the base) matters."""

    @classmethod
    def declaration(cls, name: str) -> Declaration:
        """What a search must know of it; ``name`` is what it is registered as."""
        return Declaration(name, cls.parameters, cls.based, cls.least, cls.most)

    def width(self, sources: int) -> int:
        """How many values each segment has for so many sources."""
        return sum(parameter.count(sources) for parameter in self.parameters)

    def values(self, flat: Sequence[float], sources: int) -> Values:
        """A segment's values by name, checked against what is possible.

        Raises:
            RecipeError: too few or too many values, or an impossible one.
        """
        if len(flat) != self.width(sources):
            names = ", ".join(f"{parameter.count(sources)} {parameter.name}" for parameter in self.parameters)
            raise RecipeError(f"{len(flat)} values, but {type(self).__name__} needs {self.width(sources)} ({names})")
        at = 0
        spans = []
        for parameter in self.parameters:
            spans.append((parameter.name, at, at + parameter.count(sources)))
            at = spans[-1][2]
            for value in flat[spans[-1][1] : at]:
                parameter.check(value)
        return Values(tuple(flat), tuple(spans))

    def check_sources(self, sources: int) -> None:
        """Refuse a number of sources that the operator has no meaning for.

        Raises:
            RecipeError: naming how many it takes.
        """
        if sources < self.least or (self.most is not None and sources > self.most):
            wanted = f"{self.least}" if self.most == self.least else f"{self.least} to {self.most or 'any number of'}"
            raise RecipeError(f"{type(self).__name__} takes {wanted} sources, the recipe has {sources}")


class LinearOperator(Operator):
    """Its result is a linear combination of the sources on every segment."""

    @property
    def per_tensor(self) -> bool:
        """Whether segments are cut at tensor boundaries, so that each tensor has coefficients of its own."""
        return False

    @abstractmethod
    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """One finite coefficient per source. Copes with zero, equal and opposite sources.

        Raises:
            RecipeError: values that have no result.
        """


class Piece(Protocol):
    """Some elements of one tensor, of all sources alike.

    Of grain ``element`` arrays are (sources, m); of ``row`` (sources, rows, columns) with whole rows, where columns is
    the tensor's last axis; of ``matrix`` the same with all rows. A tensor of one axis is a single row.
    """

    start: int
    """Flat index of its first element in the tensor."""

    @property
    def tensor(self) -> Tensor:
        """What it is a piece of."""

    @property
    def theta(self) -> Any:
        """The sources' values, an own float32 array (numpy, or torch on an accelerator)."""

    @property
    def stored(self) -> Sequence[tuple[NDArray[Any], str]] | None:
        """For kernels on a CPU: each source's values before they are converted, flat and read only, with their dtype.

        Arrays are as `evomerge.merge.tensorfile.STORED` says. ``None`` on an accelerator.
        """

    def source(self, at: int) -> Any:
        """One source's values alone, which is cheaper where the others are not needed."""

    @property
    def deltas(self) -> Any:
        """What each source after the first (the base) has learned: ``theta_i - theta_0``, a new float32 array."""

    def bits(self, seed: int, source: int) -> Any:
        """Sixteen random bits per element, integers in 0..65535 (numpy: uint16), shaped like one source's values.

        They depend on the seed, the source's name, the tensor's name and the element's index, on nothing else.
        """

    def attached(self, kind: str) -> Any:
        """What the pool keeps beside the sources for these elements, shaped like ``theta``: ``fisher``, for one.

        Raises:
            RecipeError: a source has no such statistics.
        """


class Tensor(Protocol):
    """One tensor of all sources, to gather numbers from before pieces of it are merged."""

    name: str
    shape: tuple[int, ...]
    size: int
    sources: int

    @property
    def model(self) -> Model:
        """The whole that it is a part of."""

    def pieces(self, grain: Grain = "element") -> Iterator[Piece]:
        """The whole tensor on the CPU, always cut in the same way."""

    def read(self, source: int, start: int, stop: int) -> NDArray[np.float32]:
        """Elements ``start:stop`` of one source, flattened, on the CPU."""

    def stored(self, source: int, start: int, stop: int) -> tuple[NDArray[Any], str]:
        """The same before they are converted, as in `Piece.stored`."""

    def bits(self, seed: int, source: int, start: int, stop: int) -> NDArray[np.uint16]:
        """What `Piece.bits` gives for elements ``start:stop``, flattened, on the CPU."""

    def bit_stream(self, seed: int, source: int) -> NDArray[np.uint32]:
        """Four words that tell the stream of these bits from others, for kernels that draw them on the way."""

    def remember(
        self,
        key: str,
        compute: Callable[[], Arrays],
        of: Sequence[int] | None = None,
        attached: Sequence[tuple[str, int]] = (),
    ) -> Arrays:
        """The arrays that ``compute()`` returns by name, from the pool's cache on disk if they are there.

        They may depend on ``key``, on the content of this tensor in the sources ``of`` (default: all), and on what is
        ``attached`` for it (kind and source), on nothing else: never on values or other tensors.
        """

    def attached(self, kind: str, source: int) -> NDArray[np.float32] | None:
        """What the pool keeps beside one source for this tensor, whole, read only, in a shape of its own.

        ``None`` where it keeps nothing for this tensor.

        Raises:
            RecipeError: the source has no such statistics.
        """


class Model(Protocol):
    """All tensors of the sources, for numbers about whole models."""

    sources: int
    threads: int
    """How many threads may work on it (`evomerge.merge.parallel.run`)."""

    def tensors(self) -> Iterator[Tensor]:
        """Every merged tensor in the order of the parameter vector."""

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute()`` returns, computed once per key for this merge and kept in memory."""


class TensorOperator(Operator):
    """Computes weights from weights, piece by piece. The same values however tensors are cut and threads are many."""

    fused: ClassVar[bool] = False
    """Whether `merge` is a kernel that makes no arrays beside its result: then pieces may be larger."""

    def grain(self, tensor: Tensor) -> Grain:
        """How this tensor must be cut: anywhere, between rows, or not at all."""
        return "element"

    def prepare(self, tensor: Tensor, values: Values) -> Any:
        """What all pieces of a tensor share for these values: thresholds, norms, masks. Called before any `merge`."""
        return None

    @abstractmethod
    def merge(self, piece: Piece, values: Values, prepared: Any) -> Any:
        """The merged values, float32, shaped like one source's in ``piece.theta``. May overwrite ``piece.theta``.

        Finite for finite sources; where all sources are equal, their value (unless documented otherwise).

        Raises:
            RecipeError: values that have no result.
        """


@lru_cache(maxsize=256)
def operator(name: str, options: tuple[tuple[str, str | int | float | bool], ...] = ()) -> Operator:
    """The operator of that name with these options.

    Raises:
        PluginError: nobody offers the name.
        RecipeError: it has no such option, or not that value.
    """
    kind = load("operators", name)
    if not (isinstance(kind, type) and issubclass(kind, Operator)):
        raise RecipeError(f"{name!r} is no operator: it must be a subclass of evomerge.merge.operators.port.Operator")
    try:
        return kind(**dict(options))
    except TypeError as error:
        raise RecipeError(f"operator {name!r} does not take the options {dict(options)}: {error}") from error
