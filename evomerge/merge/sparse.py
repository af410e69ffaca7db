"""Rows of numbers most of which are zero: where the others are, and what they are.

The entries of a page of 65,536 follow one another, so that any stretch of a row is found at once, and their places
need two bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.tensorfile import Floats

PAGE = 1 << 16

Packed = Mapping[str, NDArray[Any]]
"""``starts`` int64 (pages x rows + 1), page by page; and ``places`` uint16 and ``values`` float32 of all entries."""


def pack(pages: Iterable[Floats]) -> Packed:
    """Arrays (rows, `PAGE`) one after the other, of which the last may be shorter."""
    starts = [0]
    places = [np.empty(0, dtype=np.uint16)]
    values = [np.empty(0, dtype=np.float32)]
    for page in pages:
        for row in page:
            found = np.flatnonzero(row)
            starts.append(starts[-1] + found.size)
            places.append(found.astype(np.uint16))
            values.append(row[found])
    return {
        "starts": np.array(starts, dtype=np.int64),
        "places": np.concatenate(places),
        "values": np.concatenate(values),
    }


@dataclass(frozen=True)
class SparseRows:
    """What `pack` made of so many ``rows``."""

    packed: Packed
    rows: int

    def add(self, row: int, start: int, scale: float, out: Floats) -> None:
        """Add ``scale`` times elements ``start : start + len(out)`` of a row to ``out``."""
        from evomerge.merge.kernels.scatter import add_entries

        stop = start + out.size
        for page in range(start // PAGE, -(-stop // PAGE)):
            first, last = self.packed["starts"][page * self.rows + row :][:2]
            places, values = self.packed["places"][first:last], self.packed["values"][first:last]
            shift = page * PAGE - start
            low, high = np.searchsorted(places, [max(-shift, 0), min(stop - page * PAGE, PAGE)])
            add_entries(places[low:high], values[low:high], shift, np.float32(scale), out)
