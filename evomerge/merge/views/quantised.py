"""Checkpoints in eight-bit floating point, multiplied out while they are read.

Such a checkpoint keeps a scale beside each weight: ``X.weight_scale`` (compressed-tensors, FBGEMM) or
``X.weight_scale_inv`` (DeepSeek), for the whole tensor, for each row, or for each block of 128 x 128. By any name it
is what the stored values are multiplied by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evomerge.errors import PoolError
from evomerge.merge.once import Once
from evomerge.merge.source import Source, View, computed
from evomerge.merge.tensorfile import Array, Entry, Floats

_EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
_SCALES = ("_scale", "_scale_inv")
_IDLE = (".input_scale", ".activation_scale", ".output_scale", ".q_scale", ".k_scale", ".v_scale", ".prob_scale")
"""Scales of what flows through the model while it runs in eight bits."""
_WEIGHTS = (".weight", ".qweight", ".weight_packed", ".qzeros")
_SETTINGS = ("quantization_config", "compression_config")
_BLOCK = (128, 128)
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_CURE = "load it with transformers, call its dequantize() and save it again"


def whole_precision(source: Source) -> Source:
    """The source without quantisation: itself, or a view that undoes it.

    Raises:
        PoolError: it is quantised in another way, or a scale does not fit.
    """
    for name, entry in source.entries.items():
        if name.endswith(_WEIGHTS) and not entry.floating:
            raise PoolError(
                f"{source.path}: tensor {name!r} is stored as {entry.dtype}, which quantised weights are; {_CURE}"
            )
    eight = any(entry.dtype in _EIGHT_BITS for entry in source.entries.values())
    return Multiplied(source) if eight else source


class Multiplied(View):
    """``s W`` in float32 for weights of eight bits, without the scales; the rest is as it is.

    Raises:
        PoolError: a scale fits no tensor, row or block.
    """

    def __init__(self, origin: Source) -> None:
        super().__init__("multiplied", [origin])
        self._origin = origin
        eight = [name for name, entry in origin.entries.items() if entry.dtype in _EIGHT_BITS]
        self._scale = {name: found for name in eight if (found := self._find(name)) is not None}
        idle = {name for name in origin.entries if name.endswith(_IDLE)} | set(self._scale.values())
        self.entries = {
            name: computed(entry) if entry.dtype in _EIGHT_BITS else entry
            for name, entry in origin.entries.items()
            if name not in idle
        }
        self._block = self._block_size()
        self._scales = Once()
        for name in self._scale:
            self._check(origin.entries[name], origin.entries[self._scale[name]])

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Float32 where the origin has eight bits."""
        entry = self._origin.entries[name]
        if entry.dtype not in _EIGHT_BITS:
            return self._origin.stored(name, start, stop)
        values = self._origin.floats(name, start, stop)
        if name in self._scale:
            self._multiply(values, entry, start)
        return values

    def describe(self) -> str:
        """The origin, and how it is stored."""
        return f"eight-bit {self._origin.describe()}"

    def export_dtype(self, name: str) -> str:
        """What the config says that it is otherwise computed in, for weights of eight bits."""
        dtype = self._origin.export_dtype(name)
        if dtype not in _EIGHT_BITS:
            return dtype
        config = self._origin.config()
        said = config.get("dtype") or config.get("torch_dtype")
        return _DTYPES.get(str(said).removeprefix("torch."), "BF16")

    def _fingerprint(self, name: str) -> str:
        used = [name, self._scale[name]] if name in self._scale else [name]
        return self._named(["multiplied", *(self._origin.fingerprint(one) for one in used)])

    def config(self) -> dict[str, Any]:
        """The origin's, quantised no more."""
        return {key: value for key, value in self._origin.config().items() if key not in _SETTINGS}

    def _find(self, name: str) -> str | None:
        found = [name + ending for ending in _SCALES if name + ending in self._origin.entries]
        if len(found) > 1:
            raise PoolError(f"{self.path}: tensor {name!r} has two scales, {found[0]!r} and {found[1]!r}; {_CURE}")
        return found[0] if found else None

    def _block_size(self) -> tuple[int, int]:
        settings: Any = next((table for key in _SETTINGS if (table := self._origin.config().get(key))), {})
        size = settings.get("weight_block_size") if isinstance(settings, Mapping) else None
        if isinstance(size, list) and len(size) == 2 and all(type(one) is int and one > 0 for one in size):
            return size[0], size[1]
        return _BLOCK

    def _check(self, weight: Entry, scale: Entry) -> None:
        blocks = tuple(-(-axis // size) for axis, size in zip(weight.shape, self._block, strict=False))
        rows = ((weight.shape[0],), (weight.shape[0], 1)) if weight.shape else ()
        fits = scale.size == 1 or scale.shape in rows or (len(weight.shape) == 2 and scale.shape == blocks)
        if not fits or not scale.floating:
            raise PoolError(
                f"{self.path}: the scale {scale.name!r} ({scale.dtype} {list(scale.shape)}) is neither for the tensor "
                f"{weight.name!r} {list(weight.shape)} as a whole nor for its rows nor for blocks of "
                f"{self._block[0]} x {self._block[1]}; {_CURE}"
            )

    def _multiply(self, values: Floats, weight: Entry, start: int) -> None:
        """By the scale, in place; ``values`` begin at flat index ``start``."""
        name = self._scale[weight.name]
        scale = self._scales.get(name, lambda: self._origin.floats(name))
        if len(scale) == 1:
            values *= scale[0]
            return
        columns = weight.size // weight.shape[0]
        by_row = self._origin.entries[name].shape in ((weight.shape[0],), (weight.shape[0], 1))
        height, width = (1, columns) if by_row else self._block
        across = -(-columns // width)
        at = 0
        while at < len(values):
            row, first = divmod(start + at, columns)
            part = values[at : at + columns - first]
            blocks = scale[row // height * across :][:across]
            part *= np.repeat(blocks, width)[first : first + len(part)]
            at += len(part)
