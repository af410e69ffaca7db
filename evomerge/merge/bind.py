"""Ties a live torch module to a pool, so that candidates can be written into its parameters in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evomerge.errors import PoolError
from evomerge.merge.naming import checkpoint_names
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import Source
from evomerge.merge.tensorfile import STORED, Array, Floats

_FLAT_ON_DEVICE = 1 << 28
"""Bytes up to which an accelerator's model is moved into one flat buffer (on a CPU untouched pages cost nothing)."""


@dataclass(frozen=True, eq=False)
class Target:
    """Where a pool's merged tensors lie in a module.

    ``tensors`` are flat torch views by tensor name (tied weights once); ``arrays`` are the same memory as `STORED`
    holds it, with its safetensors dtype, of those that a processor can write to. An all-float32 module has its
    parameters as views into one buffer in the order of the pool's flat vector: ``put`` then writes all at once.
    """

    tensors: Mapping[str, Any]
    arrays: Mapping[str, tuple[Array, str]]
    flat: Any = None
    host: Floats | None = None

    def put(self, values: Floats) -> None:
        """Write a whole flat float32 vector. Only with a flat buffer."""
        if self.host is not None:
            np.copyto(self.host, values)
        if self.flat is not None and self.flat.device.type != "cpu":
            self.flat.copy_(_tensor(values.copy()))


def bind(model: Any, pool: ModelPool) -> Target:
    """Map the module's parameters and buffers to the pool's tensors by name.

    Tensors that are not merged are copied from the reference now; merged ones are undefined until the first write.

    Raises:
        PoolError: the module has a tensor that the pool lacks, or the other way round, or of another shape.
    """
    found = match(model, pool)
    reference = pool.checkpoints[pool.reference]
    for name in pool.copied:
        if name in found:
            found[name].data.copy_(_stored(reference, name).view(found[name].shape))
    merged = {slot.name: found[slot.name] for slot in pool.layout.slots if slot.name in found}
    for name, tensor in merged.items():
        if not tensor.is_floating_point():
            raise PoolError(
                f"tensor {name!r} is {tensor.dtype} in the model but floating in the pool; add it to pool.exclude"
            )
    if _flattens(merged, pool):
        return _flatten(merged, pool)
    for tensor in merged.values():
        tensor.data = tensor.data.contiguous()
    return _target({name: tensor.data.view(-1) for name, tensor in merged.items()})


def match(model: Any, pool: ModelPool) -> dict[str, Any]:
    """The module's tensor for each pool tensor; of several names for one tensor only the first that the pool has.

    Raises:
        PoolError: as `bind`.
    """
    entries = pool.checkpoints[pool.reference].entries
    found: dict[str, Any] = {}
    known: set[str] = set()
    for tensor, names in checkpoint_names(model):
        known.update(names)
        name = next((name for name in names if name in entries), None)
        if name is None:
            raise PoolError(
                f"the model has a tensor {names[0]!r} that the pool's checkpoints lack; build the model from their "
                "config.json, and if transformers fuses tensors of this architecture, save the pool's models with "
                "save_pretrained(folder, save_original_format=False)"
            )
        if tuple(tensor.shape) != entries[name].shape:
            raise PoolError(
                f"tensor {name!r} has shape {list(tensor.shape)} in the model but {list(entries[name].shape)} in "
                "the pool; the model must be built from the pool's config.json"
            )
        found[name] = tensor
    for slot in pool.layout.slots:
        if slot.name not in known:
            raise PoolError(
                f"the pool's tensor {slot.name!r} has no place in the model; use the class named in config.json, or "
                "add the tensor to pool.exclude if the model does not need it"
            )
    return found


def _flattens(merged: Mapping[str, Any], pool: ModelPool) -> bool:
    import torch

    devices = {tensor.device for tensor in merged.values()}
    fits = next(iter(devices)).type == "cpu" or 4 * pool.size <= _FLAT_ON_DEVICE
    return fits and len(devices) == 1 and all(tensor.dtype == torch.float32 for tensor in merged.values())


def _flatten(merged: Mapping[str, Any], pool: ModelPool) -> Target:
    """Give every merged parameter its stretch of one buffer."""
    import torch

    device = next(iter(merged.values())).device
    flat = torch.empty(pool.size, dtype=torch.float32, device=device)
    tensors = {}
    for slot in pool.layout.slots:
        if slot.name in merged:
            start = pool.layout.starts[slot.group] + slot.offset
            tensors[slot.name] = flat[start : start + slot.size]
            merged[slot.name].data = tensors[slot.name].view(slot.shape)
    return _target(tensors, flat)


def _target(tensors: Mapping[str, Any], flat: Any = None) -> Target:
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    host = flat.numpy() if flat is not None and flat.device.type == "cpu" else None
    return Target(tensors, {name: array for name, array in arrays.items() if array is not None}, flat, host)


def _array(tensor: Any) -> tuple[Array, str] | None:
    """A flat tensor's memory, if it is the processor's and its dtype one that can be written."""
    import torch

    if tensor.device.type != "cpu":
        return None
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(STORED["BF16"]), "BF16"
    dtype = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16"}.get(tensor.dtype)
    return None if dtype is None else (tensor.numpy(), dtype)


def _stored(checkpoint: Source, name: str) -> Any:
    """One tensor of a checkpoint as a torch tensor of its stored dtype."""
    import torch

    tensor = _tensor(checkpoint.stored(name).copy())
    return tensor.view(torch.bfloat16) if checkpoint.entries[name].dtype == "BF16" else tensor


def _tensor(values: Any) -> Any:
    """A torch tensor over an array that nobody else holds."""
    import torch

    return torch.from_numpy(values)
