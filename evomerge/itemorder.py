"""The order in which a study's items are asked for when a candidate is scored on some of them only.

Strategies ask for ranges of places in this order (`evomerge.candidate.Request`), so that the first n items of any order
but the natural one are a fair sample of all.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.streams import stream

Order = Literal["auto", "natural", "random", "stratified"]


def item_order(order: Order, size: int, strata: NDArray[np.int64] | None, seed: int) -> NDArray[np.int64]:
    """A permutation of ``size`` items.

    Args:
        order: ``natural`` is the order of the split; ``random`` a shuffle; ``stratified`` shuffles within each stratum
            and spreads all strata evenly, so that any beginning has them in the proportions of the whole; ``auto`` is
            stratified where there are strata, else random.
        size: number of items.
        strata: a class number for each item, if items come in kinds.
        seed: of the study.
    """
    if order == "natural":
        return np.arange(size)
    random = stream(seed, 0, "item order")
    shuffled = random.permutation(size)
    if strata is None or order == "random":
        return shuffled
    places = np.empty(size)
    offsets = random.random(int(strata.max()) + 1)
    for kind in np.unique(strata):
        members = shuffled[strata[shuffled] == kind]
        places[members] = (np.arange(members.size) + offsets[kind]) / members.size
    return np.argsort(places, kind="stable")


def chosen(order: NDArray[np.int64], ranges: tuple[tuple[int, int], ...]) -> NDArray[np.int64]:
    """The items at these ranges of places in the order."""
    return np.concatenate([order[start:stop] for start, stop in ranges]) if ranges else order[:0]
