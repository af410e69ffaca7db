"""From a recipe file and the pool that it names to a `Recipe` with its ancestry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from evomerge.candidate import ANCESTOR, MEMBER, Recipe, Segment
from evomerge.config.yamlfile import Problems
from evomerge.errors import RecipeError
from evomerge.merge.layout import layer_of
from evomerge.merge.operators.port import Operator
from evomerge.merge.pool import ModelPool
from evomerge.recipes.file import RecipeFile
from evomerge.recipes.parameters import Gap, Place, filler
from evomerge.recipes.spec import Spec


@dataclass(frozen=True)
class Resolved:
    """What a recipe file means for a pool.

    Attributes:
        recipe: what is built.
        ancestors: its whole ancestry, oldest first.
        names: what the file calls each of them, by digest.
        warnings: what is worth knowing before it is built.
    """

    recipe: Recipe
    ancestors: tuple[Recipe, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def parts(self) -> list[tuple[str, Recipe]]:
        """Every recipe with its name, in the order in which they are built."""
        return [*((self.names.get(one.digest, one.digest[:8]), one) for one in self.ancestors), ("merge", self.recipe)]


def resolve(file: RecipeFile, pool: ModelPool) -> Resolved:
    """The recipe and its ancestry.

    Raises:
        ConfigError: something in the file does not fit the pool; all of it is listed, with lines.
    """
    problems = Problems(file.name)
    built: dict[str, Recipe] = {}
    warnings: list[str] = []
    for name, spec in (*file.recipes.items(), ("merge", file.merge)):
        built[name] = _recipe(spec, pool, built, problems)
        warnings += [one for setting in spec.settings.values() for one in setting.idle(pool.layout)]
    recipe = built.pop("merge")
    known = {one.digest: one for one in built.values()}
    used = _ancestry(recipe, known)
    warnings += [f"recipes.{name} is not used" for name, one in built.items() if one.digest not in used]
    names = {one.digest: name for name, one in built.items() if one.digest in used}
    return Resolved(recipe, tuple(known[digest] for digest in names), names, tuple(warnings))


def _ancestry(recipe: Recipe, known: Mapping[str, Recipe]) -> set[str]:
    found: set[str] = set()
    open_ends = [*recipe.ancestors]
    while open_ends:
        digest = open_ends.pop()
        if digest not in found:
            found.add(digest)
            open_ends += known[digest].ancestors
    return found


def _recipe(spec: Spec, pool: ModelPool, built: Mapping[str, Recipe], problems: Problems) -> Recipe:
    kind = spec.kind
    names = _sources(spec, kind, pool, built, problems)
    for setting in spec.settings.values():
        setting.check(pool.layout, problems)
    problems.raise_any()
    try:
        kind.check_sources(len(names))
    except RecipeError as error:
        problems.add(spec.line_of("sources"), f"{spec.path}.sources: {error}")
        problems.raise_any()
    sources = tuple(f"{ANCESTOR}{built[name].digest}" if name in built else f"{MEMBER}{name}" for name in names)
    try:
        segments = tuple(_segments(spec, kind, pool, names))
    except Gap as gap:
        problems.add(gap.line, gap.text)
        problems.raise_any()
    return Recipe(spec.operator, sources, segments, spec.options)


def _sources(
    spec: Spec, kind: Operator, pool: ModelPool, built: Mapping[str, Recipe], problems: Problems
) -> tuple[str, ...]:
    """Names of all sources, the base first where the operator has one."""
    base = spec.base or pool.base
    named = spec.sources or tuple(name for name in pool.members if not (kind.based and name == base))
    if kind.based and base is None:
        text = f"{spec.path}: {spec.operator} merges differences from a base; give the base's folder as pool.base"
        problems.add(spec.line_of("operator"), text)
    if kind.based and base in named:
        problems.add(spec.line_of("sources"), f"{spec.path}.sources: {base!r} is the base already; leave it out")
    names = (base, *named) if kind.based and base is not None else named
    for name in names:
        if name not in pool.sources and name not in built:  # "base", where the base is one of the members
            text = f"{spec.path}: the base is the member {pool.base!r}; write that name instead of {name!r}"
            problems.add(spec.line_of("sources"), text)
    return names


def _segments(spec: Spec, kind: Operator, pool: ModelPool, names: Sequence[str]) -> Iterator[Segment]:
    """Stretches of tensors with equal values, group by group.

    Raises:
        Gap: a tensor has no value, or an impossible one.
    """
    fill = filler(kind.parameters, spec.settings, names)
    layers = tuple(range(pool.layout.layers))
    for group in pool.groups:
        start, values = 0, None
        for slot in pool.slots[group.name]:
            here = fill(Place(slot.name, group.name, layer_of(slot.name), layers))
            if values is not None and here != values:
                yield Segment(group.name, start, slot.offset, values)
                start = slot.offset
            if here != values:
                _check(spec, kind, here, names, slot.name)
            values = here
        if values is not None:
            yield Segment(group.name, start, group.size, values)


def _check(spec: Spec, kind: Operator, values: Sequence[float], names: Sequence[str], tensor: str) -> None:
    try:
        kind.values(values, len(names))
    except RecipeError as error:
        raise Gap(spec.line_of("parameters"), f"{spec.path}.parameters, at the tensor {tensor!r}: {error}") from error
