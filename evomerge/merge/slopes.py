"""Slopes of a loss towards a pool's models: the linear oracle of Frank-Wolfe merging, in memory for one model.

``slope[g, i] = <gradient, theta_i - theta>`` over parameter group g is the derivative of the loss as that group's
weights move from the live model ``theta`` towards ``theta_i`` (FW-Merging, arXiv 2503.12649, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.merge.bind import Target, match
from evomerge.merge.layout import Slot
from evomerge.merge.parallel import run
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import CHUNK
from evomerge.merge.tensorfile import Floats, chunks


class Slopes:
    """Takes slopes of a live model that is bound to a pool.

    Memory is one gradient and one chunk of one expert at a time and thread, however many the pool has. Sums are float64
    over fixed chunks, so that threads change no bit. Buffers (running statistics), which no gradient reaches, and
    tensors that are not merged count as 0.

    Args:
        model: the torch module.
        target: where the pool's tensors lie in it.
        pool: whose members, and base, are looked towards.
        threads: over which tensors are spread.
    """

    def __init__(self, model: Any, target: Target, pool: ModelPool, threads: int = 1) -> None:
        from torch.nn import Parameter

        found = match(model, pool)
        self._target, self._pool, self._threads = target, pool, threads
        self._slots = [slot for slot in pool.layout.slots if isinstance(found.get(slot.name), Parameter)]
        self._parameters: Mapping[str, Any] = {slot.name: found[slot.name] for slot in self._slots}
        self._towards = (*pool.members, *(() if pool.base is None else (pool.base,)))

    def __call__(self, terms: Iterable[Any]) -> NDArray[np.float64]:
        """The slopes of a loss.

        Args:
            terms: torch scalars that add up to the loss. Each is differentiated, and let go of, before the next.

        Returns:
            float64 of shape (groups, members), with one more column for the base, where there is one.
        """
        rows = {group.name: at for at, group in enumerate(self._pool.groups)}
        slopes = np.zeros((len(rows), len(self._towards)))
        with _differentiated(list(self._parameters.values()), terms):
            work = (partial(self._of_tensor, slot) for slot in self._slots)
            with closing(run(work, self._threads)) as found:
                for slot, products in zip(self._slots, found, strict=True):
                    slopes[rows[slot.group]] += products
        return slopes

    def _of_tensor(self, slot: Slot) -> NDArray[np.float64]:
        """``<gradient, theta_i - theta>`` over one tensor, for each model of the pool."""
        sums = np.zeros(len(self._towards))
        gradient = self._parameters[slot.name].grad
        if gradient is None:
            return sums
        flat, here = gradient.reshape(-1), self._target.tensors[slot.name]
        terms = np.empty(min(CHUNK, slot.size))
        for start, stop in chunks(slot.size, CHUNK):
            slope, at = _floats(flat[start:stop]), _floats(here[start:stop])
            products = terms[: stop - start]
            for place, source in enumerate(self._towards):
                there = self._pool.checkpoints[source].floats(slot.name, start, stop)
                np.subtract(there, at, out=products, dtype=np.float64)
                np.multiply(products, slope, out=products)
                sums[place] += np.add.reduce(products)
        return sums


@contextmanager
def _differentiated(parameters: list[Any], terms: Iterable[Any]) -> Iterator[None]:
    """The gradient of the terms' sum in ``parameters`` meanwhile; afterwards they are as they were."""
    import torch

    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            for term in terms:
                term.backward()
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def _floats(values: Any) -> Floats:
    """A tensor's values as float32, wherever it is."""
    import torch

    floats: Floats = values.detach().to("cpu", torch.float32).numpy()
    return floats
