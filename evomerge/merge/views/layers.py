"""A model of other layers: ranges of another's, one after the other, each as often as it is listed (passthrough)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evomerge.errors import PoolError
from evomerge.merge.layout import layer_of
from evomerge.merge.source import Source, View
from evomerge.merge.tensorfile import Array, Entry, Floats

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What configs call the number of layers."""

_BY_INDEX = (
    "attn_layer_offset",
    "attn_layer_period",
    "decoder_sparse_step",
    "expert_layer_offset",
    "expert_layer_period",
    "first_k_dense_replace",
    "full_attention_interval",
    "max_window_layers",
    "mlp_only_layers",
    "moe_layer_freq",
    "num_kv_shared_layers",
    "sliding_window_pattern",
)
"""Settings that make a layer's kind follow from its number."""

_RANGE = re.compile(r"([0-9]{1,9}):([0-9]{1,9})", re.ASCII)


class Stacked(View):
    """Output layer ``i`` is the ``i``-th of the listed layers; what belongs to no layer stays as it is.

    ``ranges`` are texts like ``0:8``, half-open. A tensor's layer is the first whole number in its name. In the config
    the number of layers, and lists with an item per layer, follow.

    Raises:
        PoolError: a range is none or beyond the model, or the layers are numbered in several places.
    """

    def __init__(self, origin: Source, ranges: Sequence[str]) -> None:
        super().__init__(f"layers {','.join(ranges)}", [origin])
        self._prefix, depth = _stack(origin)
        self._depth = depth
        self.listed = tuple(_listed(origin, ranges, depth))
        self._names = dict(self._renamed(origin.entries))
        self.entries = {name: replace(origin.entries[old], name=name) for name, old in self._names.items()}
        self.notes = (*self.notes, *self._by_index())

    def stored(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """The origin's."""
        return self.origins[0].stored(self._names[name], start, stop)

    def floats(self, name: str, start: int = 0, stop: int | None = None) -> Floats:
        """The origin's."""
        return self.origins[0].floats(self._names[name], start, stop)

    def describe(self) -> str:
        """The origin, and how many layers there are now."""
        return f"{len(self.listed)} layers of a {self.origins[0].describe()}"

    def export_dtype(self, name: str) -> str:
        """The origin's."""
        return self.origins[0].export_dtype(self._names[name])

    def _fingerprint(self, name: str) -> str:
        return self.origins[0].fingerprint(self._names[name])

    def config(self) -> dict[str, Any]:
        """The origin's, with as many layers."""
        config = copy.deepcopy(self.origins[0].config())
        for table in _tables(config):
            for key, value in table.items():
                if key in _COUNTS and value == self._depth:
                    table[key] = len(self.listed)
                elif "layer" in key and isinstance(value, list) and len(value) == self._depth:
                    table[key] = [value[layer] for layer in self.listed]
        return config

    def _renamed(self, entries: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
        """New name and the origin's name, the layers in their new order."""
        by_layer: dict[int, list[str]] = {}
        for name in entries:
            layer = layer_of(name)
            if layer is None or not name.startswith(f"{self._prefix}{layer}."):
                yield name, name
            else:
                by_layer.setdefault(layer, []).append(name)
        for at, layer in enumerate(self.listed):
            for name in by_layer.get(layer, ()):
                yield f"{self._prefix}{at}.{name.removeprefix(f'{self._prefix}{layer}.')}", name

    def _by_index(self) -> Iterator[str]:
        tables = list(_tables(self.origins[0].config()))
        if any(isinstance(table.get("layer_types"), list) for table in tables):
            return
        for key in _BY_INDEX:
            if any(table.get(key) for table in tables):
                yield f"config.json has {key}, by which a layer's kind follows its number; see that the stack fits it"


def depth_of(source: Source) -> int:
    """How many layers a model has.

    Raises:
        PoolError: the layers are numbered in several places.
    """
    return _stack(source)[1]


def _stack(source: Source) -> tuple[str, int]:
    """What stands before the layers' numbers, such as ``model.layers.``, and how many there are."""
    depths: dict[str, int] = {}
    for name in source.entries:
        layer = layer_of(name)
        if layer is not None:
            parts = name.split(".")
            at = next(at for at, part in enumerate(parts) if part.isdecimal())
            prefix = ".".join([*parts[:at], ""])
            depths[prefix] = max(depths.get(prefix, 0), layer + 1)
    said = {table[key] for table in _tables(source.config()) for key in _COUNTS if isinstance(table.get(key), int)}
    fitting = {prefix: depth for prefix, depth in depths.items() if not said or depth in said}
    if len(fitting) != 1:
        found = ", ".join(f"{prefix}* has {depth}" for prefix, depth in sorted(depths.items())) or "none is numbered"
        of = f"of the {' or '.join(map(str, sorted(said)))} that config.json says" if said else "in one place"
        raise PoolError(
            f"{source.path}: its layers cannot be told {of} ({found}); take the model out of pool.layers and stack it "
            "with the program that made it"
        )
    return next(iter(fitting.items()))


def _tables(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config, and the one of its text model where that is apart."""
    yield config
    if isinstance(config.get("text_config"), dict):
        yield config["text_config"]


def _listed(origin: Source, ranges: Sequence[str], depth: int) -> Iterator[int]:
    if not ranges:
        raise PoolError(f"pool.layers gives {origin.path} no layers; give ranges such as '0:{depth}'")
    for text in ranges:
        match = _RANGE.fullmatch(text)
        start, stop = (int(match[1]), int(match[2])) if match else (0, 0)
        if not start < stop <= depth:
            raise PoolError(
                f"pool.layers: {text!r} is no range of the {depth} layers of {origin.path}; give ranges such as "
                f"'0:{depth}', the first layer and the one after the last"
            )
        yield from range(start, stop)
