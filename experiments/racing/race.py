"""How many item evaluations does stopping early save, and how often does it change the winner?

Usage: python experiments/racing/race.py [--repetitions 20] [--evaluations 128]

Real per-item results: merges of six Fashion-MNIST experts, each scored on 1,000 held-out training images. A repetition
is a seed of the strategy and of the order of the items. Writes results.json beside this file; report.py reads it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from experts import CLASSES, Images, experts, images, scores

from evomerge.candidate import MEMBER, Candidate, Evaluated, Score
from evomerge.itemorder import chosen, item_order
from evomerge.settings import EvaluationSettings
from evomerge.space import WeightSpace
from evomerge.spending import wrapped
from evomerge.strategy import Group, Objective, Problem, Strategy
from evomerge_strategies.cma_es import CMAES, CMAESSettings
from evomerge_strategies.random_search import RandomSearch, RandomSearchSettings

HERE = Path(__file__).parent
ITEMS = 1000
WINDOW = 8
ACCURACY, LOSS = Objective("accuracy"), Objective("cross_entropy", "minimize")
SIMPLEX = WeightSpace("simplex")
POLICIES = {
    "whole": EvaluationSettings(),
    "race 95 %": EvaluationSettings(stop="race"),
    "race 80 %": EvaluationSettings(stop="race", confidence=0.8),
    "race 95 %, irt": EvaluationSettings(stop="race", estimator="irt"),
    "halving": EvaluationSettings(stop="halving"),
}


@dataclass
class Bench:
    """The experts and the images; remembers what merges scored."""

    pool: np.ndarray
    search: Images
    report: Images
    known: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def vector(self, candidate: Candidate) -> np.ndarray:
        """The merge."""
        places = [int(source.removeprefix(MEMBER)) for source in candidate.recipe.sources]
        return np.asarray(candidate.recipe.segments[0].values, dtype=np.float32) @ self.pool[places]

    def rows(self, candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
        """Its answers and losses on all search items."""
        digest = candidate.recipe.digest
        if digest not in self.known:
            self.known[digest] = scores(self.vector(candidate), self.search)
        return self.known[digest]

    def value(self, candidate: Candidate, objective: Objective) -> float:
        """What it gains on all search items."""
        right, losses = self.rows(candidate)
        return float(right.mean()) if objective is ACCURACY else -float(losses.mean())

    def evaluated(self, candidate: Candidate, order: np.ndarray) -> Evaluated:
        """What the study's fitness would say to the candidate's request."""
        right, losses = self.rows(candidate)
        if candidate.request.ranges is not None:
            places = chosen(order, candidate.request.ranges)
            right, losses = right[places], losses[places]
        objectives = ((ACCURACY.name, float(right.mean())), (LOSS.name, float(losses.mean())))
        return Evaluated(candidate, Score(objectives, right, losses))


class Watched:
    """Stands before the inner strategy, notes what it is told and who led at that moment, and ends it at a limit."""

    def __init__(self, inner: Strategy[Any], bench: Bench, objective: Objective, limit: int) -> None:
        self._inner, self._bench, self._objective, self._limit = inner, bench, objective, limit
        self.State, self.needs_whole = inner.State, inner.needs_whole
        self.told: list[tuple[bool, float, float, float]] = []  # dropped, true gain, leader's gain, told gain
        self._leads = -np.inf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def ask(self, state: Any, room: int) -> tuple[Any, tuple[Candidate, ...]]:
        """No more than the limit in all."""
        room = min(room, self._limit - state.asked)
        return self._inner.ask(state, room) if room > 0 else (state, ())

    def tell(self, state: Any, evaluated: Evaluated) -> Any:
        """Note it and pass it on."""
        assert evaluated.score is not None
        gain, dropped = self._bench.value(evaluated.candidate, self._objective), bool(evaluated.score.notes)
        told = self._objective.gain(evaluated.score[self._objective.name])
        self.told.append((dropped, gain, self._leads, told))
        if not dropped:
            self._leads = max(self._leads, gain)
        return self._inner.tell(state, evaluated)


def played(
    bench: Bench, kind: str, objective: Objective, settings: EvaluationSettings, *, seed: int, stop: dict[str, int]
) -> dict[str, float]:
    """One search of so many ``candidates``, or for so many ``items``."""
    others = (ACCURACY, LOSS) if objective is ACCURACY else (LOSS, ACCURACY)
    names = tuple(str(at) for at in range(len(CLASSES)))
    problem = Problem(seed, names, (Group("all", bench.pool.shape[1]),), others, ITEMS, losses=True, parts=True)
    made: Any = (
        RandomSearch(RandomSearchSettings(SIMPLEX), problem)
        if kind == "random"
        else CMAES(CMAESSettings(WeightSpace("linear", -0.5, 1.0)), problem)
    )
    watched = Watched(made, bench, objective, stop.get("candidates", 10**9))
    strategy = wrapped(watched, settings, problem)  # type: ignore[arg-type]
    order = item_order("auto", ITEMS, bench.search.labels, seed)
    state, queue, items, candidates = strategy.start(), list[Candidate](), 0, dict[int, Candidate]()
    while items < stop.get("items", 10**9):
        state, asked = strategy.ask(state, WINDOW - len(queue))
        queue += asked
        if not queue:
            break
        candidates |= {one.number: one for one in asked}
        items += queue[0].request.size or ITEMS
        state = strategy.tell(state, bench.evaluated(queue.pop(0), order))
    winner = candidates[strategy.finalists(state)[0]]
    return summary(bench, objective, watched, winner, items)


def summary(bench: Bench, objective: Objective, watched: Watched, winner: Candidate, items: int) -> dict[str, float]:
    told = np.array(watched.told)
    dropped, gain, leader = told[:, 0] > 0, told[:, 1], told[:, 2]
    good = gain >= leader
    right, _ = scores(bench.vector(winner), bench.report)
    return {
        "items": items,
        "candidates": len(told),
        "dropped": int(dropped.sum()),
        "good": int(good.sum()),
        "good_dropped": int((good & dropped).sum()),
        "estimate_error": float(np.abs(told[dropped, 3] - gain[dropped]).mean()) if dropped.any() else 0.0,
        "best_seen": float(gain.max()),
        "winner": bench.value(winner, objective),
        "report_accuracy": float(right.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=128)
    given = parser.parse_args()
    train, report = images("train"), images("t10k")
    pool = experts(train.part(slice(0, 50_000)))
    bench = Bench(pool, train.part(slice(50_000, 50_000 + ITEMS)), report)
    print("experts:", [round(float(scores(one, bench.search)[0].mean()), 3) for one in pool])
    results: list[dict[str, Any]] = []
    for seed in range(given.repetitions):
        bench.known.clear()
        for kind, objective, limit in (
            ("random", ACCURACY, {"candidates": given.evaluations}),
            ("random", LOSS, {"candidates": given.evaluations}),
            ("cma", ACCURACY, {"items": given.evaluations * ITEMS}),
            ("cma", LOSS, {"items": given.evaluations * ITEMS}),
        ):
            for name, settings in POLICIES.items():
                if settings.estimator == "irt" and objective is LOSS:
                    continue
                found = played(bench, kind, objective, settings, seed=seed, stop=limit)
                results.append({"strategy": kind, "objective": objective.name, "policy": name, "seed": seed} | found)
        print("repetition", seed, "done", flush=True)
    (HERE / "results.json").write_text(json.dumps(results, indent=0) + "\n")


if __name__ == "__main__":
    main()
