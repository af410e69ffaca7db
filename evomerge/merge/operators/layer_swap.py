"""Layers of one model between layers of another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from evomerge.errors import RecipeError
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import LinearOperator, Parameter, Stretch, Values

Side = Literal["bottom", "top", "language", "task"]
_EMBEDDINGS = ("embed", "wte", "wpe")
"""What the names of embeddings contain, in the checkpoints of common architectures."""
_COUNT = (0.0, math.inf)


@dataclass(frozen=True)
class LayerSwap(LinearOperator):
    """The lowest ``b`` and highest ``u`` layers of a language expert, else a task expert (Bandarkar et al. 2025).

    The sources are the language expert and the task expert. Above the lowest block and below the highest block (where
    there is one) lie ``t`` layers of ``mix`` language + ``(1 - mix)`` task. Tensors without a layer number go with the
    ``bottom`` layer, with the ``top`` layer, or with one of the experts: ``embeddings`` (told by their name), and
    ``head``, which is all else: final norm and output. Values: ``b``, ``u``, ``t``, ``mix``.
    """

    embeddings: Side = "bottom"
    head: Side = "top"

    parameters: ClassVar = (
        Parameter("b", 0, 16, 5, kind="integer", limits=_COUNT),
        Parameter("u", 0, 8, 2, kind="integer", limits=_COUNT),
        Parameter("t", 0, 2, 1, kind="integer", limits=_COUNT),
        Parameter("mix", 0.0, 1.0, 0.5),
    )
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def per_tensor(self) -> bool:
        """Every tensor lies in its own layer."""
        return True

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """The language expert's share and the task expert's; outside the transitions exactly one of them."""
        share = self._share(values, stretch)
        return (share, 1.0 - share)

    def _share(self, values: Values, stretch: Stretch) -> float:
        b, u, t = (int(values.one(name)) for name in ("b", "u", "t"))
        layers = stretch.layers
        if b + u + (t if b else 0) + (t if u else 0) > layers:
            raise RecipeError(
                f"layer_swap with b = {b}, u = {u}, t = {t} needs more than the model's {layers} layers; choose smaller"
            )
        layer = self._layer(stretch)
        if isinstance(layer, str):
            return 1.0 if layer == "language" else 0.0
        if layer < b or layer >= layers - u:
            return 1.0
        return values.one("mix") if b <= layer < b + t * bool(b) or layer >= layers - u - t * bool(u) else 0.0

    def _layer(self, stretch: Stretch) -> int | Side:
        """The tensor's layer, or whose it is outright."""
        if stretch.layer is not None:
            return stretch.layer
        name = (stretch.tensor or "").lower()
        side = self.embeddings if any(part in name for part in _EMBEDDINGS) else self.head
        if side == "bottom":
            return 0
        return max(stretch.layers - 1, 0) if side == "top" else side
