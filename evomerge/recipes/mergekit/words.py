"""Recipes in the words of mergekit's methods: the way back from `evomerge.recipes.mergekit.methods`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from evomerge.merge.operators.port import Operator
from evomerge.recipes.mergekit.methods import SLERP_STRAIGHT, Options

Values = Mapping[str, float]
"""Of each tensor."""
Each = Mapping[str, Values]
"""Of each model."""


@dataclass(frozen=True)
class Said:
    """A merge in mergekit's words. Models are named as in the pool.

    Attributes:
        method: the merge method.
        models: what is merged, without the base.
        base: the base, where the method has one.
        each: parameters with a value for each model.
        all: parameters with one value for all models.
        flags: settings of the method.
    """

    method: str
    models: tuple[str, ...]
    base: str | None = None
    each: Mapping[str, Each] = field(default_factory=dict)
    all: Mapping[str, Values] = field(default_factory=dict)
    flags: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """A recipe of one operator over pool members, tensor by tensor.

    Attributes:
        operator: its name.
        kind: the operator itself.
        sources: all sources, the base first where the operator has one.
        options: the operator's.
        values: of each parameter, model by model, or of ``""`` where all have one.
    """

    operator: str
    kind: Operator
    sources: tuple[str, ...]
    options: Options
    values: Mapping[str, Each]

    @property
    def experts(self) -> tuple[str, ...]:
        """The sources, without the base."""
        return self.sources[1:] if self.kind.based else self.sources

    @property
    def base(self) -> str | None:
        """The base, where there is one."""
        return self.sources[0] if self.kind.based else None

    def one(self, name: str) -> Values:
        """A parameter of all models together."""
        return self.values[name][""]


class Unsayable(Exception):
    """mergekit has no words for a recipe; the text says why."""


Words = Callable[[Told], Said]
"""The method that is exactly the recipe. Raises `Unsayable` where there is none."""


def linear(told: Told) -> Said:
    """Weights, divided by their sum or not."""
    weights, flags = told.values["weight"], {"normalize": told.options["normalize"]}
    return Said("linear", told.experts, None, {"weight": weights}, {}, flags)


def task_arithmetic(told: Told) -> Said:
    """The lambdas are mergekit's weights."""
    return Said("task_arithmetic", told.experts, told.base, {"weight": told.values["lambda"]})


def slerp(told: Told) -> Said:
    """With an angle for each tensor, and a line where mergekit has one."""
    if told.options["angle"] != "per_tensor" or not math.isclose(float(told.options["straight"]), SLERP_STRAIGHT):
        raise Unsayable(
            f"mergekit's slerp has an angle for each tensor, and a line below the sine {SLERP_STRAIGHT:.4f}"
        )
    return Said("slerp", told.experts[1:], told.experts[0], {}, {"t": told.one("t")})


def nuslerp(told: Told) -> Said:
    """``t`` as two weights that sum to one."""
    first, second = told.experts
    t = told.one("t")
    weights = {first: {name: 1.0 - value for name, value in t.items()}, second: t}
    axis = told.options.get("axis")
    flags: Options = {} if axis is None else {"nuslerp_flatten": False, "nuslerp_row_wise": axis == "first"}
    return Said("nuslerp", told.experts, told.base, {"weight": weights}, {}, flags)


def multislerp(told: Told) -> Said:
    """The normalised mean."""
    flags = {"normalize_weights": told.options["normalize"]}
    return Said("multislerp", told.experts, told.base, {"weight": told.values["weight"]}, {}, flags)


def karcher(told: Told) -> Said:
    """Of models that count alike."""
    weights = list(told.values["weight"].values())
    if any(one != weights[0] for one in weights):
        raise Unsayable("mergekit's karcher weighs all models alike")
    flags = {"max_iter": told.options["rounds"], "tol": told.options["tolerance"]}
    return Said("karcher", told.experts, None, {}, {}, flags)


def nearswap(told: Told) -> Said:
    """As it is."""
    return Said("nearswap", told.experts, told.base, {}, {"t": told.one("t")})


def passthrough(told: Told) -> Said:
    """As it is."""
    return Said("passthrough", told.experts, None, {"scale": {told.experts[0]: told.one("scale")}})


def sce(told: Told) -> Said:
    """Without lambda."""
    _must_be(told, "lambda", 1.0)
    return Said("sce", told.experts, told.base, {}, {"select_topk": told.one("density")})


def ram(told: Told) -> Said:
    """As it is."""
    method = "ramplus_tl" if told.operator == "ram_plus" else "ram"
    return Said(method, told.experts, told.base, {}, {name: told.one(name) for name in told.values})


def arcee_fusion(told: Told) -> Said:
    """With its own fence."""
    _must_be(told, "fence", 1.5)
    return Said("arcee_fusion", told.experts, told.base)


def _must_be(told: Told, name: str, value: float) -> None:
    if set(told.one(name).values()) != {value}:
        raise Unsayable(f"mergekit's {told.operator} has no {name}, which is {value:g} there")


def delta(told: Told) -> Said:
    """A method of deltas, of the operator's name."""
    _refuse_other_deltas(told)
    flags: dict[str, str | float | bool] = {"rescale": told.options["rescale"] == "l1"}
    if "aggregate" in told.options:
        flags["normalize"] = told.options["aggregate"] == "mean"
    each = {name: of for name, of in told.values.items() if name != "lambda"}
    if "spread" in each:
        each["epsilon"] = _epsilons(each.pop("spread"), each["density"])
    return Said(told.operator, told.experts, told.base, each, {"lambda": told.one("lambda")}, flags)


def _refuse_other_deltas(told: Told) -> None:
    theirs = {"scope": "tensor", "zero": "plus", "elect": "sum"}
    for name, value in told.options.items():
        if value != theirs.get(name, value) or (name, value) in (("rescale", "exact"), ("aggregate", "max")):
            raise Unsayable(f"mergekit's {told.operator} has nothing like {name} = {value}")
    negative = any(weight < 0.0 for of in told.values["weight"].values() for weight in of.values())
    if told.options.get("aggregate") == "mean" and negative:
        raise Unsayable("mergekit divides by signed sums of weights, which is another mean where weights are negative")


def _epsilons(spreads: Each, densities: Each) -> Each:
    return {
        model: {name: spread * min(densities[model][name], 1.0 - densities[model][name]) for name, spread in of.items()}
        for model, of in spreads.items()
    }


WORDS: Mapping[str, Words] = {
    **dict.fromkeys(
        ("breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear", "ties"), delta
    ),
    "arcee_fusion": arcee_fusion,
    "karcher": karcher,
    "linear": linear,
    "nearswap": nearswap,
    "nlerp": multislerp,
    "nuslerp": nuslerp,
    "nuslerp_axis": nuslerp,
    "passthrough": passthrough,
    "ram": ram,
    "ram_plus": ram,
    "sce": sce,
    "slerp": slerp,
    "task_arithmetic": task_arithmetic,
    "task_nlerp": multislerp,
    "task_nuslerp": nuslerp,
    "task_nuslerp_axis": nuslerp,
}
