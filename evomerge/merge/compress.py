"""Storing pool members as task vectors of three values (ComPEFT), 8 to 50 times smaller."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evomerge.errors import ExportError, PoolError
from evomerge.merge.operators.compeft import deviation
from evomerge.merge.operators.statistics import model_magnitudes
from evomerge.merge.pieces import MergedModel, Sources
from evomerge.merge.pool import ModelPool
from evomerge.merge.poolcache import PoolCache
from evomerge.merge.stream import Member
from evomerge.merge.ternary import SAMPLE, SUFFIX, Signs, Ternary, base_hash, blocks, write_ternary


@dataclass(frozen=True)
class Compressed:
    """What was written: bytes of the file and of the tensors in it as the member has them, and the share kept.

    ``share`` is more than was asked for where many entries are equally large.
    """

    path: Path
    bytes: int
    original: int
    share: float

    @property
    def factor(self) -> float:
        """How many times smaller the file is."""
        return self.original / self.bytes


def compress(pool: ModelPool, member: str, path: Path, keep: float = 0.2, alpha: float = 1.0) -> Compressed:
    """Write a member as ``alpha std(tau) sgn(tau)`` where ``|tau|`` is among the share ``keep`` of its largest.

    ``tau`` is its difference from the pool's base over all merged tensors (Yadav et al. 2023). A pool takes the file as
    a member over the same base; it is then what the operator `ComPEFT` makes of the member, to the bit. The file is
    whole or not there.

    Raises:
        PoolError: the pool has no base or no such member, or the two do not fit together.
        ExportError: an impossible ``keep`` or ``alpha``, the file is there already, or the disk refused.
    """
    if not 0.0 <= keep <= 1.0 or not alpha > 0.0:
        raise ExportError(f"keep = {keep} and alpha = {alpha} are impossible: keep is a share in [0, 1], alpha > 0")
    if path.suffix != SUFFIX:
        raise ExportError(f"{path} must end in {SUFFIX}, by which a pool knows what it is")
    if path.exists():
        raise ExportError(f"{path} exists; choose another name or remove it")
    vector = _Vector(_model(pool, member), keep, alpha)
    if not vector.scale < float(np.finfo(np.float32).max):
        pool.check_finite()
        raise ExportError(f"alpha = {alpha} times the deviation of {member} is {vector.scale}; choose a smaller alpha")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        written = write_ternary(partial, vector.tensors(), vector.signs)
        partial.replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from error
    finally:
        partial.unlink(missing_ok=True)
    entries = [pool.checkpoints[member].entries[slot.name] for slot in pool.layout.slots]
    return Compressed(path, written, sum(entry.stop - entry.start for entry in entries), vector.share)


class _Vector:
    """A task vector, and what of it is kept."""

    def __init__(self, model: MergedModel, keep: float, alpha: float) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.tensors()}
        magnitudes = model_magnitudes(model, 1)
        self._threshold = magnitudes.threshold(keep)
        self.share = magnitudes.share(self._threshold)
        self.scale = alpha * deviation(model, 1)

    def tensors(self) -> dict[str, Ternary]:
        """What the file says of each tensor."""
        return {
            name: Ternary(tensor.shape, self.scale, base_hash(tensor.read(0, 0, min(tensor.size, SAMPLE))))
            for name, tensor in self._tensors.items()
        }

    def signs(self, name: str) -> Iterator[Signs]:
        """A tensor's signs, block by block."""
        tensor = self._tensors[name]
        for start, stop in blocks(tensor.size):
            delta = tensor.read(1, start, stop) - tensor.read(0, start, stop)
            yield (np.sign(delta) * (np.abs(delta) >= self._threshold)).astype(np.int8)


def _model(pool: ModelPool, member: str) -> MergedModel:
    if pool.base is None:
        raise PoolError("a task vector needs a base; name the model that the members were trained from as pool.base")
    if member not in pool.sources:
        raise PoolError(f"the pool has no member {member!r}; it has {', '.join(pool.sources)}")
    pool.check()
    streams = (Member(pool, pool.base), Member(pool, member))
    return MergedModel(Sources(pool, (f"pool:{pool.base}", f"pool:{member}"), streams, PoolCache(None)))
