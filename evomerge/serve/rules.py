"""What a recipe from the network must be before anything is done with it. It is data, and nothing else.

An operator is looked up only if its name is on the server's list, which no ``module:Name`` is; numbers are finite;
segments tile the pool's groups; sizes have limits.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from evomerge.candidate import ANCESTOR, MEMBER, Recipe, Request, Segment
from evomerge.errors import RecipeError
from evomerge.merge.operators.port import operator
from evomerge.merge.pool import ModelPool
from evomerge.merge.rows import checked
from evomerge.wire import Control, Limits, Question

_DIGEST = re.compile(r"[0-9a-f]{32}")
_LONGEST_TEXT = 200
_LARGEST = 2**63
"""Whole numbers, such as seeds, lie below it."""


@dataclass(frozen=True)
class Rules:
    """What this server accepts."""

    pool: ModelPool
    operators: tuple[str, ...]
    limits: Limits

    def recipe(self, question: Question) -> Recipe:
        """The recipe that is asked about, checked.

        Raises:
            RecipeError: there is none or more than one, or it is not acceptable.
        """
        recipe, control = question.recipe, question.control
        if recipe is None and control is not None:
            recipe = self._spread(control)
        elif recipe is None or control is not None:
            raise RecipeError("give either a recipe or a control")
        self.check(recipe)
        return recipe

    def check(self, recipe: Recipe) -> None:
        """Refuse what cannot be built from this pool.

        Raises:
            RecipeError: saying what is wrong.
        """
        self._allowed(recipe.operator)
        if len(recipe.segments) > self.limits.segments:
            raise RecipeError(f"{len(recipe.segments)} segments; this server takes up to {self.limits.segments}")
        values = sum(len(segment.values) for segment in recipe.segments)
        if values > self.limits.values or len(recipe.sources) > self.limits.values:
            raise RecipeError(f"{values} values; this server takes up to {self.limits.values}")
        for segment in recipe.segments:
            if not all(map(math.isfinite, segment.values)):
                raise RecipeError(f"segment {segment.group:.80}[{segment.start}:{segment.stop}] has values not finite")
        self._sources(recipe)
        _plain(recipe)
        checked(recipe, operator(recipe.operator, recipe.options), self.pool.layout)

    def request(self, question: Question, items: int) -> Request:
        """Which of a split's ``items`` are asked for, and which repetition.

        Raises:
            RecipeError: impossible ones.
        """
        places, replicate = question.places, question.replicate
        if not 0 <= replicate < _LARGEST:
            raise RecipeError(f"replicate is {replicate}; count repetitions from 0")
        if places is None:
            return Request(None, replicate)
        if question.split != "search":
            raise RecipeError(f"split {question.split} is scored as a whole; leave out places")
        if not places or len(set(places)) != len(places) or min(places) < 0 or max(places) >= items:
            raise RecipeError(f"places must be different whole numbers from 0 to {items - 1}, and at least one")
        return Request(_runs(places), replicate)

    def _allowed(self, name: str) -> None:
        if name not in self.operators:
            raise RecipeError(f"operator {name!r:.80} is not offered; this server has {', '.join(self.operators)}")

    def _sources(self, recipe: Recipe) -> None:
        for source in recipe.sources:
            if source.startswith(MEMBER) and source.removeprefix(MEMBER) in self.pool.sources:
                continue
            if not (source.startswith(ANCESTOR) and _DIGEST.fullmatch(source.removeprefix(ANCESTOR))):
                known = ", ".join(self.pool.sources)
                raise RecipeError(f"unknown source {source!r:.80}; write pool:NAME (of {known}) or recipe:DIGEST")

    def _spread(self, control: Control) -> Recipe:
        """The same values for every group, over all members."""
        self._allowed(control.operator)
        members = self.pool.members
        if operator(control.operator, control.options).based:
            if self.pool.base is None:
                raise RecipeError(f"operator {control.operator!r} needs a base, and this pool has none")
            members = (self.pool.base, *(name for name in members if name != self.pool.base))
        sources = tuple(f"{MEMBER}{name}" for name in members)
        segments = tuple(Segment(group.name, 0, group.size, control.values) for group in self.pool.groups)
        return Recipe(control.operator, sources, segments, tuple(sorted(control.options)))


def _plain(recipe: Recipe) -> None:
    """Refuse options and noise that no honest client sends."""
    for name, value in recipe.options:
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise RecipeError(f"option {name!r:.80} has a text of {len(value)} characters")
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < _LARGEST):
            raise RecipeError(f"option {name!r:.80} is {value}; give a number of ordinary size")
    noise = recipe.noise
    if noise is not None:
        if not (math.isfinite(noise.scale) and noise.scale >= 0):
            raise RecipeError(f"the noise has scale {noise.scale}; give a number that is not negative")
        if not (0 <= noise.seed < _LARGEST and 0 <= noise.number < _LARGEST):
            raise RecipeError("the noise's seed and number must be whole numbers from 0 to 2^63 - 1")


def _runs(places: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Places in their order, as half-open ranges."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = runs[-1][0], place + 1
        else:
            runs.append((place, place + 1))
    return tuple(runs)
