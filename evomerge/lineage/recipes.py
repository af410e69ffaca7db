"""Ancestors of recipes, by digest: what a worker needs to build a candidate it knows nothing of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from evomerge.candidate import Recipe
from evomerge.errors import RecipeError

Lookup = Callable[[Iterable[str]], Mapping[str, Recipe]]
"""Recipes by digest, such as `StudyStore.recipes`: those it knows among the digests asked for."""


def ancestry(recipe: Recipe, known: frozenset[str], lookup: Lookup) -> tuple[Recipe, ...]:
    """All ancestors of a recipe, oldest first (every one after its own), not going beyond the ``known`` digests.

    One call of ``lookup`` per level of the family tree; no recursion, so depth is no limit.

    Raises:
        RecipeError: an ancestor is nowhere to be found.
    """
    found: dict[str, Recipe] = {}
    level = [digest for digest in dict.fromkeys(recipe.ancestors) if digest not in known]
    while level:
        fresh = lookup(level)
        lost = [digest for digest in level if digest not in fresh]
        if lost:
            raise RecipeError(f"recipe {lost[0]} is an ancestor of {recipe.digest}, but the study does not have it")
        found.update((digest, fresh[digest]) for digest in level)
        parents = dict.fromkeys(parent for digest in level for parent in fresh[digest].ancestors)
        level = [digest for digest in parents if digest not in known and digest not in found]
    return tuple(found[digest] for digest in _oldest_first({digest: r.ancestors for digest, r in found.items()}))


def _oldest_first(parents: Mapping[str, Iterable[str]]) -> list[str]:
    """Keys of a directed acyclic graph, each after those of its parents that are keys too."""
    waits = {key: {parent for parent in ups if parent in parents} for key, ups in parents.items()}
    children: dict[str, list[str]] = {key: [] for key in parents}
    for key, ups in waits.items():
        for parent in ups:
            children[parent].append(key)
    order = [key for key, ups in waits.items() if not ups]
    for key in order:  # grows while it is walked
        for child in children[key]:
            waits[child].discard(key)
            if not waits[child]:
                order.append(child)
    return order
