"""Where a model's tensors come from: files on disk, or a view that computes them from other sources on the way."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.errors import PoolError
from evomerge.merge.tensorfile import Array, Entry, Floats, TensorFile, chunks, to_float32

CHUNK = 1 << 15
"""Elements per streamed chunk: its few buffers stay in a core's cache, which is four times as fast as a megabyte."""


_HASHED = 1 << 20
"""Elements that are hashed at a time: many, because other threads may run only meanwhile."""


class Source(ABC):
    """The named tensors of one model, read piece by piece and never all at once.

    ``path`` is what errors name; ``folder`` is where its config and tokenizer files are; ``files`` are all that its
    tensors come from. A source is read by several threads at once.
    """

    path: Path
    folder: Path
    entries: Mapping[str, Entry]
    files: tuple[TensorFile, ...]
    notes: tuple[str, ...] = ()
    """What is worth knowing about it, for people."""

    @abstractmethod
    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Elements ``start:stop`` of a flattened tensor in its own dtype (as `STORED` holds it). Read only.

        Files give a view of the mapped memory; what is computed gives a new array, the same values however it is cut.
        """

    @abstractmethod
    def identity(self) -> str:
        """A cheap key that changes whenever the tensors may have changed. Reads no tensor."""

    def export_dtype(self, name: str) -> str:
        """The safetensors dtype in which a tensor is written back, where nothing else is asked for."""
        return self.entries[name].dtype

    def floats(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """Elements ``start:stop`` of a flattened floating tensor, as a new float32 array."""
        return to_float32(self.stored(name, start, stop), self.entries[name].dtype)

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is that numbers the rows of its embeddings."""
        return self.folder

    def config(self) -> dict[str, Any]:
        """The model's ``config.json``, empty where there is none.

        Raises:
            PoolError: it is no JSON object.
        """
        path = self.folder / "config.json"
        return read_json(path) if path.is_file() else {}

    def describe(self) -> str:
        """What it is, in a few words."""
        return "checkpoint"

    def file_of(self, name: str) -> Path:
        """The file that a tensor comes from, for errors."""
        return self.path

    def overlay(self) -> Mapping[str, bytes | None]:
        """Files that are not as in ``folder``, by name: their content, or ``None``: there is none.

        A changed config need not be among them: `config` says it.
        """
        return {}

    def first_not_finite(self, name: str) -> tuple[int, float] | None:
        """Flat index and value of the first NaN or infinity of a floating tensor, read chunk by chunk."""
        for start, stop in chunks(self.entries[name].size, CHUNK):
            stored = self.stored(name, start, stop)
            values = stored if stored.dtype.kind == "f" else to_float32(stored, self.entries[name].dtype)
            finite = np.isfinite(values)
            if not finite.all():
                at = int(np.argmin(finite))
                return start + at, float(values[at])
        return None

    def digest(self) -> str:
        """BLAKE2b over names and fingerprints in name order: equal whatever the sharding. Reads everything once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        hashes = {name: self.fingerprint(name) for name in sorted(self.entries)}
        self._keep(hashes)
        return hashlib.blake2b(json.dumps(hashes).encode(), digest_size=16).hexdigest()

    def _keep(self, hashes: Mapping[str, str]) -> None:  # noqa: B027 - most sources are computed anew each time
        """Keep fingerprints for later runs."""

    @property
    def leaves(self) -> tuple[Source, ...]:
        """The sources whose content it is: itself, unless it is computed from others."""
        return (self,)

    @cached_property
    def _fingerprints(self) -> Any:
        return cache(self._fingerprint)

    def fingerprint(self, name: str) -> str:
        """A fast content hash (128 bits of XXH3) of one tensor: for digests, and the key of what is kept on disk."""
        return str(self._fingerprints(name))

    def _fingerprint(self, name: str) -> str:
        import xxhash

        entry = self.entries[name]
        total = xxhash.xxh3_128(json.dumps([entry.dtype, entry.shape]).encode())
        for start, stop in chunks(entry.size, _HASHED):
            total.update(np.ascontiguousarray(self.stored(name, start, stop)).data)
        return total.hexdigest()


class View(Source):
    """A source that is computed from others, its ``origins``. ``key`` says how: all that it depends on beside them.

    It lies where its first origin does, and is told apart by what it is computed from, without computing it.
    """

    def __init__(self, key: str, origins: Sequence[Source]) -> None:
        self.key = key
        self.origins = tuple(origins)
        self.path = origins[0].path
        self.folder = origins[0].folder
        self.files = tuple(dict.fromkeys(file for origin in origins for file in origin.files))
        self.notes = tuple(note for origin in origins for note in origin.notes)

    def describe(self) -> str:
        """As the first origin."""
        return self.origins[0].describe()

    @property
    def tokenizer_folder(self) -> Path:
        """The first origin's."""
        return self.origins[0].tokenizer_folder

    def config(self) -> dict[str, Any]:
        """The first origin's."""
        return self.origins[0].config()

    def overlay(self) -> Mapping[str, bytes | None]:
        """The first origin's."""
        return self.origins[0].overlay()

    @property
    def leaves(self) -> tuple[Source, ...]:
        """The origins'."""
        return tuple(leaf for origin in self.origins for leaf in origin.leaves)

    def identity(self) -> str:
        """Of the key and the origins."""
        return self._named(origin.identity() for origin in self.origins)

    @cached_property
    def _digest(self) -> str:
        return self._named(origin.digest() for origin in self.origins)

    def _named(self, parts: Iterable[str]) -> str:
        return hashlib.blake2b(json.dumps([self.key, *parts]).encode(), digest_size=16).hexdigest()


def computed(entry: Entry, shape: tuple[int, ...] | None = None) -> Entry:
    """The entry of what is computed from a tensor: float32, in no file."""
    shape = entry.shape if shape is None else shape
    return Entry(entry.name, "F32", shape, 0, 4 * math.prod(shape))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        PoolError: unreadable, or something else than an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PoolError(f"cannot read {path}: {error}; download the checkpoint again") from error
    if not isinstance(value, dict):
        raise PoolError(f"{path} holds no JSON object; download the checkpoint again")
    return value
