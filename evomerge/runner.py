"""The loop of a study: tell one result, ask for the next, keep the turn, and only then send it out.

Resume is the same loop begun elsewhere (`evomerge.replay`), with the candidates that were asked but never told sent out
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from evomerge.candidate import Candidate, Evaluated, Split
from evomerge.errors import StalledError
from evomerge.executor.port import Executor, Task
from evomerge.replay import population_changes, restore, state_digest
from evomerge.store.port import Snapshot, Status, StudyStore, Turn
from evomerge.strategy import Objective, State, Strategy
from evomerge.twins import REMEMBERED, Twins, result_of_twin

S = TypeVar("S", bound=State)

WAIT = 0.1
"""Seconds to wait for a result before what is saved so far is made durable."""

PROGRESS_EVERY = 0.2
"""Seconds between two calls of ``on_progress``, at least."""


@dataclass(frozen=True)
class Progress:
    """How far a search is: ``spent`` whole evaluations' worth of items; ``numbers`` are the strategy's diagnostics."""

    told: int
    spent: float
    failed: int
    budget: int
    in_flight: int
    workers: int
    best: float | None
    best_number: int | None
    numbers: dict[str, float]
    phase: Split = "search"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. ``final`` is the chosen candidate of a finished study."""

    status: Status
    reason: str
    final: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a run is asked to do. ``window``, ``telling`` and ``objective`` are part of the search, the rest is not.

    ``budget`` counts evaluations on all ``items`` of the search split; one on fewer items counts as its share.
    """

    objective: Objective
    budget: int
    window: int = 8
    telling: Literal["asked", "completion"] = "asked"
    finalists: int = 10
    splits: tuple[Split, ...] = ("search",)
    snapshot_every: int = 1000
    items: int = 0


class _StopRequested(Exception):
    """Ends the scoring of finalists."""


class Runner(Generic[S]):
    """Drives one study until its budget is spent, its strategy is exhausted, or ``stop`` says so."""

    def __init__(
        self,
        strategy: Strategy[S],
        study: StudyStore,
        executor: Executor,
        plan: Plan,
        *,
        stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._strategy, self._study, self._executor, self._plan = strategy, study, executor, plan
        self._stop, self._on_progress = stop, on_progress
        self._items = max(plan.items, 1)
        self._finished: dict[int, Evaluated] = {}  # back from a worker, not yet their turn
        self._twins = Twins()
        self._last_progress = 0.0
        self._last_snapshot = 0  # told results at the last snapshot

    def run(self) -> Outcome:
        """Begin or go on, to the end or to a stop. What is saved is durable when this returns."""
        study, plan = self._study, self._plan
        state, self._seq = restore(self._strategy, study)
        self._last_snapshot = state.told
        summary = study.summary()
        self._failed, self._best, self._best_number = summary.failed, summary.best, summary.best_number
        study.set_status("running")
        self._items_left = plan.budget * self._items - study.items_asked(self._items)
        in_flight = self._send_again(state)
        state, in_flight = self._ask(state, in_flight, ())
        while in_flight:
            if self._stop():
                return self._pause(state)
            evaluated = self._await(in_flight)
            in_flight.discard(evaluated.candidate.number)
            before = self._strategy.population(state)
            state = self._strategy.tell(state, evaluated)
            state, in_flight = self._ask(state, in_flight, (evaluated,), before)
            self._note(state, evaluated, len(in_flight))
        reason = self._why_over(state)
        try:
            return self._finish(state, reason)
        except _StopRequested:
            return self._pause(state)

    # --- the search -------------------------------------------------------------------------------------------

    def _send_again(self, state: S) -> set[int]:
        """Numbers asked but not told: results that came before their turn are at hand, the others are submitted."""
        if self._plan.telling == "asked":
            outstanding = set(range(state.told, state.asked))
            self._finished = {one.candidate.number: one for one in self._study.scores("search", outstanding)}
        else:
            told = {one.candidate.number for one in self._study.scores("search", items=False)}
            outstanding = set(range(state.asked)) - told
        self._items_told = self._plan.budget * self._items - self._items_left
        out = {one.number: one for one in self._study.candidates(sorted(outstanding))}
        for number, digest, request in self._study.digests(max(min(outstanding, default=state.asked) - REMEMBERED, 0)):
            twin = self._twins.add(number, digest, request)
            if number in out:
                self._items_told -= out[number].request.count(self._items)
                if number not in self._finished:
                    self._send(out[number], twin, outstanding)
        return outstanding

    def _send(self, candidate: Candidate, twin: int | None, in_flight: set[int]) -> None:
        """Have it evaluated, or take the result of its twin as soon as that is there."""
        if twin is None:
            self._executor.submit(Task(candidate))
        elif twin in in_flight and twin not in self._finished:
            self._twins.wait(twin, candidate)
        else:
            known = self._finished.get(twin) or next(self._study.scores("search", (twin,)))
            self._finished[candidate.number] = result_of_twin(candidate, known)

    def _ask(
        self, state: S, in_flight: set[int], told: tuple[Evaluated, ...], before: tuple[int | None, ...] | None = None
    ) -> tuple[S, set[int]]:
        """Fill the window, keep the turn, then submit. ``before`` is the population before ``told``."""
        asked: tuple[Candidate, ...] = ()
        # repeated, since candidates may cost less than there is room for
        while (room := min(self._plan.window - len(in_flight) - len(asked), self._items_left // self._items)) > 0:
            state, more = self._strategy.ask(state, room)
            asked += more
            self._items_left -= sum(one.request.count(self._items) for one in more)
            if len(more) < room:
                break
        if not told and not asked:
            return state, in_flight
        self._seq += 1
        changes = () if before is None else population_changes(before, self._strategy.population(state))
        self._study.save_turn(Turn(self._seq, told, asked, changes, self._strategy.leader(state) if told else None))
        if state.told - self._last_snapshot >= self._plan.snapshot_every:
            self._snapshot(state)
        for candidate in asked:
            twin = self._twins.add(candidate.number, candidate.recipe.digest, candidate.request)
            self._send(candidate, twin, in_flight)
            in_flight.add(candidate.number)
        return state, in_flight

    def _await(self, in_flight: set[int]) -> Evaluated:
        """The next result in the order of telling. Those that come before their turn are kept, so that none is lost."""
        while True:
            due = min(self._finished if self._plan.telling == "completion" and self._finished else in_flight)
            if due in self._finished:
                return self._finished.pop(due)
            evaluated = self._executor.next(timeout=WAIT)
            if evaluated is None:
                self._study.flush()
                continue
            self._finished |= {one.candidate.number: one for one in self._twins.served(evaluated)}
            if self._plan.telling == "completion" or evaluated.candidate.number == due:
                return evaluated
            self._finished[evaluated.candidate.number] = evaluated
            self._study.save_scores("search", (evaluated,))

    def _note(self, state: S, evaluated: Evaluated, in_flight: int) -> None:
        """Keep count for people: best so far, failures, progress."""
        number, objective = evaluated.candidate.number, self._plan.objective
        self._items_told += evaluated.candidate.request.count(self._items)
        if evaluated.score is None:
            self._failed += 1
            self._study.add_event("warning", "failed", evaluated.failure or "", number)
        elif evaluated.candidate.request.ranges is None:
            value = evaluated.score[objective.name]
            if self._best is None or objective.gain(value) > objective.gain(self._best):
                self._best, self._best_number = value, number
        self._best, self._best_number = self._strategy.leader(state) or (self._best, self._best_number)
        now = time.monotonic()
        if self._on_progress is not None and now - self._last_progress >= PROGRESS_EVERY:
            self._last_progress = now
            self._on_progress(self._progress(state, in_flight))

    def _progress(self, state: S, in_flight: int, phase: Split = "search") -> Progress:
        return Progress(
            told=state.told,
            spent=self._items_told / self._items,
            failed=self._failed,
            budget=self._plan.budget,
            in_flight=in_flight,
            workers=self._executor.workers,
            best=self._best,
            best_number=self._best_number,
            numbers=self._strategy.diagnostics(state),
            phase=phase,
        )

    def _snapshot(self, state: S) -> None:
        digest, text = state_digest(state)
        self._study.save_snapshot(Snapshot(self._seq, digest, text))
        self._last_snapshot = state.told

    # --- the end ----------------------------------------------------------------------------------------------

    def _pause(self, state: S) -> Outcome:
        if state.told > self._last_snapshot:
            self._snapshot(state)
        self._study.set_status("paused")
        self._study.flush()
        spent = f"{self._items_told / self._items:.10g} of {self._plan.budget}"
        return Outcome("paused", f"stopped on request after {spent} evaluations")

    def _why_over(self, state: S) -> str:
        if self._items_left < self._items:
            return "budget spent"
        reason = self._strategy.exhausted(state)
        if reason is None:
            raise StalledError(
                f"the strategy asks for nothing after {state.told} results with nothing in flight, and does not say "
                "why; this is a defect of the strategy"
            )
        return reason

    def _finish(self, state: S, reason: str) -> Outcome:
        """Choose among the best on the selection split, report the chosen one once, and close the books."""
        if state.told > self._last_snapshot:
            self._snapshot(state)
        finalists = self._strategy.finalists(state)[: self._plan.finalists]
        if not finalists:
            self._study.add_event("error", "stopped", f"no candidate could be scored: {reason}")
            self._study.set_status("stopped")
            self._study.flush()
            return Outcome("stopped", f"no candidate could be scored: {reason}")
        final = finalists[0]
        if "selection" in self._plan.splits:
            scored = {one.candidate.number: one for one in self._score(state, finalists, "selection")}
            final = max(finalists, key=lambda number: self._gain(scored[number]))  # first on ties: best on search
        if "report" in self._plan.splits:
            list(self._score(state, (final,), "report"))
        self._study.set_status("finished", final)
        self._study.flush()
        if self._on_progress is not None:
            self._on_progress(self._progress(state, 0, "report"))
        return Outcome("finished", reason, final)

    def _gain(self, evaluated: Evaluated) -> float:
        if evaluated.score is None:
            return float("-inf")
        return self._plan.objective.gain(evaluated.score[self._plan.objective.name])

    def _score(self, state: S, numbers: Iterable[int], split: Split) -> Iterator[Evaluated]:
        """Results of these candidates on a split: the stored ones, and the missing ones evaluated now."""
        wanted = tuple(numbers)
        stored = {one.candidate.number: one for one in self._study.scores(split, wanted, items=False)}
        yield from stored.values()
        missing = [number for number in wanted if number not in stored]
        for candidate in self._study.candidates(missing):
            self._executor.submit(Task(candidate, split))
        while missing:
            if self._stop():
                raise _StopRequested
            if self._on_progress is not None:
                self._on_progress(self._progress(state, len(missing), split))
            evaluated = self._executor.next(timeout=WAIT)
            if evaluated is None:
                self._study.flush()
                continue
            missing.remove(evaluated.candidate.number)
            self._study.save_scores(split, (evaluated,))
            yield evaluated
