"""A plain multi-layer perceptron as a checkpoint folder, and its fastest exact forward pass on fixed inputs.

``config.json`` is like ``{"model_type": "evomerge_mlp", "layer_sizes": [64, 256, 10], "activation": "relu"}``;
``model.safetensors`` has ``layers.K.weight`` (inputs x outputs, so that a layer is ``x @ weight + bias`` and the flat
parameter vector runs input by input) and ``layers.K.bias``, all float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from evomerge.errors import PoolError

MODEL_TYPE = "evomerge_mlp"
_ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh_}


@dataclass(frozen=True)
class MLPConfig:
    """The architecture: sizes from input to output, and the activation between layers (``relu`` or ``tanh``)."""

    layer_sizes: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        sizes = self.layer_sizes
        if len(sizes) < 2 or not all(type(size) is int and size > 0 for size in sizes):
            raise PoolError(f"layer_sizes is {list(sizes)}; give at least two positive whole numbers, input first")
        if self.activation not in _ACTIVATIONS:
            raise PoolError(f"activation is {self.activation!r}; known are {', '.join(_ACTIVATIONS)}")


class Affine(nn.Module):
    """``x @ weight + bias``, weight inputs x outputs."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for rows ``x``."""
        return torch.addmm(self.bias, x, self.weight)

    def stacked(self) -> Tensor:
        """Weight with the bias as its last row, without a copy where the two lie one behind the other in memory."""
        weight, bias = self.weight, self.bias
        inputs, outputs = weight.shape
        behind = bias.storage_offset() == weight.storage_offset() + weight.numel()
        shared = weight.untyped_storage().data_ptr() == bias.untyped_storage().data_ptr()
        if behind and shared and weight.is_contiguous() and bias.is_contiguous():
            return weight.as_strided((inputs + 1, outputs), (outputs, 1))
        return torch.cat([weight, bias[None]])


class MLP(nn.Module):
    """The perceptron with uninitialised weights: views of one vector, layer by layer, weight before bias."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        self.activation = _ACTIVATIONS[config.activation]
        shapes = list(pairwise(config.layer_sizes))
        stacks = torch.empty(sum((n + 1) * m for n, m in shapes)).split_with_sizes([(n + 1) * m for n, m in shapes])
        views = (stack.view(n + 1, m) for stack, (n, m) in zip(stacks, shapes, strict=True))
        self.layers = nn.ModuleList(Affine(view[:-1], view[-1]) for view in views)
        self.eval()

    def affines(self) -> list[Affine]:
        """The layers, input first."""
        return list(self.layers)  # type: ignore[arg-type]  # a ModuleList does not know what it holds

    def forward(self, x: Tensor) -> Tensor:
        """Logits, one row for each row of ``x``."""
        *hidden, last = self.affines()
        for layer in hidden:
            x = self.activation(layer(x))
        return last.forward(x)


class Logits:
    """Logits of MLPs of one architecture on fixed rows ``x``, several times faster than calling the module.

    The same numbers as the module's, up to float32 rounding. Buffers are allocated once; the first bias comes out of
    the matrix product (a column of ones beside ``x``); the logits are laid out class by class, which makes everything
    done to them afterwards run along the items. Rows go in blocks of ``batch`` (0: about half a megabyte
    of activations, which leaves room in a core's cache for everybody else's data).
    """

    def __init__(self, config: MLPConfig, x: Tensor, batch: int = 0) -> None:
        self.config = config
        sizes = config.layer_sizes
        rows = len(x)
        step = min(rows, batch or max(64, (1 << 19) // (4 * max(sizes))))
        self._logits = torch.empty(sizes[-1], rows)
        buffers = [torch.empty(step, size) for size in sizes[1:-1]]
        padded = torch.cat([x, torch.ones(rows, 1)], 1)
        self._blocks = [
            (padded[i : i + step], [b[: min(step, rows - i)] for b in buffers], self._logits[:, i : i + step])
            for i in range(0, rows, step)
        ]

    def __call__(self, model: MLP) -> Tensor:
        """Logits, classes x rows, float32; overwritten by the next call."""
        *hidden, last = model.affines()
        stacked = hidden[0].stacked() if hidden else None
        weight, bias = last.weight.t().contiguous(), last.bias[:, None]  # a contiguous copy halves the last product
        for x, buffers, logits in self._blocks:
            rows = x[:, :-1]
            for layer, buffer in zip(hidden, buffers, strict=True):
                if stacked is not None and layer is hidden[0]:
                    torch.mm(x, stacked, out=buffer)
                else:
                    torch.addmm(layer.bias, rows, layer.weight, out=buffer)
                rows = model.activation(buffer)
            torch.mm(weight, rows.t(), out=logits).add_(bias)
        return self._logits


def read_config(folder: Path) -> MLPConfig:
    """The architecture that the folder's ``config.json`` describes.

    Raises:
        PoolError: no such file, no JSON, another model type, or impossible sizes.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise PoolError(f"{folder} has no config.json; a checkpoint folder needs one") from None
    except ValueError as error:
        raise PoolError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("model_type") != MODEL_TYPE:
        raise PoolError(f"{path} does not say model_type {MODEL_TYPE!r}, so it is no MLP checkpoint")
    sizes = content.get("layer_sizes")
    if not isinstance(sizes, list):
        raise PoolError(f"{path} has no list layer_sizes; write for example [64, 256, 10]")
    try:
        return MLPConfig(tuple(sizes), content.get("activation", "relu"))
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from None


def load_mlp(folder: Path) -> MLP:
    """The MLP of a checkpoint folder with its weights.

    Raises:
        PoolError: missing or damaged files, or tensors that are not exactly those the config describes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    model = MLP(read_config(folder))
    path = folder / "model.safetensors"
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PoolError(f"cannot read {path}: {error}") from error
    wanted = dict(model.named_parameters())
    for what, names in (("lacks", wanted.keys() - found.keys()), ("should not have", found.keys() - wanted.keys())):
        if names:
            raise PoolError(f"{path} {what} {', '.join(sorted(names))}")
    for name, parameter in wanted.items():
        tensor = found[name]
        if tensor.shape != parameter.shape or tensor.dtype != torch.float32:
            have = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise PoolError(f"{path}: {name} is {have}; its config.json wants {tuple(parameter.shape)} torch.float32")
        parameter.copy_(tensor)
    return model


def save_mlp(folder: Path, tensors: Mapping[str, Tensor], layer_sizes: Sequence[int], activation: str = "relu") -> None:
    """Write a checkpoint folder; ``tensors`` are named as in the module's docstring."""
    from safetensors.torch import save_file

    config = MLPConfig(tuple(layer_sizes), activation)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": MODEL_TYPE, **asdict(config)}, indent=2) + "\n")
