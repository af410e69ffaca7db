"""A checkpoint: one safetensors file, or a Hugging Face folder of one or several (with an index)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from evomerge.errors import PoolError
from evomerge.merge import fingerprints
from evomerge.merge.folders import cache_folder
from evomerge.merge.source import Source, read_json
from evomerge.merge.tensorfile import Array, TensorFile, looks_pickled, pickle_refusal

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class Checkpoint(Source):
    """The tensors of one model, mapped and not yet read.

    ``folder`` is where its config and tokenizer files are (of a single file: the file's own folder).

    Raises:
        PoolError: missing, damaged, a pickle, or an adapter; names the file and the cure.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path if path.is_dir() else path.parent
        if path.is_dir():
            self.files, self._home = _open_folder(path)
        elif path.is_file():
            self.files = (_open_file(path),)
            self._home = dict.fromkeys(self.files[0].entries, self.files[0])
        else:
            raise PoolError(f"there is no checkpoint at {path}; give a folder with {SINGLE}, or a .safetensors file")
        self.entries = {name: file.entries[name] for name, file in self._home.items()}
        if not self.entries:
            raise PoolError(f"{path} holds no tensors; download or convert the checkpoint again")

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Elements ``start:stop`` of a flattened tensor, as a read-only view of the mapped file."""
        return self._home[name].raw(name)[start:stop]

    def file_of(self, name: str) -> Path:
        """The shard that holds a tensor."""
        return self._home[name].path

    def identity(self) -> str:
        """A cheap key that changes whenever the files do: headers, inodes, sizes and times. Reads no tensor."""
        total = hashlib.blake2b(digest_size=16)
        for file in self.files:
            stat = file.path.stat()
            total.update(repr((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)).encode())
            total.update(file.header)
        return total.hexdigest()

    @cached_property
    def _seen(self) -> tuple[str, dict[str, str]]:
        """The identity before anything was hashed, and what was kept under it."""
        identity = self.identity()
        return identity, fingerprints.load(cache_folder() / "fingerprints", identity)

    def _fingerprint(self, name: str) -> str:
        return self._seen[1].get(name) or super()._fingerprint(name)

    def _keep(self, hashes: Mapping[str, str]) -> None:
        identity, kept = self._seen
        if kept != hashes:
            stats = [file.path.stat() for file in self.files]
            changed = max(max(stat.st_mtime, stat.st_ctime) for stat in stats)
            fingerprints.save(cache_folder() / "fingerprints", identity, hashes, changed)


def _open_file(path: Path) -> TensorFile:
    with path.open("rb") as file:
        pickled = looks_pickled(file.read(9))
    if pickled or path.suffix in _PICKLES:
        raise PoolError(pickle_refusal(path))
    return TensorFile(path)


def _open_folder(folder: Path) -> tuple[tuple[TensorFile, ...], dict[str, TensorFile]]:
    """The folder's files, and which of them holds each tensor."""
    if (folder / SINGLE).is_file():
        file = TensorFile(folder / SINGLE)
        return (file,), dict.fromkeys(file.entries, file)
    if (folder / INDEX).is_file():
        return _open_shards(folder)
    present = sorted(path.name for path in folder.iterdir())
    if any(name.startswith("adapter_model") for name in present):
        raise PoolError(f"{folder} holds an adapter; name what it was trained on as pool.base, or write BASE+ADAPTER")
    for name in present:
        if name.endswith(_PICKLES):
            raise PoolError(pickle_refusal(folder / name))
    others = [name for name in present if name.endswith(".safetensors")]
    hint = f"name one of its files instead: {', '.join(others)}" if others else "is this the right folder?"
    raise PoolError(f"{folder} has neither {SINGLE} nor {INDEX}; {hint}")


def _open_shards(folder: Path) -> tuple[tuple[TensorFile, ...], dict[str, TensorFile]]:
    index = folder / INDEX
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise PoolError(f"{index} has no weight_map of tensor names to file names; download the checkpoint again")
    names = sorted(set(where.values()))
    for name in names:
        if Path(name).name != name:
            raise PoolError(f"{index} names a file outside its folder: {name!r}; download the checkpoint again")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise PoolError(f"{index} names files that are missing: {', '.join(absent)}; download them into {folder}")
    files = {name: TensorFile(folder / name) for name in names}
    for tensor, name in where.items():
        if tensor not in files[name].entries:
            raise PoolError(f"{index} says that {name} holds tensor {tensor!r}, but it does not; download both again")
    for name, file in files.items():
        for tensor in file.entries:
            if where.get(tensor) != name:
                raise PoolError(f"{folder / name} holds tensor {tensor!r}, which {INDEX} does not place there")
    return tuple(files.values()), {tensor: files[name] for tensor, name in where.items()}
