"""A recipe as a mergekit YAML: by a method of its own where there is one, else as a weighted sum, else not at all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from evomerge.candidate import ANCESTOR, MEMBER, Recipe
from evomerge.errors import ExportError
from evomerge.merge.build import Builder
from evomerge.merge.export import DTYPES, planned
from evomerge.merge.operators.port import operator
from evomerge.merge.pool import BASE, ModelPool
from evomerge.merge.table import Table
from evomerge.merge.views.adapted import Adapted
from evomerge.recipes.file import HUB
from evomerge.recipes.mergekit import layout
from evomerge.recipes.mergekit.words import WORDS, Each, Said, Told, Unsayable, Values
from evomerge.settings import PoolSettings, TokenSettings

_ZERO = (
    "breadcrumbs",
    "breadcrumbs_ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "task_arithmetic",
    "ties",
)
"""Methods that give the base where all weights are 0."""
_OTHERWISE = {
    "arcee_fusion": "mergekit's quartiles are those of a random sample where a tensor has more than a million entries",
    "sce": "mergekit weighs all experts alike where the mean squares of their deltas sum to less than 1e-6",
}
"""What mergekit makes of the same recipe is not always the same."""
_RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")


@dataclass(frozen=True)
class Exported:
    """A mergekit YAML, and what to know about it."""

    text: str
    notes: tuple[str, ...] = ()


def exported(
    builder: Builder,
    recipe: Recipe,
    ancestors: Sequence[Recipe],
    settings: PoolSettings,
    *,
    dtype: str | None = None,
) -> Exported:
    """The YAML of a recipe over a pool, which ``settings`` name. ``builder`` resolves to coefficients where it can.

    Raises:
        ExportError: it cannot be said, and why; or an unknown dtype.
        RecipeError, PoolError: the recipe does not fit the pool.
    """
    pool = builder.pool
    if dtype is not None and dtype not in DTYPES:
        raise ExportError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    try:
        said = _extended(_directly(pool, recipe, ancestors), pool)
    except Unsayable as unsayable:
        said = _as_sum(builder, recipe, ancestors, str(unsayable))
    models = {name: _located(pool, settings, name) for name in pool.sources}
    try:
        document = layout.document(said, pool, settings, models)
    except Unsayable as unsayable:
        raise _refusal(str(unsayable)) from None
    document |= _dtypes(pool, dtype) | _tokenizer(settings, models, pool.base)
    document |= {"chat_template": settings.chat_template} if settings.chat_template else {}
    head = f"# The recipe {recipe.digest} of evomerge.\n"
    body = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return Exported(head + body, tuple(_notes(said, pool, dtype)))


def _refusal(why: str) -> ExportError:
    return ExportError(f"the recipe cannot be written for mergekit: {why}; export the model itself")


def _directly(pool: ModelPool, recipe: Recipe, ancestors: Sequence[Recipe]) -> Said:
    """By the method that is the recipe's operator."""
    if recipe.noise is not None:
        raise Unsayable("it has random noise on top, which mergekit has not")
    if any(source.startswith(ANCESTOR) for source in recipe.sources):
        raise Unsayable("it is a merge of merges, and a YAML holds but one")
    words = WORDS.get(recipe.operator)
    if words is None:
        raise Unsayable(f"mergekit has no method like {recipe.operator}")
    return words(_told(pool, recipe))


def _told(pool: ModelPool, recipe: Recipe) -> Told:
    """The recipe tensor by tensor."""
    kind = operator(recipe.operator, recipe.options)
    sources = tuple(source.removeprefix(MEMBER) for source in recipe.sources)
    flat = dict(_by_tensor(pool, {one.name: _segments(recipe, one.name) for one in pool.groups}))
    values: dict[str, Each] = {}
    at = 0
    for parameter in kind.parameters:
        models = {"segment": ("",), "source": sources, "expert": sources[1:]}[parameter.per]
        values[parameter.name] = {
            model: {name: row[at + place] for name, row in flat.items()} for place, model in enumerate(models)
        }
        at += len(models)
    options = {one.name: getattr(kind, one.name) for one in fields(kind)}  # type: ignore[arg-type]  # operators are dataclasses
    return Told(recipe.operator, kind, sources, options, values)


Stretches = Sequence[tuple[int, int, tuple[float, ...]]]


def _segments(recipe: Recipe, group: str) -> Stretches:
    return [(one.start, one.stop, one.values) for one in recipe.segments if one.group == group and one.stop > one.start]


def _by_tensor(pool: ModelPool, groups: Mapping[str, Stretches]) -> Iterator[tuple[str, tuple[float, ...]]]:
    """What holds for each tensor.

    Raises:
        Unsayable: it changes within one.
    """
    for group, stretches in groups.items():
        stops = [stop for _, stop, _ in stretches]
        for slot in pool.slots[group]:
            first = min(bisect_right(stops, slot.offset), len(stops) - 1)
            last = bisect_left(stops, slot.offset + slot.size)
            if any(one[2] != stretches[first][2] for one in stretches[first : last + 1]):
                raise Unsayable(f"its values change within the tensor {slot.name!r}, and mergekit's within none")
            yield slot.name, stretches[first][2]


def _as_sum(builder: Builder, recipe: Recipe, ancestors: Sequence[Recipe], why: str) -> Said:
    """As ``linear`` with the recipe's coefficients, whatever it is made of."""
    pool = builder.pool
    if any(one.noise is not None for one in (recipe, *ancestors)):
        raise _refusal("there is random noise in it, which mergekit has not")
    table = builder.resolve(recipe, ancestors)
    if not isinstance(table, Table):
        raise _refusal(f"{why}, and it is no weighted sum of the pool's models")
    groups = {
        group: [(int(a), int(b), tuple(row)) for a, b, row in zip(bounds, bounds[1:], rows.tolist(), strict=False)]
        for group, (bounds, rows) in table.parts.items()
    }
    try:
        rows = dict(_by_tensor(pool, groups))
    except Unsayable as unsayable:
        raise _refusal(str(unsayable)) from None
    rows |= {name: tuple(float(one == pool.reference) for one in pool.sources) for name in _left_out(pool)}
    weights = {model: {name: row[at] for name, row in rows.items()} for at, model in enumerate(pool.sources)}
    used = {model: of for model, of in weights.items() if any(of.values())}
    base = pool.reference if pool.reference in used else None
    return Said("linear", tuple(used), base, {"weight": used}, {}, {"normalize": False})


def _left_out(pool: ModelPool) -> list[str]:
    """Tensors of numbers that are copied from the reference, but would be merged by mergekit."""
    return [name for name in pool.copied if pool.checkpoints[pool.reference].entries[name].floating]


def _extended(said: Said, pool: ModelPool) -> Said:
    """The same with values for what is left out of the merge."""
    names = _left_out(pool)
    if not names:
        return said
    if said.method not in _ZERO or said.base != pool.reference:
        raise Unsayable(f"tensors such as {names[0]!r} are left out (pool.exclude), and {said.method} merges all")

    def more(name: str, values: Values) -> Values:
        value = 0.0 if name == "weight" else next(iter(values.values()))
        return {**values, **dict.fromkeys(names, value)}

    each = {name: {model: more(name, values) for model, values in of.items()} for name, of in said.each.items()}
    return Said(said.method, said.models, said.base, each, {n: more(n, v) for n, v in said.all.items()}, said.flags)


def _located(pool: ModelPool, settings: PoolSettings, name: str) -> str:
    """A model as mergekit finds it: an absolute path, or a name on the hub."""
    text = settings.members.get(name) or settings.base or ""
    whole = pool.root / Path(text).expanduser()
    parts = [text] if whole.exists() else text.split("+")
    found = "+".join(_place(pool.root, part) for part in parts)
    alone = isinstance(pool.checkpoints[name], Adapted) and len(parts) == 1
    return f"{_place(pool.root, settings.base)}+{found}" if alone and settings.base else found


def _place(root: Path, part: str) -> str:
    return part.removeprefix(HUB) if part.startswith(HUB) else str((root / Path(part).expanduser()).resolve())


def _dtypes(pool: ModelPool, dtype: str | None) -> dict[str, str]:
    """Computed in float32, as ours; the embeddings' dtype is as good as any where there are several."""
    return {"dtype": "float32", "out_dtype": dtype or _most(pool)}


def _most(pool: ModelPool) -> str:
    sizes: dict[str, int] = {}
    for plan in planned(pool):
        sizes[plan.dtype] = sizes.get(plan.dtype, 0) + plan.nbytes
    names = {short: name for name, short in DTYPES.items()}
    return names.get(max(sizes, key=lambda kind: sizes[kind]), "float32")


def _tokenizer(settings: PoolSettings, models: Mapping[str, str], base: str | None) -> dict[str, Any]:
    if settings.vocabulary == "same" and settings.pad_vocabulary == 1:
        return {}
    source = "base" if settings.vocabulary == "same" else settings.vocabulary
    place = models.get(source, source)
    padding = {"pad_to_multiple_of": settings.pad_vocabulary} if settings.pad_vocabulary > 1 else {}
    models = {BASE: models[base], **models} if base else models
    tokens = {token: _token(rule, models) for token, rule in settings.tokens.items()}
    return {"tokenizer": {"source": place, **padding, **({"tokens": tokens} if tokens else {})}}


def _token(rule: TokenSettings, models: Mapping[str, str]) -> dict[str, Any]:
    source: Any = {"kind": "zero"}
    if rule.source is not None:
        source = models.get(rule.source, rule.source)
        if rule.token is not None:
            key = "token_id" if isinstance(rule.token, int) else "token"
            source = {"kind": "model_token", "model": source, key: rule.token}
    return {"source": source, "force": rule.force}


def _notes(said: Said, pool: ModelPool, dtype: str | None) -> Iterator[str]:
    if said.method in _OTHERWISE:
        yield _OTHERWISE[said.method]
    if said.method in _RANDOM and any(value < 1.0 for of in said.each["density"].values() for value in of.values()):
        yield f"{said.method} draws at random, and mergekit draws otherwise: another model of the same kind"
    if dtype is None and len({plan.dtype for plan in planned(pool)}) > 1:
        yield f"the pool's tensors have several dtypes, and mergekit writes all as {_most(pool)}"
