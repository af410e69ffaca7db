"""How two members of an archive become a child: SLERP with an evolved split point (M2N2, arXiv 2508.16204, Eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evomerge.candidate import ANCESTOR, Candidate, Noise, Recipe, Segment
from evomerge.strategy import Group, Problem
from evomerge.streams import stream


@dataclass(frozen=True, slots=True)
class Member:
    """One occupied slot of an archive."""

    number: int
    digest: str
    generation: int


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of one child: for its parents, and a split and a mixing weight for each parameter group."""

    first: float
    second: float
    splits: tuple[int, ...]
    weights: tuple[float, ...]


def draws_from(seed: int, number: int, groups: tuple[Group, ...]) -> Draws:
    """The draws of candidate ``number``, from its own stream."""
    random = stream(seed, number)
    first, second, *weights = random.random(2 + len(groups)).tolist()
    splits = tuple(int(random.integers(group.size)) for group in groups)
    return Draws(first, second, splits, tuple(weights))


@dataclass(frozen=True, slots=True)
class Mating:
    """The settings of `M2N2Settings` that shape a child."""

    problem: Problem
    crossover: bool = True
    split_point: bool = True
    mutation: float = 0.0
    angle: Literal["global", "per_segment"] = "global"

    def child(self, number: int, one: Member, two: Member, draws: Draws, origin: str) -> Candidate:
        """Candidate ``number``: a mixture of both parents, or without crossover a (mutated) copy of the first."""
        noise = Noise(self.mutation, self.problem.seed, number) if self.mutation > 0 else None
        if not self.crossover:
            whole = tuple(Segment(group.name, 0, group.size, (1.0,)) for group in self.problem.groups)
            recipe = Recipe("linear", (ANCESTOR + one.digest,), whole, noise=noise)
            return Candidate(number, recipe, (one.number,), 1 + one.generation, "copy")
        sources = (ANCESTOR + one.digest, ANCESTOR + two.digest)
        recipe = Recipe("slerp", sources, self._segments(draws), (("angle", self.angle),), noise)
        return Candidate(number, recipe, (one.number, two.number), 1 + max(one.generation, two.generation), origin)

    def _segments(self, draws: Draws) -> tuple[Segment, ...]:
        """Per group: t = w before the split point, 1 - w from it on (Eq. 2); each group has its own (s, w)."""
        segments = []
        for group, split, weight in zip(self.problem.groups, draws.splits, draws.weights, strict=True):
            if not self.split_point:
                segments.append(Segment(group.name, 0, group.size, (weight,)))
                continue
            if split > 0:
                segments.append(Segment(group.name, 0, split, (weight,)))
            segments.append(Segment(group.name, split, group.size, (1.0 - weight,)))
        return tuple(segments)
