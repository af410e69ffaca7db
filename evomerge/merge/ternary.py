"""Task vectors of three values in a file: ``-scale``, 0 and ``scale``, one scale per tensor.

The file is a safetensors file in which four tensors stand for each one, their names being its name and

* ``:signs`` (uint8): block by block of 32,768 entries one byte, the ``rice`` of the Golomb-Rice code that follows;
* ``:starts`` (int64): where each block begins in it, and the end;
* ``:scale`` (float32): the scale;
* ``:about`` (int64): a hash of the base's first values there, then the shape.

So any stretch is read by itself, and a wrong base is noticed. What is read is exactly what was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.tensorfile import Array, Floats, chunks
from evomerge.merge.writer import Planned, aligned, write_file

SUFFIX = ".ternary"
"""How the names of such files end."""

BLOCK = 1 << 15
SAMPLE = 4096
"""So many of a tensor's first values tell its base apart from another."""
_PARTS = {"signs": "U8", "starts": "I64", "scale": "F32", "about": "I64"}

Bytes = NDArray[np.uint8]
Signs = NDArray[np.int8]


@dataclass(frozen=True)
class Ternary:
    """One tensor of a task vector. ``base`` is `base_hash` of the tensor that it is added to."""

    shape: tuple[int, ...]
    scale: float
    base: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


def is_ternary(path: Path) -> bool:
    """Whether a path is that of a file of this format."""
    return path.suffix == SUFFIX


def base_hash(values: Floats) -> int:
    """Of a tensor's first `SAMPLE` values, as a signed number."""
    import xxhash

    return int.from_bytes(xxhash.xxh3_64(np.ascontiguousarray(values[:SAMPLE]).data).digest(), "big", signed=True)


def encode(signs: Signs) -> Bytes:
    """A block's code, after the byte that says which."""
    from evomerge.merge.kernels import golomb

    rice = _rice(np.count_nonzero(signs) / signs.size)
    out = np.zeros(1 + -(-golomb.size_in_bits(signs, rice) // 8), dtype=np.uint8)
    out[0] = rice
    golomb.encode(signs, rice, out[1:])
    return out


def write_ternary(path: Path, tensors: Mapping[str, Ternary], signs: Callable[[str], Iterable[Signs]]) -> int:
    """Write a new file; ``signs(name)`` gives a tensor's entries in blocks of `BLOCK`, and is asked twice.

    Returns its size in bytes. Whole models pass through, a block at a time.

    Raises:
        OSError: the disk refused.
    """
    parts: dict[str, Array] = {}
    for name, tensor in tensors.items():
        lengths = [encode(block).size for block in signs(name)]
        parts[f"{name}:starts"] = np.cumsum([0, *lengths], dtype=np.int64)
        parts[f"{name}:scale"] = np.array([tensor.scale], dtype=np.float32)
        parts[f"{name}:about"] = np.array([tensor.base, *tensor.shape], dtype=np.int64)
    planned = [Planned(name, _PARTS[name.rpartition(":")[2]], part.shape) for name, part in parts.items()]
    planned += [Planned(f"{name}:signs", "U8", (int(parts[f"{name}:starts"][-1]),)) for name in tensors]

    def pieces(plan: Planned) -> Iterator[Array]:
        name, _, part = plan.name.rpartition(":")
        if part == "signs":
            yield from map(encode, signs(name))
        else:
            yield parts[plan.name]

    write_file(path, aligned(planned), pieces)
    return path.stat().st_size


class TernaryFile:
    """A file of this format, its tables checked and its codes not yet read.

    Raises:
        PoolError: the file is missing, damaged, or of another format; names the file, the tensor and the cure.
    """

    def __init__(self, path: Path) -> None:
        self.file = Checkpoint(path)
        names = {name.rpartition(":")[0] for name in self.file.entries}
        self.tensors = {name: self._read(name) for name in sorted(names)}

    def signs(self, name: str, start: int, stop: int) -> Signs:
        """Entries ``start:stop`` of a flattened tensor: -1, 0 and 1.

        Raises:
            PoolError: the code is damaged.
        """
        out = np.empty(stop - start, dtype=np.int8)
        starts, size = self.file.stored(f"{name}:starts"), self.tensors[name].size
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first, last = block * BLOCK, min((block + 1) * BLOCK, size)
            decoded = self._decode(name, self.file.stored(f"{name}:signs", *starts[block : block + 2]), last - first)
            low, high = max(first, start), min(last, stop)
            out[low - start : high - start] = decoded[low - first : high - first]
        return out

    def _decode(self, name: str, code: Bytes, size: int) -> Signs:
        from evomerge.merge.kernels import golomb

        signs = np.zeros(size, dtype=np.int8)
        if code[0] > golomb.MOST or not golomb.decode(code[1:], int(code[0]), signs):
            self._fail(name, "its code is broken")
        return signs

    def _read(self, name: str) -> Ternary:
        for part, dtype in _PARTS.items():
            entry = self.file.entries.get(f"{name}:{part}")
            if entry is None or entry.dtype != dtype or len(entry.shape) != 1:
                self._fail(name, f"it has no :{part} of {dtype}")
        about, scale = self.file.stored(f"{name}:about"), self.file.stored(f"{name}:scale")
        if len(about) < 1 or (about[1:] < 0).any() or len(scale) != 1 or not 0.0 <= scale[0] < math.inf:
            self._fail(name, "its shape or scale is impossible")
        tensor = Ternary(tuple(map(int, about[1:])), float(scale[0]), int(about[0]))
        starts, size = self.file.stored(f"{name}:starts"), self.file.entries[f"{name}:signs"].size
        count = -(-tensor.size // BLOCK)
        if len(starts) != count + 1 or [starts[0], starts[-1]] != [0, size] or (np.diff(starts) < 2).any():
            self._fail(name, "its blocks do not fit its shape")
        return tensor

    def _fail(self, name: str, problem: str) -> NoReturn:
        raise PoolError(f"{self.file.path} is no {SUFFIX} file: {name!r}: {problem}; write it again")


def blocks(size: int) -> Iterator[tuple[int, int]]:
    """The blocks of a tensor of so many entries."""
    return chunks(size, BLOCK)


def _rice(share: float) -> int:
    """The exponent with which codes of places are shortest where so large a share is taken (Golomb 1966)."""
    from evomerge.merge.kernels.golomb import MOST

    if share in (0.0, 1.0):
        return MOST if share == 0.0 else 0
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    return min(MOST, max(0, 1 + math.floor(math.log2(math.log(golden) / math.log1p(-share)))))
