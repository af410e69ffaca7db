"""M2N2: Competition and Attraction Improve Model Fusion (Abrantes, Lange, Tang; arXiv 2508.16204, GECCO 2025).

Members of an archive compete for items (implicit fitness sharing), mates are chosen for items that the first parent
fails, and the boundary between two models is itself evolved. Steady state: one child at a time, scored on all items,
takes the place of whoever is paid least. Equation numbers are the paper's.

Two things differ from the published code on purpose: where no mate has anything to offer (0/0 in Eq. 4) the second
parent is drawn by payout among the others, and counted; and the best members ever seen are kept in a hall of fame,
because the archive itself may lose them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Noise, Recipe, Segment
from evomerge.errors import StrategyError
from evomerge.strategy import Problem, Strategy, require_members
from evomerge_strategies.competition import Competition, Floats, Rules, Scores, coverage, entropy, least, pick, without
from evomerge_strategies.hall import Hall, enter
from evomerge_strategies.mating import Draws, Mating, Member, draws_from
from evomerge_strategies.seeds import given_seeds


@dataclass(frozen=True)
class M2N2Settings:
    """M2N2's settings; the defaults are the published digits experiment from pre-trained seeds.

    Attributes:
        population: archive slots P.
        alpha: exponent of the competition for an item (Eq. 3): 0 is a plain score sum, above 1 crowding costs more.
        capacity: what an item pays in all: the ``best`` score that any member reaches on it (Eq. 5), which for
            right/wrong scores is 1, or ``one`` whatever the scores.
        subtract_minimum: take each item's lowest score in the archive from all its scores first (diffusion run).
        attraction: choose the second parent by what it can add (Eq. 4); off: both parents by payout, independently.
        crossover: mix two parents; off: the child is a (mutated) copy of the first.
        split_point: evolve the boundary; off: one mixing ratio for the whole vector.
        mutation: standard deviation of the noise on every coordinate of a child; 0 is none.
        start: begin from the pool's members, and from what an earlier stage found (``seeds``), or from
            ``scratch_members`` random models (``scratch``).
        scratch_members: how many random models.
        scratch_scale: their standard deviation.
        warm_up: so many first children come from uniformly drawn parents.
        angle: SLERP's angle over the ``global`` vectors (published code) or ``per_segment`` (Eq. 2).
        hall_of_fame: how many of the best ever seen are remembered as finalists.
    """

    population: Annotated[int, Gt(1)] = 20
    alpha: Annotated[float, Ge(0)] = 1.0
    capacity: Literal["best", "one"] = "best"
    subtract_minimum: bool = False
    attraction: bool = True
    crossover: bool = True
    split_point: bool = True
    mutation: Annotated[float, Ge(0)] = 0.0
    start: Literal["seeds", "scratch"] = "seeds"
    scratch_members: Annotated[int, Gt(1)] = 2
    scratch_scale: Annotated[float, Gt(0)] = 0.01
    warm_up: Annotated[int, Ge(0)] = 0
    angle: Literal["global", "per_segment"] = "global"
    hall_of_fame: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True)
class M2N2State:
    """The archive: ``scores`` are raw item scores, (P, N), all zero where ``members`` has ``None``.

    ``hall`` holds (value, number) of the best ever seen, best first; ``no_attraction`` counts matches in which no
    mate had anything to offer.
    """

    asked: int
    told: int
    members: tuple[Member | None, ...]
    scores: Scores
    hall: Hall = ()
    no_attraction: int = 0


class M2N2(Strategy[M2N2State]):
    """See the module's docstring. ``draws`` may replace the random numbers, to replay another implementation's."""

    Settings = M2N2Settings
    State = M2N2State
    needs_whole = True

    def __init__(self, settings: M2N2Settings, problem: Problem, draws: Callable[[int], Draws] | None = None) -> None:
        if problem.items == 0:
            raise StrategyError("m2n2 needs a score for each item; this fitness returns none (see Score.items)")
        if settings.start == "seeds":
            require_members(problem, 2 if settings.crossover else 1, "m2n2 from seeds")
        self._s, self._problem = settings, problem
        self._draws = draws or (lambda number: draws_from(problem.seed, number, problem.groups))
        self._models = given_seeds(problem) if settings.start == "seeds" else ()
        self._seeds = len(self._models) or settings.scratch_members
        self._rules = Rules(settings.alpha, settings.capacity, settings.subtract_minimum)
        self._rows = np.empty((settings.population + 1, problem.items))  # fresh pages cost more than the sums
        self._rows_are: Scores | None = None
        self._last: tuple[Scores, tuple[Competition, NDArray[np.bool_]]] | None = None
        self._mating = Mating(problem, settings.crossover, settings.split_point, settings.mutation, settings.angle)

    def start(self) -> M2N2State:
        """An empty archive; its scores take the dtype of the first row told."""
        slots = self._s.population
        return M2N2State(0, 0, (None,) * slots, np.zeros((slots, self._problem.items), dtype=bool))

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: M2N2State, room: int) -> tuple[M2N2State, tuple[Candidate, ...]]:
        """Seeds first; once all of them are back, children of the present archive."""
        if state.asked < self._seeds:
            numbers = range(state.asked, min(state.asked + room, self._seeds))
            return replace(state, asked=numbers.stop), tuple(self._seed(number) for number in numbers)
        if room <= 0 or state.told < self._seeds or self.exhausted(state):
            return state, ()
        competition, filled = self._competition(state)
        children, lonely = [], 0
        for number in range(state.asked, state.asked + room):
            draws = self._draws(number)
            warming = number < self._seeds + self._s.warm_up
            first, second, undefined = self._parents(competition, filled, draws, uniform=warming)
            one, two = cast(Member, state.members[first]), cast(Member, state.members[second])
            children.append(self._mating.child(number, one, two, draws, "warm-up" if warming else "crossover"))
            lonely += undefined
        return replace(state, asked=state.asked + room, no_attraction=state.no_attraction + lonely), tuple(children)

    def _seed(self, number: int) -> Candidate:
        if self._s.start == "seeds":
            return self._models[number]
        empty = tuple(Segment(group.name, 0, group.size, ()) for group in self._problem.groups)
        noise = Noise(self._s.scratch_scale, self._problem.seed, number)
        return Candidate(number, Recipe("linear", (), empty, noise=noise), origin="random")

    def _competition(self, state: M2N2State) -> tuple[Competition, NDArray[np.bool_]]:
        """The archive's competition and its occupied slots; the last one again while no newcomer was taken in."""
        if self._last is None or self._last[0] is not state.scores:
            filled = np.array([member is not None for member in state.members])
            rows = self._rows_of(state.scores)[:-1].copy()
            binary = state.scores.dtype == np.bool_
            self._last = state.scores, (Competition(rows, self._rules, binary=binary, filled=filled), filled)
        return self._last[1]

    def _parents(
        self, competition: Competition, filled: NDArray[np.bool_], draws: Draws, *, uniform: bool
    ) -> tuple[int, int, bool]:
        """Slots of the two parents, and whether attraction was undefined for the first."""
        solving = competition.payout.any()
        chances = filled.astype(np.float64) if uniform or not solving else competition.payout
        first = pick(chances, draws.first)
        if not uniform and not (self._s.attraction and self._s.crossover):
            return first, pick(chances, draws.second), False
        gains = without(chances, first) if uniform else competition.attraction(first)
        if gains.any():
            return first, pick(gains, draws.second), False
        others = without(chances, first)
        return first, pick(others if others.any() else without(filled.astype(np.float64), first), draws.second), True

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: M2N2State, evaluated: Evaluated) -> M2N2State:
        """Empty slots fill first; then the newcomer takes the place of whoever is paid least, perhaps its own."""
        state = replace(state, told=state.told + 1)
        if evaluated.score is None:
            return state
        row = evaluated.score.items
        if row is None or (row.dtype != np.bool_ and row.min() < 0):
            raise StrategyError("m2n2 needs a non-negative score for each item, and was told none or a negative one")
        candidate = evaluated.candidate
        hall = enter(state.hall, evaluated, self._problem.objectives[0], self._s.hall_of_fame)
        state = replace(state, hall=hall)
        slot = self._slot_for(state, row)
        if slot == self._s.population:
            return state
        scores = state.scores.astype(np.result_type(state.scores.dtype, row.dtype))
        scores[slot] = row
        self._rows_of(state.scores)[slot] = row
        self._rows_are = scores
        newcomer = Member(candidate.number, candidate.recipe.digest, candidate.generation)
        members = (*state.members[:slot], newcomer, *state.members[slot + 1 :])
        return replace(state, members=members, scores=scores)

    def _slot_for(self, state: M2N2State, row: NDArray[np.generic]) -> int:
        """The slot a new row takes: the first empty one, else the lowest payout of all P + 1; P means discarded."""
        if None in state.members:
            return state.members.index(None)
        rows = self._rows_of(state.scores)
        rows[-1] = row
        rows = rows.copy() if self._rules.subtract_minimum else rows
        binary = state.scores.dtype == row.dtype == np.bool_
        return least(Competition(rows, self._rules, binary=binary).payout)

    def _rows_of(self, scores: Scores) -> Floats:
        """The archive's scores as float64 with a free last row: (P + 1, N). A cache of the state's, in one buffer."""
        if self._rows_are is not scores:
            self._rows[:-1] = scores
            self._rows_are = scores
        return self._rows

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: M2N2State) -> tuple[int | None, ...]:
        """Candidate numbers by slot."""
        return tuple([member.number if member else None for member in state.members])

    def finalists(self, state: M2N2State) -> tuple[int, ...]:
        """The hall of fame, best first."""
        return tuple(number for _, number in state.hall)

    def exhausted(self, state: M2N2State) -> str | None:
        """A search from seeds needs two that could be scored; a copy without mutation needs none, but finds nothing."""
        needed = 2 if self._s.crossover else 1
        alive = sum(member is not None for member in state.members)
        if state.told >= self._seeds and alive < needed:
            return f"only {alive} of {self._seeds} starting models could be scored, m2n2 needs {needed}"
        return None

    def diagnostics(self, state: M2N2State) -> dict[str, float]:
        """Coverage and entropy of the archive, its smallest and largest niche (payout), undefined attractions."""
        filled = [slot for slot, member in enumerate(state.members) if member is not None]
        if not filled:
            return {}
        rows = state.scores[filled]
        niches = Competition.of(rows, self._rules).payout
        return {
            "coverage": coverage(rows.astype(np.float64)),
            "entropy": entropy(rows.astype(np.float64)),
            "niche_min": float(niches.min()),
            "niche_max": float(niches.max()),
            "no_attraction": float(state.no_attraction),
        }
