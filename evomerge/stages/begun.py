"""Where a stage begins: which members, which seeds, and whose candidates' numbers its own stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evomerge.candidate import ANCESTOR, MEMBER, Candidate, Recipe
from evomerge.strategy import Problem
from evomerge.streams import stream


@dataclass(frozen=True)
class Found:
    """A scored candidate, by the study's numbers; ``value`` is its main objective."""

    number: int
    value: float
    generation: int
    recipe: Recipe


@dataclass(frozen=True)
class Begun:
    """How a stage began.

    Attributes:
        at: its place among the stages.
        first: number of its first candidate.
        members: names of the pool's members that it may use, then of those that ``joined``.
        joined: name and digest of recipes that are members now.
        seeds: number and recipe of candidates to begin from, best first.
        generation: of candidates without parents.
    """

    at: int
    first: int
    members: tuple[str, ...]
    joined: tuple[tuple[str, str], ...] = ()
    seeds: tuple[tuple[int, Recipe], ...] = ()
    generation: int = 0

    def outward(self, one: Candidate) -> Candidate:
        """A candidate of the stage as one of the study; parents below 0 count seeds (see `Problem.seeds`)."""
        names = {MEMBER + name: ANCESTOR + digest for name, digest in self.joined}
        return replace(
            one,
            number=one.number + self.first,
            recipe=renamed(one.recipe, names),
            parents=tuple(p + self.first if p >= 0 else self.seeds[-1 - p][0] for p in one.parents),
            generation=one.generation + self.generation,
        )

    def inward(self, one: Candidate) -> Candidate:
        """Back again; the recipe stays the study's, since its digest is what children name."""
        places = {number: -1 - at for at, (number, _) in enumerate(self.seeds)}
        return replace(
            one,
            number=one.number - self.first,
            parents=tuple(p - self.first if p >= self.first else places[p] for p in one.parents),
            generation=one.generation - self.generation,
        )

    def problem(self, study: Problem) -> Problem:
        """What the stage's strategy is told."""
        names = {ANCESTOR + digest: MEMBER + name for name, digest in self.joined}
        return replace(
            study,
            seed=int(stream(study.seed, self.at, "stage").integers(2**63)),
            members=self.members,
            slopes=study.slopes and not self.joined,
            seeds=tuple(renamed(recipe, names) for _, recipe in self.seeds),
        )


def renamed(recipe: Recipe, names: dict[str, str]) -> Recipe:
    """The recipe with other names of its sources."""
    sources = tuple(names.get(source, source) for source in recipe.sources)
    return recipe if sources == recipe.sources else replace(recipe, sources=sources)


def new_name(begun: Begun) -> str:
    """What a stage's product is called as a pool member: like no other."""
    name = f"stage{begun.at + 1}"
    while name in begun.members:
        name += "'"
    return name
