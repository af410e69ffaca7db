"""Numbers about what sources have learned, ``tau_i = theta_i - theta_0``: thresholds, sums, largest values.

Thresholds come from a histogram that is made in one pass over a tensor and kept in the pool's cache, so that a second
threshold costs nothing, or one pass over the tensors that have entries very near it. No sort, and no copy of a tensor.
All numbers are exact or summed in float64 over fixed blocks: they depend on the sources' values alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.operators.port import Model, Tensor
from evomerge.merge.parallel import run
from evomerge.merge.tensorfile import Floats, chunks
from evomerge.merge.vectors import BLOCK

Counts = NDArray[np.int64]
Sparse = tuple[NDArray[np.uint16], Counts]
"""The bins that are not empty, and their counts."""

_SPAN = 1 << 20
"""Entries that a kernel counts in one go."""


def threshold(tensor: Tensor, source: int, keep: float) -> float:
    """The smallest ``|theta_source - theta_0|`` of a tensor that is kept when about ``keep n`` of its n entries are.

    The ``m = round(keep n)`` largest are kept, and all that equal the smallest of them: decide with ``>=``. It is 0
    where all are kept, and infinite where none is.
    """
    return tensor.model.once(
        ("threshold", tensor.name, source, keep), lambda: Magnitudes((tensor,), source).threshold(keep)
    )


def model_threshold(model: Model, source: int, keep: float) -> float:
    """As `threshold`, over all entries of the whole model together."""
    return model.once(("threshold", source, keep), lambda: model_magnitudes(model, source).threshold(keep))


def model_magnitudes(model: Model, source: int) -> Magnitudes:
    """All entries of the whole model."""
    return model.once(("magnitudes", source), lambda: Magnitudes(tuple(model.tensors()), source, model.threads))


class Ranked(ABC):
    """How many of some numbers, none of them negative, are how large: exact order statistics without sorting."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.size = int(counts.sum())

    @abstractmethod
    def within(self, upper: int) -> Counts:
        """Of the numbers whose pattern's upper half is ``upper``, how many have which lower half, (65536,)."""

    @property
    def positive(self) -> int:
        """How many are above 0."""
        return self.size - int(self._counts[0])

    def nth_largest(self, n: int) -> float:
        """The n-th largest, from 1: at least n are not below it. 0 beyond the last, infinity before the first."""
        if not 0 < n <= self.size:
            return 0.0 if n > 0 else math.inf
        above, which = nth_largest(self._counts, n)
        low = nth_largest(self.within(which // 2), n - above)[1] if which % 2 else 0
        return _value(which // 2 << 16 | low)

    def threshold(self, keep: float) -> float:
        """The smallest that is kept when the ``round(keep size)`` largest are, and all that equal it."""
        kept = round(keep * self.size)
        return 0.0 if kept >= self.size else self.nth_largest(kept)

    def kept(self, threshold: float) -> int:
        """How many are at least ``threshold``."""
        if threshold <= 0.0:
            return self.size
        if not math.isfinite(threshold):
            return 0
        upper, low = divmod(_pattern(threshold), 1 << 16)
        whole = int(self._counts[2 * upper + 2 :].sum())
        if low <= 1:
            return whole + int(self._counts[2 * upper + low : 2 * upper + 2].sum())
        return whole + int(self.within(upper)[low:].sum())

    def share(self, threshold: float) -> float:
        """The share that is at least ``threshold``: more than was asked for, where many are equal."""
        return self.kept(threshold) / self.size if self.size else 1.0


class Magnitudes(Ranked):
    """The entries of ``|theta_source - theta_0|`` over one tensor or several, counted once per pool."""

    def __init__(self, tensors: Sequence[Tensor], source: int, threads: int = 1) -> None:
        self._tensors = tensors
        self._source = source
        self._threads = threads
        super().__init__(self._added(_histogram))

    def within(self, upper: int) -> Counts:
        """Of all tensors."""
        return self._added(partial(_near, upper))

    def _added(self, count: Callable[[Tensor, int], Sparse]) -> Counts:
        """What is counted in each tensor, together."""
        total: Counts = np.zeros(1 << 16, dtype=np.int64)
        with closing(run((partial(count, tensor, self._source) for tensor in self._tensors), self._threads)) as parts:
            for which, counts in parts:
                total[which] += counts
        return total


class Streamed(Ranked):
    """Numbers that ``blocks()`` gives piece by piece, the same ones every time it is called."""

    def __init__(self, blocks: Callable[[], Iterable[Floats]]) -> None:
        from evomerge.merge.kernels.magnitudes import BINS, count

        self._blocks = blocks
        counts = np.zeros(BINS, dtype=np.int64)
        for block in blocks():
            count((np.zeros_like(block), "F32"), (block, "F32"), counts)
        super().__init__(counts)

    def within(self, upper: int) -> Counts:
        """In a second pass."""
        from evomerge.merge.kernels.magnitudes import count_within

        counts = np.zeros(1 << 16, dtype=np.int64)
        for block in self._blocks():
            count_within((np.zeros_like(block), "F32"), (block, "F32"), upper, counts)
        return counts


@dataclass(frozen=True, slots=True)
class Sums:
    """Of ``tau``: the sum, the sum of magnitudes (L1), the sum of squares, and the largest magnitude."""

    total: float
    absolute: float
    square: float
    largest: float

    @property
    def norm(self) -> float:
        """The Euclidean norm."""
        return math.sqrt(self.square)


def sums(tensor: Tensor, source: int) -> Sums:
    """Of one tensor."""

    def compute() -> dict[str, NDArray[np.float64]]:
        total, absolute, square, largest = [], [], [], 0.0
        for base, other in _blocks(tensor, source):
            magnitudes = (other - base).astype(np.float64)
            total.append(float(np.add.reduce(magnitudes)))
            np.abs(magnitudes, out=magnitudes)
            absolute.append(float(np.add.reduce(magnitudes)))
            largest = max(largest, float(magnitudes.max()))
            square.append(float(np.add.reduce(np.multiply(magnitudes, magnitudes, out=magnitudes))))
        return {"sums": np.array([math.fsum(total), math.fsum(absolute), math.fsum(square), largest])}

    return Sums(*tensor.remember("sums of tau 2", compute, of=(0, source))["sums"].tolist())


def model_sums(model: Model, source: int) -> Sums:
    """Of the whole model."""

    def compute() -> Sums:
        with closing(run((partial(sums, tensor, source) for tensor in model.tensors()), model.threads)) as parts:
            each = list(parts)
        return Sums(
            math.fsum(one.total for one in each),
            math.fsum(one.absolute for one in each),
            math.fsum(one.square for one in each),
            max((one.largest for one in each), default=0.0),
        )

    return model.once(("sums", source), compute)


def _histogram(tensor: Tensor, source: int) -> Sparse:
    """The bins of `kernels.magnitudes` that occur, and their counts."""
    from evomerge.merge.kernels.magnitudes import BINS, count

    def compute() -> dict[str, NDArray[Any]]:
        counts = np.zeros(BINS, dtype=np.int64)
        for start, stop in chunks(tensor.size, _SPAN):
            count(tensor.stored(0, start, stop), tensor.stored(source, start, stop), counts)
        return occurring(counts)

    found = tensor.remember("magnitudes of tau 1", compute, of=(0, source))
    return found["which"], found["counts"]


def _near(upper: int, tensor: Tensor, source: int) -> Sparse:
    """Lower halves of the patterns whose upper half is ``upper``, and their counts."""
    from evomerge.merge.kernels.magnitudes import count_within

    def compute() -> dict[str, NDArray[Any]]:
        total = np.zeros(1 << 16, dtype=np.int64)
        for start, stop in chunks(tensor.size, _SPAN):
            count_within(tensor.stored(0, start, stop), tensor.stored(source, start, stop), upper, total)
        return occurring(total)

    found = tensor.remember(f"magnitudes of tau 1 within {upper}", compute, of=(0, source))
    return found["which"], found["counts"]


def _blocks(tensor: Tensor, source: int) -> Iterator[tuple[Floats, Floats]]:
    """The base and a source, in blocks that are always the same."""
    for start, stop in chunks(tensor.size, BLOCK):
        yield tensor.read(0, start, stop), tensor.read(source, start, stop)


def occurring(counts: Counts) -> dict[str, NDArray[Any]]:
    """Which of at most 65,536 bins are not empty, uint16, and their counts."""
    which = np.flatnonzero(counts)
    return {"which": which.astype(np.uint16), "counts": counts[which]}


def nth_largest(counts: Counts, n: int) -> tuple[int, int]:
    """How many lie above the bin of the n-th largest (from 1), and which bin that is."""
    from_top = np.cumsum(counts[::-1])
    at = int(np.searchsorted(from_top, n))
    return int(from_top[at] - counts[::-1][at]), len(counts) - 1 - at


def _value(pattern: int) -> float:
    return float(np.array(pattern, dtype=np.uint32).view(np.float32))


def _pattern(value: float) -> int:
    """The pattern of the smallest float32 that is not below a positive value."""
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    return int(nearest.view(np.uint32)) + (float(nearest) < value)
