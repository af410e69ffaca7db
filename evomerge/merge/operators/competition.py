"""Scores of PCB-Merging over whole models: what each expert's entries are worth, and from which score on they count.

The scores themselves are never kept. Their quantiles come from counts by the upper halves of their patterns, made exact
by a second pass over one bin, like those of magnitudes in `evomerge.merge.operators.statistics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evomerge.merge.operators.port import Arrays, Model, Tensor
from evomerge.merge.operators.statistics import Counts, model_threshold, nth_largest
from evomerge.merge.tensorfile import Floats, chunks
from evomerge.merge.vectors import BLOCK

Variant = Literal["C", "B", "A"]
VARIANTS: tuple[Variant, ...] = ("C", "B", "A")


@dataclass(frozen=True)
class Scale:
    """How scores follow from task vectors: per expert, the quantiles between which magnitudes are told apart."""

    variant: Variant
    lows: Floats
    highs: Floats

    def scores(self, theta: Floats) -> Floats:
        """Of all experts, (N, n), from (1 + N, n) with the base first."""
        from evomerge.merge.kernels.pcb import find_scores

        found = np.empty((len(theta) - 1, theta.shape[1]), dtype=np.float32)
        slopes = _slopes(self.lows, self.highs)
        find_scores(theta, self.lows, self.highs, slopes, VARIANTS.index(self.variant), found)
        return found

    @property
    def key(self) -> str:
        """Tells it apart from all others."""
        return f"pcb 1 {self.variant} {self.lows.tobytes().hex()} {self.highs.tobytes().hex()}"


@dataclass(frozen=True)
class Cut:
    """From which score S grows in each expert, and the largest score, where it is 1."""

    scale: Scale
    least: Floats
    largest: Floats

    def weighed(self, theta: Floats) -> Floats:
        """``tau_i S_i / sum_j S_j`` of all experts, magnitudes clipped, (N, n).

        Where all entries of an expert that count score alike S is 1, unless they are worth nothing.
        """
        from evomerge.merge.kernels.pcb import weigh

        found = self.scale.scores(theta)
        slopes = _slopes(self.least, self.largest)
        ends = ((slopes == 0.0) & (self.least > 0.0)).astype(np.float32)
        weigh(theta, self.scale.lows, self.scale.highs, self.least, slopes, ends, found)
        return found

    @property
    def key(self) -> str:
        """Tells it apart from all others."""
        return f"{self.scale.key} {self.least.tobytes().hex()} {self.largest.tobytes().hex()}"


def model_cut(model: Model, variant: Variant, r: float, q: float) -> Cut:
    """S of all entries of a model: exactly 0 outside the share ``r`` of each expert's largest scores.

    Magnitudes are clipped to their quantiles ``q`` and ``1 - q`` over the model.
    """
    scale = model.once(("pcb scale", variant, q), lambda: _scale(model, variant, q))
    return model.once(("pcb cut", variant, r, q), lambda: _cut(model, scale, r))


def blocks(tensor: Tensor, start: int, stop: int) -> Iterator[Floats]:
    """Elements of all sources, (1 + N, n), in blocks that are always the same."""
    for low, high in chunks(stop - start, BLOCK):
        yield np.stack([tensor.read(source, start + low, start + high) for source in range(tensor.sources)])


def _scale(model: Model, variant: Variant, q: float) -> Scale:
    size = sum(tensor.size for tensor in model.tensors())
    experts = range(1, model.sources)
    lows = [model_threshold(model, expert, 1.0 - q) for expert in experts]
    highs = [model_threshold(model, expert, max(q, 1.0 / size)) for expert in experts]
    return Scale(variant, np.array(lows, dtype=np.float32), np.array(highs, dtype=np.float32))


def _cut(model: Model, scale: Scale, r: float) -> Cut:
    from evomerge.merge.kernels.pcb import score_of

    kept = max(1, round(r * sum(tensor.size for tensor in model.tensors())))
    found = [nth_largest(row, kept) for row in _counts(model, scale, None)]
    uppers = tuple(upper for _, upper in found)
    within = zip(_counts(model, scale, uppers), found, strict=True)
    least = [score_of(upper << 16 | nth_largest(row, kept - above)[1]) for row, (above, upper) in within]
    largest = [_scores(tensor, scale, None)["largest"] for tensor in model.tensors()]
    return Cut(scale, np.array(least, dtype=np.float32), np.max(largest, axis=0))


def _counts(model: Model, scale: Scale, uppers: tuple[int, ...] | None) -> Counts:
    """How many scores of each expert are in which bin, or with ``uppers`` in which part of that bin, (N, bins)."""
    total = np.zeros((model.sources - 1) * (1 << 16), dtype=np.int64)
    for tensor in model.tensors():
        found = _scores(tensor, scale, uppers)
        total[found["which"]] += found["counts"]
    return total.reshape(model.sources - 1, -1)


def _scores(tensor: Tensor, scale: Scale, uppers: Sequence[int] | None) -> Arrays:
    """The counts of one tensor that are not zero, and each expert's largest score."""
    from evomerge.merge.kernels.pcb import count, count_within

    def compute() -> Arrays:
        counts = np.zeros((tensor.sources - 1, 1 << 16), dtype=np.int64)
        largest = np.full(len(counts), -np.inf, dtype=np.float32)
        for theta in blocks(tensor, 0, tensor.size):
            scores = scale.scores(theta)
            np.maximum(largest, scores.max(axis=1), out=largest)
            for expert, row in enumerate(scores):
                if uppers is None:
                    count(row, counts[expert])
                else:
                    count_within(row, uppers[expert], counts[expert])
        which = np.flatnonzero(counts)
        return {"which": which, "counts": counts.reshape(-1)[which], "largest": largest}

    return tensor.remember(f"{scale.key} counts {uppers}", compute)


def _slopes(low: Floats, high: Floats) -> Floats:
    """``1 / (high - low)``, 0 where that is beyond float32."""
    distance = high.astype(np.float64) - low
    far = distance > 1e-37
    return np.divide(1.0, distance, out=np.zeros_like(distance), where=far).astype(np.float32)
