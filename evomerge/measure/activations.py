"""How large the inputs of a model's layers are, channel by channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import MeasureError
from evomerge.measure.batches import Batches, at_rest, batches
from evomerge.merge.naming import checkpoint_names

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def activations(model: Module, examples: Batches) -> dict[str, NDArray[np.float32]]:
    """Mean ``|input|`` of every channel of every layer that multiplies its inputs, by the names of the layers' weights.

    Layers are linear ones and norms. The means are over all examples and positions but padding (``attention_mask``
    0), and divided by nothing else. Weights that are embeddings, too (tied), are left out, as are layers that the
    examples never reach.

    Returns:
        Float32 (channels,), to be seen beside a weight's last axis; (channels, 1) for layers that keep their weight the
        other way round (transformers' ``Conv1D``).

    Raises:
        MeasureError: no examples, no such layer, or inputs that are not finite.
    """
    import torch

    watch = _Watch(model)
    count = 0
    with at_rest(model), torch.no_grad(), watch.hooks():
        for batch in batches(examples, model):
            watch.mask = batch.mask
            batch.output(model)
            count += len(batch)
    if not count:
        raise MeasureError("there are no examples to measure activations with; give at least one batch")
    found: dict[str, NDArray[np.float32]] = {}
    for tensor, names in checkpoint_names(model):
        means = watch.means(tensor)
        if means is None:
            continue
        if not np.isfinite(means).all():
            raise MeasureError(f"inputs of {names[0]!r} are not finite; check the model and the examples")
        found.update(dict.fromkeys(names, means))
    return found


class _Watch:
    """Sums of what goes into layers, per weight."""

    def __init__(self, model: Module) -> None:
        self.mask: Tensor | None = None
        self._layers = list(_layers(model))
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}
        self._turned = {id(layer.weight) for layer in self._layers if _is_turned(layer)}

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Watch while the model runs."""
        handles = [layer.register_forward_pre_hook(self._see, with_kwargs=True) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def means(self, weight: Tensor) -> NDArray[np.float32] | None:
        """Of the inputs that met this weight; ``None`` if there were none."""
        count = self._counts.get(id(weight), 0)
        if not count:
            return None
        means: NDArray[np.float32] = (self._sums[id(weight)] / count).float().cpu().numpy()
        return means[:, None] if id(weight) in self._turned else means

    def _see(self, layer: Any, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        import torch

        inputs = (args or tuple(words.values()))[0].abs()
        rows = inputs.reshape(-1, inputs.shape[-1])
        if self.mask is not None and self.mask.numel() == len(rows):
            rows = rows[self.mask.flatten().bool()]
        key = id(layer.weight)
        self._sums[key] = self._sums.get(key, 0.0) + rows.sum(0, dtype=torch.float64)
        self._counts[key] = self._counts.get(key, 0) + len(rows)


def _layers(model: Module) -> Iterator[Any]:
    """Modules whose weight multiplies each channel of their input, and is no embedding."""
    from torch import nn

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and id(weight) not in embeddings:
            norm = type(module).__name__.endswith(("LayerNorm", "RMSNorm")) and weight.ndim == 1
            if isinstance(module, nn.Linear) or norm or _is_turned(module):
                yield module


def _is_turned(module: Module) -> bool:
    """Whether a linear layer's weight is (in, out)."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"
