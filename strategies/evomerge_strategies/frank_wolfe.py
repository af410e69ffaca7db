"""Frank-Wolfe merging (FW-Merging, ICCV 2025, arXiv 2503.12649): a convex combination of a large pool.

A linear function on the hull of the models is least at one of them, so each iteration asks towards which model the loss
falls most steeply, ``argmin_v <gradient, theta_v - theta>``, and moves there. The slopes come from gradients, or from
probes (`evomerge_strategies.frank_wolfe_race`), which need nothing but the losses of the items. Unlike in the published
program they are inner products and no cosines, the weights never leave the simplex, and steps are tested.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np

from evomerge.candidate import WHOLE, Candidate, Evaluated, Request, Score
from evomerge.errors import StrategyError
from evomerge.strategy import Problem, Strategy
from evomerge_strategies import frank_wolfe_race as races
from evomerge_strategies.frank_wolfe_hull import Hull
from evomerge_strategies.frank_wolfe_settings import FrankWolfeSettings, check
from evomerge_strategies.frank_wolfe_state import FAILED, Floats, FrankWolfeState, frozen, known
from evomerge_strategies.frank_wolfe_steps import FRACTIONS, best_face, gap, moved, projected
from evomerge_strategies.hall import enter


class Proposal(NamedTuple):
    """A candidate of a batch."""

    weights: Floats
    request: Request = WHOLE


class FrankWolfe(Strategy[FrankWolfeState]):
    """See the module's docstring.

    Raises:
        StrategyError: no members, no losses (or scores) of items, no gradients where they are asked for, no base to
            start from, or an operator that has no weights.
    """

    Settings = FrankWolfeSettings
    State = FrankWolfeState
    needs_whole: ClassVar[bool] = True

    def __init__(self, settings: FrankWolfeSettings, problem: Problem) -> None:
        check(settings, problem)
        self._s, self._problem = settings, problem
        self._hull = Hull(problem, per_group=settings.per_group, operator=settings.merge)
        plain = settings.merge is None
        self._gradients = settings.oracle == "slopes" or (settings.oracle == "auto" and problem.slopes and plain)
        self._direction = settings.direction if settings.mode == "hard" else "pairwise"
        self._starts, self._seed = self._places_to_start()

    def _places_to_start(self) -> tuple[list[Floats], int | None]:
        """Where to begin, and where if that fails; and which of the problem's seeds the first is."""
        hull, wanted = self._hull, self._s.start
        corners = [hull.vertex(model) for model in hull.models]
        base = [hull.vertex(str(self._problem.base))] if self._problem.base in hull.models else []
        if wanted == "base" and not base:
            raise StrategyError("start: base needs a base among the models that are merged; give pool.base, or uniform")
        seed = hull.seed() if wanted == "auto" else None
        first = [seed[1]] if seed is not None else base if wanted != "uniform" else []
        return [*first, hull.uniform(), *corners], None if seed is None else seed[0]

    def start(self) -> FrankWolfeState:
        """At the first place to start."""
        return FrankWolfeState(frozen(self._starts[0]), FAILED)

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, state: FrankWolfeState, room: int) -> tuple[FrankWolfeState, tuple[Candidate, ...]]:
        """What is left of the batch; nothing while all of it is out."""
        if state.over is not None or room <= 0:
            return state, ()
        first = len(state.batch)
        proposals = self._batch(state)[first : first + room]
        parents = (state.centre,) if state.centre >= 0 else () if self._seed is None else (-1 - self._seed,)
        candidates = tuple(
            Candidate(
                state.asked + at,
                self._hull.recipe(proposal.weights),
                parents if state.centre >= 0 or state.attempt == 0 else (),
                state.iteration + 1 if state.centre >= 0 else 0,
                state.phase,
                proposal.request,
            )
            for at, proposal in enumerate(proposals)
        )
        batch = (*state.batch, *(None,) * len(candidates))
        return replace(state, asked=state.asked + len(candidates), batch=batch), candidates

    def _batch(self, state: FrankWolfeState) -> list[Proposal]:
        """All candidates of the state's batch."""
        if state.phase == "probe":
            return self._probes(state)
        if state.phase == "step":
            # a line search asks for the slopes of the point that it accepts only
            request = Request(slopes=self._gradients and self._s.step != "line_search")
            return [Proposal(self._point(state, fraction), request) for fraction in self._fractions(state)]
        if state.phase == "detour":
            return [Proposal(self._point(state, _open_loop(state.iteration)), Request(slopes=self._gradients))]
        return [Proposal(state.weights, Request(slopes=self._gradients))]

    def _probes(self, state: FrankWolfeState) -> list[Proposal]:
        """A round of the race. On some of the items the weights themselves are evaluated again, first."""
        race, (start, stop) = known(state.race), self._round(state)
        probes = [races.probe(state.weights, *place, race.epsilon) for place in races.places(race)]
        if stop - start == self._problem.items:
            return [Proposal(weights) for weights in probes]
        request = Request(((start, stop),))
        return [Proposal(weights, request) for weights in (state.weights, *probes)]

    def _round(self, state: FrankWolfeState) -> tuple[int, int]:
        """Which items a round is on: 16, 16 more, 32 more, ...; all of them, if not all are told apart for long."""
        done, items = known(state.race).items, self._problem.items
        if not self._problem.parts or state.inner:
            return 0, items
        return done, min(max(2 * done, self._s.first_items), items)

    def _fractions(self, state: FrankWolfeState) -> tuple[float, ...]:
        if self._s.step == "line_search":
            return FRACTIONS
        return (self._s.step_size if self._s.step == "fixed" else _open_loop(state.iteration),)

    def _point(self, state: FrankWolfeState, fraction: float) -> Floats:
        slopes = known(state.slopes)
        if state.face is None:
            return moved(state.weights, slopes, self._s.direction, fraction)
        return projected(state.weights, np.where(state.face, slopes, np.nan), fraction)

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(self, state: FrankWolfeState, evaluated: Evaluated) -> FrankWolfeState:
        """Note the losses; the last of a batch decides what comes next."""
        candidate, score = evaluated.candidate, evaluated.score
        at = candidate.number - (state.asked - len(state.batch))
        found = FAILED if score is None else self._signal(score)
        batch = (*state.batch[:at], frozen(found), *state.batch[at + 1 :])
        state = replace(state, told=state.told + 1, batch=batch)
        if candidate.request.ranges is None and state.phase != "look":
            hall = enter(state.hall, evaluated, self._problem.objectives[0], self._s.hall_of_fame)
            state = replace(state, hall=hall)
        if score is not None and score.slopes is not None:
            state = replace(state, ahead=frozen(self._hull.slopes(score.slopes)))
        if any(one is None for one in batch) or len(batch) < len(self._batch(state)):
            return state
        return self._next(state, [one if one is not None and one.size else None for one in batch])

    def _signal(self, score: Score) -> Floats:
        """What falls where a model gets better: each item's loss, or its score turned round."""
        values = score.losses if self._s.signal == "losses" else score.items
        if values is None:
            raise StrategyError(f"Frank-Wolfe needs the {self._s.signal} of single items; a score came without them")
        return np.asarray(values, dtype=np.float64) * (1.0 if self._s.signal == "losses" else -1.0)

    def _next(self, state: FrankWolfeState, found: list[Floats | None]) -> FrankWolfeState:
        """The state after a batch."""
        first, state = state.asked - len(state.batch), replace(state, batch=())
        if state.phase == "probe":
            return self._after_round(state, found)
        if state.phase in ("step", "detour"):
            return self._after_step(state, found, first)
        losses = found[0]
        if losses is not None:
            return self._arrived(state, state.weights, losses, state.centre if state.phase == "look" else first)
        if state.phase == "look":
            return replace(state, over="the gradient at the weights could not be had")
        if state.attempt + 1 == len(self._starts):
            return replace(state, over="no place to start from could be scored")
        return replace(state, attempt=state.attempt + 1, weights=frozen(self._starts[state.attempt + 1]))

    def _after_round(self, state: FrankWolfeState, found: list[Floats | None]) -> FrankWolfeState:
        """Another round on more items, unless the race is decided or all items are used."""
        race, (start, stop) = known(state.race), self._round(state)
        whole = stop - start == self._problem.items
        centre, probes = (state.losses, found) if whole else (found[0], found[1:])
        race = races.note(race, centre, probes, stop)
        slopes, errors = races.slopes(race, state.weights)
        size, parts = gap(slopes, state.weights, self._direction)
        error = float(np.sqrt(sum(errors[place] ** 2 for place in parts)))
        state = replace(state, race=race, slopes=frozen(slopes), gap=size, gap_error=error)
        # two of each kind at least, since one uncertain model may look like the best and the worst
        keep, worst = (2, 2) if self._s.mode == "hard" else (max(self._s.vertices, 2), None)
        fewer = races.halved(race, state.weights, self._s.errors, keep, worst)
        decided = (fewer.left == race.left).all() and size > self._s.errors * error
        if stop == self._problem.items or decided or not race.left.any():
            return self._decide(state)
        return replace(state, race=fewer, slopes=None)

    def _after_step(self, state: FrankWolfeState, found: list[Floats | None], first: int) -> FrankWolfeState:
        """To the best point, if the loss is lower there or it is not for the loss to say."""
        fractions = (_open_loop(state.iteration),) if state.phase == "detour" else self._fractions(state)
        means = [np.inf if one is None else float((one - state.losses).mean()) for one in found]
        best = int(np.argmin(means))
        losses = found[best]
        tested = state.phase == "step" and self._s.step == "line_search"
        if tested and not means[best] < 0.0 and state.inner == 0:
            return replace(state, phase="detour")
        stays = losses is None or (tested and not means[best] < 0.0)
        inner = 0 if stays or state.face is None else (state.inner + 1) % self._s.inner_steps
        onward = replace(state, inner=inner, iteration=state.iteration + (inner == 0))
        if losses is None or stays:
            return self._go_on(onward)
        weights = self._point(state, fractions[best])
        return self._arrived(replace(onward, slopes=None), weights, losses, first + best)

    # --- from one batch to the next -----------------------------------------------------------------------------

    def _arrived(self, state: FrankWolfeState, weights: Floats, losses: Floats, number: int) -> FrankWolfeState:
        """At other weights, or with their slopes."""
        state = replace(state, weights=frozen(weights), losses=frozen(losses), centre=number)
        return self._go_on(replace(state, slopes=state.ahead, ahead=None))

    def _go_on(self, state: FrankWolfeState) -> FrankWolfeState:
        """Find out the slopes at the weights, and step."""
        if state.inner == 0:
            state = replace(state, face=None)
        if state.iteration >= self._s.iterations:
            return replace(state, over=f"{self._s.iterations} iterations are done")
        if not self._gradients:
            return self._racing(state, self._s.epsilon)
        return replace(state, phase="look") if state.slopes is None else self._decide(state)

    def _racing(self, state: FrankWolfeState, epsilon: float) -> FrankWolfeState:
        """At the start of a race."""
        return replace(state, phase="probe", slopes=None, race=races.begin(state.weights, epsilon, state.face))

    def _decide(self, state: FrankWolfeState) -> FrankWolfeState:
        """Step, or stop where the gap is nothing or noise; probes are first made shorter, since curvature hides it."""
        slopes, race = known(state.slopes), state.race
        if race is None:
            state = replace(state, gap=gap(slopes, state.weights, self._direction)[0], gap_error=0.0)
        if state.inner == 0 and state.gap <= max(self._s.tolerance, self._s.errors * state.gap_error):
            if race is not None and race.epsilon == self._s.epsilon:
                return self._racing(state, self._s.epsilon / 2)
            noise = "" if race is None else f" (standard error {state.gap_error:.3g})"
            return replace(state, over=f"the gap is {state.gap:.3g}{noise}: no model of the pool helps")
        if self._s.mode == "soft" and state.inner == 0:
            state = replace(state, face=frozen(best_face(state.weights, slopes, self._s.vertices)))
        return replace(state, phase="step")

    # --- looking ----------------------------------------------------------------------------------------------

    def population(self, state: FrankWolfeState) -> tuple[int | None, ...]:
        """The candidate with the weights where the search is."""
        return (state.centre,) if state.centre >= 0 else ()

    def finalists(self, state: FrankWolfeState) -> tuple[int, ...]:
        """The best on all items, best first; probes and line searches are among them."""
        return tuple(number for _, number in state.hall)

    def exhausted(self, state: FrankWolfeState) -> str | None:
        """The gap is nothing or noise, or all iterations are done."""
        return state.over

    def diagnostics(self, state: FrankWolfeState) -> dict[str, float]:
        """Iteration, gap with its standard error, mean loss, and how many models have weight."""
        return {
            "iteration": float(state.iteration),
            "gap": state.gap,
            "gap_error": state.gap_error,
            "loss": float(state.losses.mean()) if state.losses.size else float("nan"),
            "models": float((state.weights > 0.0).any(axis=0).sum()),
        }


def _open_loop(iteration: int) -> float:
    """``2 / (t + 2)`` (Jaggi, ICML 2013)."""
    return 2.0 / (iteration + 2.0)
