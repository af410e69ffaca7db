"""The pool's own members as candidates: every search is measured against its best seed."""

from __future__ import annotations

from evomerge.candidate import MEMBER, Candidate, Recipe, Segment
from evomerge.strategy import Problem


def member_recipe(problem: Problem, member: str) -> Recipe:
    """A recipe that gives ``member`` itself, byte for byte."""
    return Recipe("linear", (MEMBER + member,), tuple(Segment(g.name, 0, g.size, (1.0,)) for g in problem.groups))


def pool_seeds(problem: Problem) -> tuple[Candidate, ...]:
    """One candidate per member, numbered from 0 in the pool's order."""
    return tuple(
        Candidate(number, member_recipe(problem, member), origin="seed")
        for number, member in enumerate(problem.members)
    )


def given_seeds(problem: Problem) -> tuple[Candidate, ...]:
    """The pool's members, then the problem's ``seeds`` that are not among them."""
    members = pool_seeds(problem)
    known = {one.recipe.digest for one in members}
    new = [at for at, recipe in enumerate(problem.seeds) if recipe.digest not in known]
    return members + tuple(
        Candidate(number, problem.seeds[at], (-1 - at,), origin="seed")
        for number, at in enumerate(new, start=len(members))
    )
