"""The studies of the comparison: every method over one pool, with one fitness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from texts import BASE

SPLITS = {"search": "0:30", "selection": "30:130", "report": "130:530"}
FITNESS = {
    "name": "callable",
    "function": "fitness.py:loss",
    "objectives": {"loss": "minimize"},
    "per_item": True,
}


def pool(folder: Path) -> dict[str, Any]:
    """Every adapter in the folder, over the base."""
    members = sorted(one.parent.name for one in folder.glob("*/adapter_config.json"))
    return {"base": str(BASE), "members": {name: str(folder / name) for name in members}}


def _tuned(operator: str, largest: float) -> dict[str, Any]:
    """Density and lambda, the same for every adapter, by random draws."""
    space = {"kind": "operator", "operator": operator, "fixed": {"weight": 1.0}, "search": {"lambda": [0.01, largest]}}
    space |= {"whole": ["density", "lambda"], "shared": ["density"]}
    return {"name": "random", "space": space, "score_members": False}


def _evo(preset: str, mode: str, **evaluations: int) -> dict[str, Any]:
    """The search with so many evaluations in each stage."""
    space = {"kind": "operator", "operator": "factor_fusion", "options": {"mode": mode}, "whole": ["alpha", "beta"]}
    stages = {stage: {"evaluations": count} for stage, count in evaluations.items()}
    return {"name": "evo_merging", "preset": preset, "space": space, **stages}


METHODS: dict[str, tuple[dict[str, Any], int]] = {
    "best adapter alone": ({"name": "random"}, 0),
    "TIES, tuned": (_tuned("ties", 2.0), 20),
    "DARE, tuned": (_tuned("dare_linear", 0.3), 20),
    "LoraHub preset": (_evo("lorahub", "ab_separate"), 48),
    "LoraHub preset, more evaluations": (_evo("lorahub", "ab_separate", scale=400), 400),
    "Evo-Merging, faithful": (_evo("faithful", "ab_separate", denoise=200, scale=200), 400),
    "Evo-Merging": (_evo("improved", "concat", denoise=200, scale=200), 400),
    "Evo-Merging, signed roots": (_evo("improved", "sqrt_sign", denoise=200, scale=200), 400),
    "Evo-Merging, second stage alone": (_evo("improved", "concat", denoise=0, scale=400), 400),
}
"""Name: strategy, and evaluations beside those of the members themselves."""


def study(method: str, seed: int, members: int, where: dict[str, Any]) -> dict[str, Any]:
    """A study file. ``where`` are its pool and its fitness: adapters here, or a server that has them."""
    strategy, evaluations = METHODS[method]
    scored = evaluations == 0 or strategy.get("preset") == "improved"
    return {
        "study": "evo-merging",
        "seed": seed,
        **where,
        "splits": SPLITS,
        "strategy": strategy,
        "window": 20,
        "budget": {"evaluations": evaluations + (members if scored else 0)},
    }
