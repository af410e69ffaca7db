"""How much each tensor has changed from the base to the pool's experts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.errors import PoolError
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.source import Source
from evomerge.merge.tensorfile import chunks
from evomerge.merge.vectors import BLOCK


def importance(
    names: Sequence[str], sources: Mapping[str, Source], base: str | None, cache: PoolCache
) -> dict[str, float]:
    """``sum_i sum |theta_i - theta_0|`` of each tensor: its number of elements times their mean change, of all experts.

    As layers' importance in Expert Merging++ (with all coefficients alike). Summed in float64 over fixed blocks; found
    out once per pool and kept in ``cache``.

    Raises:
        PoolError: there is no base, or nothing beside it, or a tensor that an expert lacks.
    """
    experts = [source for name, source in sources.items() if name != base]
    if base is None or not experts:
        raise PoolError("pool.grouping by importance needs pool.base, and members that have changed from it")
    origin = sources[base]
    identities = "\n".join(source.identity() for source in (origin, *experts))

    def compute() -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return {"sums": np.array([math.fsum(_change(origin, expert, name) for expert in experts) for name in names])}

    found = cache.get(f"importance\n{identities}\n{chr(10).join(names)}", compute)["sums"]
    return dict(zip(names, found.tolist(), strict=True))


def _change(origin: Source, expert: Source, name: str) -> float:
    entry = expert.entries.get(name)
    if entry is None or entry.shape != origin.entries[name].shape or not entry.floating:
        raise PoolError(
            f"{expert.path} has no tensor {name!r} like the base's, so layers cannot be grouped by importance; see "
            "what differs with another pool.grouping"
        )
    return math.fsum(
        float(np.abs(expert.floats(name, *bounds) - origin.floats(name, *bounds)).sum(dtype=np.float64))
        for bounds in chunks(entry.size, BLOCK)
    )
