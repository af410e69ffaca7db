"""Strategies one after the other in one study: select, warm-start, refine.

A stage has a strategy, and a problem of its own that follows from the study's: a seed of its own, the pool members that
the stage before left, and the best recipes so far to begin from (`Problem.seeds`). Candidates are numbered on through
all stages; parents, population and finalists are the study's. A stage begins when every result of the one before is
told, so that it depends on nothing but results.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, make_dataclass, replace
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, MinLen

from evomerge import plugins
from evomerge.candidate import Candidate, Evaluated
from evomerge.errors import StrategyError
from evomerge.settings import Choice
from evomerge.stages.begun import Begun, Found, new_name
from evomerge.strategy import Problem, Strategy


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        strategy: by name, and its settings.
        evaluations: so many, and the next stage begins; one on some of the items only counts as its share. Default:
            until the strategy can go no further.
        join_pool: the best recipe by the end of this stage becomes a pool member of the stages after it.
    """

    strategy: Choice
    evaluations: Annotated[int, Gt(0)] | None = None
    join_pool: bool = False


@dataclass(frozen=True)
class StagesSettings:
    """The settings of a chain.

    Attributes:
        stages: in order.
        seeds: how many of the best recipes so far a stage is given to begin from.
    """

    stages: Annotated[tuple[Stage, ...], MinLen(1)]
    seeds: Annotated[int, Gt(0)] = 10


@dataclass(frozen=True)
class StagesState:
    """Where the chain is; ``inner``, the running strategy's own state, is added for the strategies of a study.

    ``items`` is on how many items this stage's candidates were to be scored in all. ``known`` are those of them that
    may be finalists, ``earlier`` each earlier stage's finalists, best first; ``slots`` is the population after the
    last result.
    """

    asked: int
    told: int
    begun: Begun
    items: int = 0
    known: tuple[Found, ...] = ()
    earlier: tuple[tuple[Found, ...], ...] = ()
    slots: tuple[int | None, ...] = ()


@cache
def _state_of(kinds: tuple[type, ...]) -> type:
    """The state of a chain of strategies whose states are of these kinds, as the codec needs to know them."""
    inner: Any = reduce(or_, kinds)
    return make_dataclass("StagesState", [("inner", inner, None)], bases=(StagesState,), frozen=True)


class Stages(Strategy[Any]):
    """See the module's docstring."""

    Settings = StagesSettings
    State: ClassVar[type] = StagesState

    def __init__(self, settings: StagesSettings, problem: Problem) -> None:
        self._s, self._problem = settings, problem
        self._running: tuple[Begun, Strategy[Any]] | None = None  # rebuilt from any state
        seeds = tuple((-1 - at, recipe) for at, recipe in enumerate(problem.seeds))
        self._first = begun = Begun(0, 0, problem.members, seeds=seeds)
        kinds, needs = [], []
        for stage in settings.stages:
            strategy = self._at(begun)
            kinds.append(strategy.State)
            needs.append(strategy.needs_whole)
            members = strategy.members(strategy.start()) or begun.members
            joined = ((new_name(begun), ""),) if stage.join_pool else ()
            names = tuple(name for name, _ in joined)
            begun = Begun(begun.at + 1, 0, (*members, *names), (*begun.joined, *joined))
            self.needs_whole = self.needs_whole or strategy.needs_whole  # type: ignore[misc]  # as is its State
        self.needs_whole = any(needs)  # type: ignore[misc]  # an instance's own: as its stages do
        # likewise: which states it may hold depends on its settings
        self.State = _state_of(tuple(dict.fromkeys(kinds)))  # type: ignore[misc]

    def start(self) -> Any:
        """The first stage's start."""
        return self.State(0, 0, self._first, inner=self._at(self._first).start())

    # --- stages -----------------------------------------------------------------------------------------------

    def _at(self, begun: Begun) -> Strategy[Any]:
        """The strategy of a stage that began so.

        Raises:
            StrategyError: it cannot work on what it is given.
        """
        if self._running is None or (self._running[0] is not begun and self._running[0] != begun):
            choice = self._s.stages[begun.at].strategy
            kind: Any = plugins.strategy(choice.name)
            try:
                self._running = (begun, kind(choice.settings, begun.problem(self._problem)))
            except StrategyError as error:
                raise StrategyError(f"stage {begun.at + 1} ({choice.name}): {error}") from error
        return self._running[1]

    def _over(self, state: Any) -> str | None:
        """Why the running stage asks no more; None while it may."""
        if self._room(state) == 0:
            return f"stage {state.begun.at + 1} has spent its evaluations"
        return self._at(state.begun).exhausted(state.inner)

    def _room(self, state: Any) -> int | None:
        """How many whole evaluations the running stage has left; None if it has no limit."""
        limit, items = self._s.stages[state.begun.at].evaluations, max(self._problem.items, 1)
        return None if limit is None else max(limit - -(-state.items // items), 0)

    def _settled(self, state: Any) -> tuple[Any, str | None]:
        """The state with stages that are over left behind, and why the search ends there, if it does."""
        while state.asked == state.told and (reason := self._over(state)) is not None:
            if state.begun.at + 1 == len(self._s.stages):
                return state, reason
            try:
                state = self._next(state)
            except StrategyError as error:
                return state, str(error)
        return state, None

    def _next(self, state: Any) -> Any:
        """The start of the next stage, seeded from all before it."""
        begun, strategy = state.begun, self._at(state.begun)
        earlier = (*state.earlier, self._best(state))
        best = self._merged(earlier)[: self._s.seeds]
        members, joined = strategy.members(state.inner) or begun.members, begun.joined
        if self._s.stages[begun.at].join_pool and best:
            name = new_name(begun)
            members, joined = (*members, name), (*joined, (name, best[0].recipe.digest))
        after = Begun(
            begun.at + 1,
            state.asked,
            members,
            joined,
            tuple((one.number, one.recipe) for one in best),
            1 + max((one.generation for one in best), default=-1),
        )
        inner = self._at(after).start()
        return replace(state, begun=after, items=0, known=(), earlier=earlier, inner=inner)

    # --- asking and telling -----------------------------------------------------------------------------------

    def ask(self, state: Any, room: int) -> tuple[Any, tuple[Candidate, ...]]:
        """The running stage's candidates, or those of the next one when it is over."""
        moved, reason = self._settled(state)
        left = self._room(moved)
        room = room if left is None else min(room, left)
        if reason is not None or room <= 0:
            return state, ()
        inner, asked = self._at(moved.begun).ask(moved.inner, room)
        if not asked:
            return state, ()
        items = moved.items + sum(self._size(one) for one in asked)
        after = replace(moved, asked=moved.asked + len(asked), items=items, inner=inner)
        return after, tuple(moved.begun.outward(one) for one in asked)

    def _size(self, one: Candidate) -> int:
        """On how many items it is scored; 1 where items are not scored singly."""
        size = one.request.size
        return max(self._problem.items, 1) if size is None else size

    def tell(self, state: Any, evaluated: Evaluated) -> Any:
        """Pass it on to the stage that asked it."""
        begun, strategy = state.begun, self._at(state.begun)
        inner = strategy.tell(state.inner, self._inward(begun, evaluated))
        slots = _numbers(strategy.population(inner), begun.first)
        known = {one.number: one for one in state.known}
        one = evaluated.candidate
        if evaluated.score is not None:
            value = evaluated.score[self._problem.objectives[0].name]
            known[one.number] = Found(one.number, value, one.generation, one.recipe)
        wanted = {*slots, *_numbers(strategy.finalists(inner), begun.first)}
        return replace(
            state,
            told=state.told + 1,
            inner=inner,
            slots=slots,
            known=tuple(one for number, one in known.items() if number in wanted),
        )

    def _inward(self, begun: Begun, evaluated: Evaluated) -> Evaluated:
        score, study = evaluated.score, self._problem
        if score is not None and score.slopes is not None and begun.members != study.members:
            columns = [study.members.index(name) for name in begun.members]
            columns += [len(study.members)] * (study.base is not None)
            score = replace(score, slopes=score.slopes[:, columns])
        return replace(evaluated, candidate=begun.inward(evaluated.candidate), score=score)

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: Any) -> tuple[int | None, ...]:
        """The running stage's; the last stage's until the first result."""
        slots: tuple[int | None, ...] = state.slots
        return slots

    def finalists(self, state: Any) -> tuple[int, ...]:
        """Those of all stages, each stage's in its own order."""
        return tuple(one.number for one in self._merged((*state.earlier, self._best(state))))

    def _best(self, state: Any) -> tuple[Found, ...]:
        """The running stage's finalists."""
        known = {one.number: one for one in state.known}
        numbers = _numbers(self._at(state.begun).finalists(state.inner), state.begun.first)
        return tuple(known[number] for number in numbers if number in known)

    def _merged(self, stages: tuple[tuple[Found, ...], ...]) -> tuple[Found, ...]:
        """Always the best of those that are next in their stage; a later stage's first among equals."""
        gain = self._problem.objectives[0].gain
        return tuple(heapq.merge(*stages[::-1], key=lambda one: -gain(one.value)))

    def members(self, state: Any) -> tuple[str, ...] | None:
        """What the running stage leaves, of the pool's own."""
        left = self._at(state.begun).members(state.inner) or state.begun.members
        return tuple(name for name in left if name in self._problem.members)

    def exhausted(self, state: Any) -> str | None:
        """The last stage is over, or a stage cannot begin with what it is given."""
        return self._settled(state)[1]

    def leader(self, state: Any) -> tuple[float, int] | None:
        """The running stage's, if it says so, or who leads since an earlier one."""
        found = self._at(state.begun).leader(state.inner)
        if found is None:
            return None
        leaders = [
            (found[0], found[1] + state.begun.first),
            *((one[0].value, one[0].number) for one in state.earlier if one),
        ]
        return max(leaders, key=lambda one: self._problem.objectives[0].gain(one[0]))

    def diagnostics(self, state: Any) -> dict[str, float]:
        """The running stage, counted from 1, and its own numbers."""
        return {"stage": state.begun.at + 1.0, **self._at(state.begun).diagnostics(state.inner)}


def _numbers(numbers: tuple[Any, ...], first: int) -> tuple[Any, ...]:
    """A stage's numbers as the study's."""
    return tuple(None if number is None else number + first for number in numbers)
