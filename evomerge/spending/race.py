"""Racing: a candidate is dropped as soon as the items it has seen say that it does not reach the best one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evomerge.candidate import Candidate, Evaluated
from evomerge.errors import StrategyError
from evomerge.settings import EvaluationSettings
from evomerge.spending.abilities import log_odds, mixture, predicted
from evomerge.spending.evidence import difference_estimate, is_worse, quantile
from evomerge.spending.rounds import Floats, Running, begun, boundaries
from evomerge.spending.wrapper import Job, Wrapper, WrapperState
from evomerge.strategy import Problem, Strategy


@dataclass(frozen=True)
class RaceState(WrapperState):
    """Beside the numbers: who runs, and whom they run against.

    ``incumbent`` is the best one scored on all items; ``references`` are the rows of the first ones, (models, items).
    """

    running: tuple[Running, ...]
    incumbent: Running | None
    references: Floats
    dropped: int


class Race(Wrapper):
    """See the module's docstring.

    The first candidates, as many as the pool has members, are scored on all items. Every later one is compared with
    the incumbent after each round, item by item, and told with an estimate if it is dropped: the incumbent's value less
    the mean difference (``paired``), or what the abilities of the first candidates predict (``irt``), see `evidence`.
    A candidate that is at least as good as the incumbent is dropped with probability 1 - confidence at most: for
    right/wrong items by the betting test, which holds exactly; for others, and for ``irt``, by a t bound on the
    estimate at (1 - confidence)/(rounds - 1) a look (Bonferroni), which holds as far as means are normal.
    """

    Kept = RaceState

    def __init__(self, settings: EvaluationSettings, inner: Strategy[Any], problem: Problem) -> None:
        super().__init__(inner, problem)
        self._s, self._items, self._first_ones = settings, problem.items, max(len(problem.members), 1)
        self._ends = boundaries(settings.first, problem.items)

    def _nothing(self) -> tuple[Any, ...]:
        return (), None, np.zeros((0, self._items)), 0

    def _admit(self, state: RaceState, candidate: Candidate) -> Any:
        end = self._items if candidate.number < self._first_ones else self._ends[0]
        runner = begun(candidate)
        queue = (*state.queue, Job(candidate, runner.request(end)))
        return replace(state, running=(*state.running, runner), queue=queue)

    def _hear(self, state: RaceState, job: Job, evaluated: Evaluated) -> Any:
        before = next(one for one in state.running if one.candidate.number == job.candidate.number)
        state = replace(state, running=tuple(one for one in state.running if one is not before))
        if evaluated.score is None:
            return self._end(state, job.candidate, None, evaluated.failure, whole=False)
        after = before.with_round(evaluated.score, self._objective, job.request.size or 0)
        if after.seen == self._items:
            return self._arrive(state, after)
        estimate = self._hopeless(state, after)
        if estimate is not None:
            note = f"from {after.seen} of {self._items} items, standard error {estimate[1]:.3g}; dropped"
            score = after.score(self._objective, estimate[0], note)
            return self._end(replace(state, dropped=state.dropped + 1), job.candidate, score, None, whole=False)
        end = next(end for end in self._ends if end > after.seen)
        queue = (*state.queue, Job(job.candidate, after.request(end)))
        return replace(state, running=(*state.running, after), queue=queue)

    def _arrive(self, state: RaceState, one: Running) -> Any:
        """It has seen all items."""
        if state.incumbent is None or one.rows.mean() > state.incumbent.rows.mean():
            state = replace(state, incumbent=one)
        if self._s.estimator == "irt" and one.candidate.number < self._first_ones:
            state = replace(state, references=np.vstack([state.references, _answers(one.rows)]))
        return self._end(state, one.candidate, one.score(self._objective), None, whole=True)

    def _hopeless(self, state: RaceState, one: Running) -> tuple[float, float] | None:
        """Its estimate and that one's standard error, if it does not reach the incumbent; None: it may."""
        best, level = state.incumbent, 1 - self._s.confidence
        if best is None:
            return None
        expected, fitted = best.rows, 0.0
        if len(state.references):
            odds = log_odds(state.references)
            weights = mixture(odds, _answers(one.rows))
            expected, fitted = predicted(odds, weights), float(np.count_nonzero(weights > 1e-3) - 1)
        value, error = difference_estimate(one.rows, expected, fitted)
        if expected is best.rows and one.right and best.right:
            worse = is_worse(best.rows[: one.seen] - one.rows, self._items, level)
        else:
            looks = len(self._ends) - 1
            bound = quantile(1 - level / looks, one.seen - 1 - fitted) * error
            worse = error > 0 and value + bound < best.rows.mean()
        return (value, error) if worse else None

    def diagnostics(self, state: RaceState) -> dict[str, float]:
        """The inner strategy's, and how many candidates were scored on all items or dropped before."""
        counts = {"whole": float(state.whole.sum()), "dropped": float(state.dropped)}
        return super().diagnostics(state) | counts


def _answers(rows: Floats) -> Floats:
    """The rows, if they can be answers.

    Raises:
        StrategyError: they are not in [0, 1].
    """
    if rows.size and (rows.min() < 0 or rows.max() > 1):
        raise StrategyError(
            "evaluation.estimator irt needs scores from 0 to 1 for each item of an objective to maximize; use paired"
        )
    return rows
