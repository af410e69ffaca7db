"""Merging on an accelerator: a pool's tensors in its memory, as far as they fit there.

Results are those of the processor to rounding. Everything runs as well on torch's own "cpu".
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from evomerge.merge.source import Source
from evomerge.merge.tensorfile import Array

_SHARE = 0.8
"""Of the free memory that the pool may take; models, activations and pieces under way need some, too."""

_TORCH = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""What torch calls dtypes that numpy has not."""


class Device:
    """A torch device, and what of a pool is kept on it.

    Tensors stay where they were read once while all kept take at most ``budget`` bytes (default: most of the memory
    that is free now, where the device says how much that is); others are sent again each time.
    """

    def __init__(self, device: Any, budget: int | None = None) -> None:
        import torch

        self.device = torch.device(device)
        self._pinned = self.device.type == "cuda"
        self._room = _free(self.device) if budget is None else budget
        self._kept: dict[tuple[Source, str], Any] = {}
        self._lock = Lock()

    def put(self, array: Array) -> Any:
        """A tensor on the device, a copy."""
        import torch

        host = torch.empty(array.shape, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype, pin_memory=self._pinned)
        np.copyto(host.numpy(), array)
        return host.to(self.device, non_blocking=True)

    def stored(self, source: Source, name: str, start: int, stop: int) -> Any:
        """Elements of a source's flattened tensor, in the dtype of the file. Read only."""
        key = source, name
        if key not in self._kept and self._reserve(source, name):
            self._kept[key] = self._sent(source, name, 0, source.entries[name].size)
        if key in self._kept:
            return self._kept[key][start:stop]
        return self._sent(source, name, start, stop)

    def floats(self, source: Source, name: str, start: int, stop: int) -> Any:
        """The same as an own float32 tensor."""
        import torch

        return self.stored(source, name, start, stop).to(torch.float32, copy=True)

    def _sent(self, source: Source, name: str, start: int, stop: int) -> Any:
        import torch

        array, dtype = source.stored(name, start, stop), source.entries[name].dtype
        if dtype not in _TORCH:
            return self.put(array)
        return self.put(array.view(f"i{array.itemsize}")).view(getattr(torch, _TORCH[dtype]))

    def _reserve(self, source: Source, name: str) -> bool:
        """Whether there is room for the whole tensor, which is then taken."""
        entry = source.entries[name]
        nbytes = entry.stop - entry.start
        with self._lock:
            fits = nbytes <= self._room
            self._room -= nbytes if fits else 0
        return fits


def weighted(terms: Sequence[tuple[Any, float]]) -> Any:
    """``sum c x`` left to right in float32, of tensors with their coefficients; a lone 1 gives the tensor itself."""
    import torch

    if len(terms) == 1 and terms[0][1] == 1.0:
        return terms[0][0]
    total: Any = None
    for tensor, coefficient in terms:
        term = tensor.to(torch.float32) * float(np.float32(coefficient))
        total = term if total is None else total + term
    return total


def _free(device: Any) -> int:
    """Bytes of the device's memory that a pool may take; none where it does not say."""
    import torch

    say = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    return 0 if say is None else int(_SHARE * say(device)[0])
