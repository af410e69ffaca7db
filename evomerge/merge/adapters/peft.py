"""Adapters as the PEFT library's files: what their tensors and settings are called, so that PEFT loads them again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.merge.adapters.factors import Factors
from evomerge.merge.layout import natural
from evomerge.merge.pool import ModelPool
from evomerge.merge.tensorfile import Array
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter, Form

_PREFIX = "base_model.model."
_ROLE = re.compile(r"\.lora_(embedding_)?[AB](\..*)?$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where PEFT keeps a tensor's factors: the module's name in the live model, and how the module stores it."""

    module: str
    form: Form

    def tensors(self, factors: Factors, shape: tuple[int, ...]) -> dict[str, Array]:
        """The factors by the names and in the shapes of PEFT's file; ``shape`` is the base's tensor."""
        b, a = factors.B, factors.A
        if self.form == "linear":
            ones = (1,) * len(shape[2:])  # a convolution's B is one of size 1
            a, b = a.reshape(factors.rank, *shape[1:]), b.reshape(*b.shape, *ones)
        else:
            a, b = b.T, a.T
        name = f"{_PREFIX}{self.module}"
        if self.form == "embedding":
            return {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}
        return {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}


def adapters(pool: ModelPool) -> list[Adapter]:
    """Those of the pool that are over its base."""
    base = None if pool.base is None else pool.checkpoints[pool.base]
    views = [view for view in pool.checkpoints.values() if isinstance(view, Adapted) and view.base is base]
    return [view.adapter for view in views]


def places(pool: ModelPool) -> dict[str, Place]:
    """Where the adapters' own files have each tensor, by its name in the base; the first adapter decides."""
    known: dict[str, Place] = {}
    for adapter in adapters(pool):
        for name, stored in adapter.modules.items():
            module = _ROLE.sub("", stored.first.removeprefix(_PREFIX))
            known.setdefault(name, Place(module, stored.form))
    return known


def settings(ranks: Mapping[str, int], places: Mapping[str, Place], pool: ModelPool) -> dict[str, Any]:
    """``adapter_config.json`` of an adapter with a scale of 1 everywhere; ``ranks`` are by name of the base's tensor.

    ``r`` is the largest rank, ``rank_pattern`` has the others. Alphas equal ranks, so that PEFT's ``alpha / r`` is 1:
    the sources' own alphas, patterns and rank stabilisation are within the factors already.
    """
    largest = max(ranks.values())
    pattern = {f"^{re.escape(places[name].module)}": rank for name, rank in ranks.items() if rank != largest}
    others = [name.removesuffix(".weight") for name in pool.checkpoints[pool.reference].entries if name not in ranks]
    raw = [adapter.config.raw for adapter in adapters(pool)]
    return {
        "peft_type": "LORA",
        "task_type": _common(one.get("task_type") for one in raw),
        "base_model_name_or_path": _common(one.get("base_model_name_or_path") for one in raw),
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": targets([places[name].module for name in ranks], others),
        "fan_in_fan_out": any(places[name].form == "transposed" for name in ranks),
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def targets(wanted: Iterable[str], others: Iterable[str]) -> list[str] | str:
    """What PEFT must be told so that it adapts these modules and no other: the shortest endings that do.

    A module whose whole name ends another's can only be told apart by a regular expression, which is then returned.
    """
    names = sorted(wanted, key=natural)
    taken = {ending for other in others for ending in _endings(other)}
    found: set[str] = set()
    for name in names:
        ending = next((ending for ending in _endings(name) if ending not in taken), None)
        if ending is None:
            return "|".join(re.escape(one) for one in names)
        found.add(ending)
    return sorted(found, key=natural)


def _endings(name: str) -> list[str]:
    """The last part of a dotted name, the last two, ... and the whole."""
    parts = name.split(".")
    return [".".join(parts[at:]) for at in reversed(range(len(parts)))]


def _common(values: Iterable[Any]) -> Any:
    """What all agree on, else ``None``."""
    first, *others = [*values] or [None]
    return first if all(other == first for other in others) else None
