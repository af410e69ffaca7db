"""mergekit's merge methods as operators: which one, with which options, and what becomes of their parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from evomerge.config.yamlfile import Problems
from evomerge.errors import nearest
from evomerge.recipes.mergekit.config import Config, Slice
from evomerge.recipes.mergekit.quantity import Computed, Constant, Given, Quantity, Unset, given

Parameters = Mapping[str, Quantity | Mapping[str, Quantity]]
"""Of each parameter its value, or one for each model."""

Options = Mapping[str, str | float | bool]

SLERP_STRAIGHT = math.sqrt(1.0 - 0.9995**2)
"""mergekit's slerp is linear where the cosine is above 0.9995: the sine of that angle."""


@dataclass(frozen=True)
class Merge:
    """A slice in our words; models are named by their references."""

    operator: str
    sources: tuple[str, ...]
    base: str | None = None
    options: Options = field(default_factory=dict)
    parameters: Parameters = field(default_factory=dict)


class Asking:
    """What a method asks of a slice, and what it leaves unasked."""

    def __init__(self, config: Config, part: Slice, problems: Problems) -> None:
        self.method = config.method
        self.part = part
        self.problems = problems
        self._asked: set[str] = set()

    def one(self, name: str, default: float | None = None) -> Given:
        """A parameter of the whole slice."""
        self._asked.add(name)
        return given(name, self.part.parameters, default, None, self.problems)

    def each(self, name: str, default: float | None = None, *, base: bool = False) -> dict[str, Quantity]:
        """A parameter of each model, with or without the base."""
        self._asked.add(name)
        inputs = self.part.inputs if base else self.part.others
        return {one.model: given(name, one.parameters, default, one.model, self.problems) for one in inputs}

    def constant(self, name: str, default: float) -> float:
        """A setting of the method, which is the same for all tensors."""
        said = self.one(name, float(default)).notation()
        if isinstance(said, float):
            return said
        self.problems.add(
            self.part.line,
            f"{name} varies from tensor to tensor, but it is an option of the operator, one for all; give one value",
        )
        return default

    def flag(self, name: str, *, default: bool) -> bool:
        """A switch of the method."""
        return bool(self.constant(name, float(default)))

    def base(self) -> str:
        """The base, which there must be."""
        if self.part.base is None:
            self.problems.add(self.part.line, f"{self.method} needs a base_model; name the models' common ancestor")
        return self.part.base or ""

    def sources(self, least: int = 1, most: int | None = None, *, base: bool = False) -> tuple[str, ...]:
        """The models that are merged, with or without the base."""
        found = tuple(one.model for one in (self.part.inputs if base else self.part.others))
        if len(found) < least or (most is not None and len(found) > most):
            wanted = f"{least}" if least == most else f"at least {least}"
            beside = "" if base or self.part.base is None else " besides the base"
            self.problems.add(self.part.line, f"{self.method} takes {wanted} models{beside}, and here are {len(found)}")
        return found

    @property
    def unasked(self) -> dict[str, int]:
        """Parameters that the method does not read, with their lines."""
        levels = [*self.part.parameters, *(level for one in self.part.inputs for level in one.parameters)]
        return {name: level.lines[name] for level in levels for name in level.content if name not in self._asked}


def linear(ask: Asking) -> Merge:
    """A base that is not listed counts as a model, as it does in mergekit."""
    options = {"normalize": ask.flag("normalize", default=True)}
    return Merge("linear", ask.sources(base=True), None, options, {"weight": ask.each("weight", base=True)})


def slerp(ask: Asking) -> Merge:
    """``t`` counts from the base."""
    options: Options = {"angle": "per_tensor", "straight": SLERP_STRAIGHT}
    return Merge("slerp", (ask.base(), *ask.sources(1, 1)), None, options, {"t": ask.one("t")})


def nuslerp(ask: Asking) -> Merge:
    """Two weights become the second one's share."""
    first, second = (*ask.sources(2, 2), "", "")[:2]
    weights = ask.each("weight")
    flat, columns = ask.flag("nuslerp_flatten", default=True), ask.flag("nuslerp_row_wise", default=False)
    share = Computed(_share, tuple(weights.values())[:2])
    based, lines = ("task_" if ask.part.base else ""), ("" if flat else "_axis")
    options: Options = {} if flat else {"axis": "first" if columns else "last"}
    return Merge(f"{based}nuslerp{lines}", (first, second), ask.part.base, options, {"t": share})


def _share(first: float, second: float) -> float:
    total = first + second
    return 0.5 if abs(total) < 1e-6 else second / total


def multislerp(ask: Asking) -> Merge:
    """What it amounts to: the normalised mean."""
    options = {"normalize": ask.flag("normalize_weights", default=True)}
    operator = "task_nlerp" if ask.part.base else "nlerp"
    return Merge(operator, ask.sources(), ask.part.base, options, {"weight": ask.each("weight")})


def karcher(ask: Asking) -> Merge:
    """All models alike, a base among them."""
    options = {"rounds": int(ask.constant("max_iter", 10)), "tolerance": ask.constant("tol", 1e-5)}
    return Merge("karcher", ask.sources(base=True), None, options)


def task_arithmetic(ask: Asking) -> Merge:
    """``lambda w_i``, divided by the sum of the weights if they are normalised."""
    base, sources = ask.base(), ask.sources()
    weights, scale = ask.each("weight"), ask.one("lambda", 1.0)
    found: dict[str, Quantity] = {}
    for at, (model, weight) in enumerate(weights.items()):
        if ask.flag("normalize", default=False):
            found[model] = Computed(_normalized(at), (scale, *weights.values()))
        else:
            found[model] = Computed(lambda factor, own: factor * own, (scale, weight), affine=True)
    return Merge("task_arithmetic", sources, base, {}, {"lambda": found})


def _normalized(at: int) -> Callable[..., float]:
    def share(scale: float, *weights: float) -> float:
        return scale * weights[at] / (math.fsum(weights) or 1.0)

    return share


def model_stock(ask: Asking) -> Merge:
    """One angle per tensor, or per row."""
    operator = "model_stock_rows" if ask.flag("filter_wise", default=False) else "model_stock"
    return Merge(operator, ask.sources(2), ask.base())


def nearswap(ask: Asking) -> Merge:
    """Moves the base towards the other."""
    return Merge("nearswap", ask.sources(1, 1), ask.base(), {}, {"t": ask.one("t")})


def passthrough(ask: Asking) -> Merge:
    """One model, scaled."""
    (source, *_) = (*ask.sources(1, 1, base=True), "")
    return Merge("passthrough", (source,), None, {}, {"scale": ask.each("scale", 1.0, base=True)[source]})


def sce(ask: Asking) -> Merge:
    """The share of entries by variance."""
    return Merge("sce", ask.sources(), ask.base(), {}, {"density": ask.one("select_topk", 1.0)})


def ram(ask: Asking) -> Merge:
    """What counts as changed."""
    return Merge("ram", ask.sources(), ask.base(), {}, {"epsilon": ask.one("epsilon", 1e-5)})


def ramplus_tl(ask: Asking) -> Merge:
    """The same, and how much what is alone is enlarged."""
    parameters = {"epsilon": ask.one("epsilon", 1e-5), "r": ask.one("r", 0.1), "alpha": ask.one("alpha", 0.2)}
    return Merge("ram_plus", ask.sources(), ask.base(), {}, parameters)


def arcee_fusion(ask: Asking) -> Merge:
    """It has no parameters."""
    return Merge("arcee_fusion", ask.sources(1, 1), ask.base())


@dataclass(frozen=True)
class Delta:
    """A method of deltas: sparsified, weighted, and with signs elected or without."""

    operator: str
    elects: bool
    normalize: bool = False
    rescale: bool = False
    options: Options = field(default_factory=dict)

    def __call__(self, ask: Asking) -> Merge:
        """Where signs are elected, ``normalize`` is the mean of those that agree; else it divides by all weights."""
        base, sources = ask.base(), ask.sources()
        weights, densities = ask.each("weight"), ask.each("density", 1.0)
        scale: Quantity = ask.one("lambda", 1.0)
        normalize = ask.flag("normalize", default=self.normalize)
        options = {**self.options, "rescale": "l1" if ask.flag("rescale", default=self.rescale) else "none"}
        if self.elects:
            options["aggregate"] = "mean" if normalize else "sum"
        elif normalize:
            scale = Computed(
                lambda factor, *all_weights: factor / (math.fsum(all_weights) or 1.0), (scale, *weights.values())
            )
        silent = {model for model, density in densities.items() if density.notation() == 0.0}
        parameters: dict[str, Quantity | Mapping[str, Quantity]] = {
            # what keeps nothing has no say
            "weight": {model: Constant(0.0) if model in silent else weight for model, weight in weights.items()},
            "density": {model: Constant(1.0) if model in silent else density for model, density in densities.items()},
            **self._further(ask, densities),
            "lambda": scale,
        }
        return Merge(self.operator, sources, base, options, parameters)

    def _further(self, ask: Asking, densities: Mapping[str, Quantity]) -> Parameters:
        if self.operator.startswith("breadcrumbs"):
            return {"gamma": ask.each("gamma", 0.01)}
        if self.operator.startswith("della"):
            epsilons = ask.each("epsilon", 0.15)
            return {"spread": {model: Computed(_spread, (epsilons[model], densities[model])) for model in densities}}
        return {}


def _spread(epsilon: float, density: float) -> float:
    """DELLA's epsilon as a share of what it may be."""
    room = min(density, 1.0 - density)
    if density >= 1.0:
        return 0.0
    if not epsilon < room:
        raise Unset(f"epsilon {epsilon:g} leaves no probabilities between 0 and 1 at density {density:g}; give less")
    return epsilon / room


METHODS: Mapping[str, Callable[[Asking], Merge]] = {
    "arcee_fusion": arcee_fusion,
    "breadcrumbs": Delta("breadcrumbs", elects=False),
    "breadcrumbs_ties": Delta("breadcrumbs_ties", elects=True),
    "dare_linear": Delta("dare_linear", elects=False, rescale=True),
    "dare_ties": Delta("dare_ties", elects=True, rescale=True),
    "della": Delta("della", elects=True, normalize=True, rescale=True),
    "della_linear": Delta("della_linear", elects=False, rescale=True),
    "karcher": karcher,
    "linear": linear,
    "model_stock": model_stock,
    "multislerp": multislerp,
    "nearswap": nearswap,
    "nuslerp": nuslerp,
    "passthrough": passthrough,
    "ram": ram,
    "ramplus_tl": ramplus_tl,
    "sce": sce,
    "slerp": slerp,
    "task_arithmetic": task_arithmetic,
    "ties": Delta("ties", elects=True, normalize=True, options={"scope": "tensor", "zero": "plus"}),
}

HARMLESS = {
    "density": "the method sparsifies nothing",
    "rescale": "the method sparsifies nothing, so there is nothing to make up for",
    "int8_mask": "saves memory in mergekit and changes no result",
    "eps": "guards a division in mergekit, which is not needed",
}
"""Parameters that are left out without loss, and why."""


def translated(config: Config, part: Slice, problems: Problems, notes: list[str]) -> Merge | None:
    """A slice in our words, or ``None`` with its problems added."""
    method = METHODS.get(config.method)
    if method is None:
        hint = nearest(config.method, METHODS)
        problems.add(
            config.line, f"the merge method {config.method!r} cannot be imported; {hint}it may be {', '.join(METHODS)}"
        )
        return None
    ask = Asking(config, part, problems)
    found = method(ask)
    for name, line in ask.unasked.items():
        why = HARMLESS.get(name, f"{config.method} has no such parameter in mergekit, which ignores it")
        notes.append(f"line {line}: {name} is left out: {why}")
    return found
