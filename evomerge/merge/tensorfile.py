"""One safetensors file, memory-mapped and read with numpy alone.

The header is checked before any tensor is touched, so that a damaged file is an error with a name in it and never a
wrong number: bounded size, known dtypes, shapes that agree with byte ranges, ranges that tile the file exactly.
Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON header, raw little-endian tensors).
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import PoolError

Array = NDArray[Any]
Floats = NDArray[np.float32]

MAX_HEADER = 100_000_000
"""Largest header in bytes, the limit of the format's own library."""

STORED: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: its bits, the upper half of a float32's
    "F8_E4M3": np.dtype("<u1"),  # nor eight bits of floating point
    "F8_E5M2": np.dtype("<u1"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("<i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("<u1"),
    "BOOL": np.dtype("?"),
}
"""How numpy holds each safetensors dtype."""

FLOATING = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})

NATIVE = {dtype: name for name, dtype in STORED.items() if name not in ("BF16", "F8_E4M3", "F8_E5M2")}
"""The safetensors dtype of an array that numpy itself understands."""

_AGAIN = "download or convert the checkpoint again"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: safetensors dtype, shape, and the absolute byte range ``start:stop``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether it can be merged."""
        return self.dtype in FLOATING


class TensorFile:
    """A safetensors file, its header read and checked, its data mapped and not yet read.

    Raises:
        PoolError: the file is missing, no safetensors, or damaged; names the file, the tensor and the cure.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                length = self._header_size(file.read(9), size)
                file.seek(8)
                header = file.read(length)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise PoolError(
                f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
            ) from error
        self.header = header
        self.entries = self._parse(header, size)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(entry.stop - entry.start for entry in self.entries.values())

    def raw(self, name: str) -> Array:
        """The tensor as a flat read-only view of the mapped file, in the dtype of `STORED`."""
        entry = self.entries[name]
        return np.frombuffer(self._map, dtype=STORED[entry.dtype], count=entry.size, offset=entry.start)

    def _fail(self, problem: str, cure: str = _AGAIN) -> NoReturn:
        raise PoolError(f"{self.path} is not a valid safetensors file: {problem}; {cure}")

    def _header_size(self, head: bytes, size: int) -> int:
        if looks_pickled(head):
            raise PoolError(pickle_refusal(self.path))
        if len(head) < 8:
            self._fail(f"it has only {size} bytes")
        length = int.from_bytes(head[:8], "little")
        if length > MAX_HEADER:
            self._fail(f"its header claims {length} bytes, more than the format allows ({MAX_HEADER})")
        if length > size - 8:
            self._fail(f"its header claims {length} bytes, but the file ends after {size} (truncated)")
        return length

    def _parse(self, header: bytes, size: int) -> dict[str, Entry]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            seen: dict[str, Any] = {}
            for name, value in pairs:
                if name in seen:
                    self._fail(f"the name {name!r} occurs twice in its header")
                seen[name] = value
            return seen

        try:
            table = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            self._fail(f"its header is no JSON ({error})")
        if not isinstance(table, dict):
            self._fail("its header is no JSON object")
        table.pop("__metadata__", None)
        origin = 8 + len(header)
        entries = {name: self._entry(name, value, origin) for name, value in table.items()}
        self._check_ranges(entries, origin, size)
        return entries

    def _entry(self, name: str, value: Any, origin: int) -> Entry:
        if not name.isprintable():
            self._fail(f"the tensor name {name!r} holds characters that cannot be printed")
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            self._fail(f"tensor {name!r} must have exactly dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in STORED:
            self._fail(
                f"tensor {name!r} has the unsupported dtype {dtype!r:.40}", f"convert it to one of {', '.join(STORED)}"
            )
        if not _counts(shape):
            self._fail(f"tensor {name!r} has the impossible shape {shape!r:.80}")
        if not _counts(offsets) or len(offsets) != 2:
            self._fail(f"tensor {name!r} has the impossible data_offsets {offsets!r:.80}")
        entry = Entry(name, dtype, tuple(shape), origin + offsets[0], origin + offsets[1])
        if entry.size * STORED[dtype].itemsize != entry.stop - entry.start:
            self._fail(f"tensor {name!r} of {dtype} {list(shape)!r:.80} cannot fill {offsets[1] - offsets[0]} bytes")
        return entry

    def _check_ranges(self, entries: dict[str, Entry], origin: int, size: int) -> None:
        """Tensors tile the data exactly: what overlaps, leaves a hole or runs past the end is damage."""
        reached = origin
        for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
            if entry.start < reached:
                self._fail(f"tensor {entry.name!r} overlaps the one before it")
            if entry.start > reached:
                self._fail(f"{entry.start - reached} bytes before tensor {entry.name!r} belong to no tensor")
            if entry.stop > size:
                self._fail(f"tensor {entry.name!r} ends at byte {entry.stop}, but the file has {size} (truncated)")
            reached = entry.stop
        if reached != size:
            self._fail(f"{size - reached} bytes at its end belong to no tensor")


def _counts(value: Any) -> bool:
    """Whether the value is a list of non-negative 64-bit integers (``true`` is none)."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def looks_pickled(head: bytes) -> bool:
    """Whether nine first bytes are those of a torch checkpoint: a zip archive or a pickle stream.

    A safetensors header of 640 bytes begins like a pickle, too, but then a brace follows.
    """
    if head[8:9] == b"{":
        return False
    return head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def pickle_refusal(path: Path) -> str:
    """Why a pickle checkpoint is not opened, and how to convert it."""
    return (
        f"{path} is a pickle checkpoint, which can run any code when it is loaded; convert it once with weights-only "
        "loading: safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')"
    )


def to_float32(stored: Array, dtype: str) -> Floats:
    """A new float32 array of the stored values; exact for all but F64, whose largest values become infinite."""
    if dtype == "BF16":
        bits = stored.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return _eight_bits(dtype).take(stored)
    with np.errstate(over="ignore"):
        return stored.astype(np.float32)


@cache
def _eight_bits(dtype: str) -> Floats:
    """The values of all 256 bytes (arXiv:2209.05433): E5M2 is the upper half of a float16, E4M3 has no infinities."""
    codes = np.arange(256)
    if dtype == "F8_E5M2":
        return (codes << 8).astype("<u2").view("<f2").astype(np.float32)
    exponent, fraction = codes >> 3 & 15, codes & 7
    values = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10))
    values[codes & 127 == 127] = np.nan
    return np.where(codes < 128, values, -values).astype(np.float32)


def from_float32(values: Floats, dtype: str) -> Array:
    """The values rounded to nearest even in a floating safetensors dtype, as numpy holds it.

    Values too large for the dtype become infinite. NaN is not expected.

    Raises:
        ValueError: a dtype that is only read.
    """
    if STORED[dtype].kind != "f" and dtype != "BF16":
        raise ValueError(f"{dtype} is never written")
    if dtype == "BF16":
        bits = values.view(np.uint32)
        return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(STORED["BF16"])
    with np.errstate(over="ignore"):
        return values.astype(STORED[dtype])


def chunks(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of at most ``step`` that cover ``0:size`` in order."""
    for start in range(0, size, step):
        yield start, min(start + step, size)
