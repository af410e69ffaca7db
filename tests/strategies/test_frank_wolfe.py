"""Frank-Wolfe on quadratic losses, where hull, minimum, slopes and gap are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Recipe, Score, Segment
from evomerge.errors import StrategyError
from evomerge.merge.operators.ties import Ties
from evomerge.space import OperatorSpace
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.frank_wolfe import FrankWolfe, FrankWolfeSettings, FrankWolfeState

Floats = NDArray[np.float64]
ITEMS, SIZE = 200, 6


class Landscape:
    """Item j has loss ``(x_j . theta - y_j)^2 / 2``; theta is two groups of three numbers."""

    def __init__(self, members: int, seed: int = 0, noise: float = 0.3, **problem: Any) -> None:
        random = np.random.default_rng(seed)
        self.models = random.standard_normal((members + 1, SIZE))  # the base is the last
        target = random.dirichlet(np.ones(3)) @ self.models[:3]
        self.x = random.standard_normal((ITEMS, SIZE))
        self.y = self.x @ target + noise * random.standard_normal(ITEMS)
        self.problem = Problem(
            seed=1,
            members=tuple(f"m{at}" for at in range(members)),
            groups=(Group("first", 3), Group("second", 3)),
            objectives=(Objective("loss", "minimize"),),
            items=ITEMS,
            base="base",
            losses=True,
            parts=True,
            slopes=True,
        )
        self.problem = replace(self.problem, **problem)

    def weights(self, recipe: Recipe) -> Floats:
        """(groups, members and base)."""
        names = [f"pool:{name}" for name in (*self.problem.members, "base")]
        found = np.zeros((2, len(names)))
        for row, segment in zip(found, recipe.segments, strict=True):
            for source, value in zip(recipe.sources, segment.values, strict=True):
                row[names.index(source)] += value
        return found

    def theta(self, weights: Floats) -> Floats:
        return np.concatenate([weights[0] @ self.models[:, :3], weights[1] @ self.models[:, 3:]])

    def losses(self, weights: Floats) -> Floats:
        return np.square(self.x @ self.theta(weights) - self.y) / 2

    def slopes(self, weights: Floats) -> Floats:
        theta = self.theta(weights)
        gradient = self.x.T @ (self.x @ theta - self.y) / ITEMS
        products = (self.models - theta) * gradient
        return np.stack([products[:, :3].sum(axis=1), products[:, 3:].sum(axis=1)])

    def judge(self, candidate: Candidate) -> Evaluated:
        weights, request = self.weights(candidate.recipe), candidate.request
        losses = self.losses(weights)
        if request.ranges is not None:
            losses = np.concatenate([losses[start:stop] for start, stop in request.ranges])
        slopes = self.slopes(weights) if request.slopes else None
        objective = (("loss", float(losses.mean())),)
        return Evaluated(candidate, Score(objective, losses < 0.1, losses, slopes=slopes))

    def least(self, whole: bool = True) -> float:
        """The least loss on the hull, by many small projected gradient steps."""
        from evomerge.space import on_simplex

        weights = np.full((2, len(self.models)), 1.0 / len(self.models))
        for _ in range(3000):
            slopes = self.slopes(weights)
            if whole:
                slopes = np.broadcast_to(slopes.sum(axis=0), slopes.shape)
            weights = np.array([on_simplex(w - 0.05 * d) for w, d in zip(weights, slopes, strict=True)])
        return float(self.losses(weights).mean())


def drive(
    settings: FrankWolfeSettings, landscape: Landscape, judge: Callable[[Candidate], Evaluated] | None = None
) -> tuple[FrankWolfeState, list[tuple[Candidate, Evaluated]], list[FrankWolfeState]]:
    """Until it is exhausted: the last state, all evaluations, and the states on the way."""
    strategy = FrankWolfe(settings, landscape.problem)
    state, history, states = strategy.start(), list[tuple[Candidate, Evaluated]](), list[FrankWolfeState]()
    for _ in range(2000):
        state, asked = strategy.ask(state, 7)
        if not asked:
            assert strategy.exhausted(state) is not None
            return state, history, states
        for candidate in asked:
            evaluated = (judge or landscape.judge)(candidate)
            history.append((candidate, evaluated))
            state = strategy.tell(state, evaluated)
            states.append(state)
    raise AssertionError("it never ended")


def whole(history: list[tuple[Candidate, Evaluated]]) -> list[float]:
    return [one.score["loss"] for candidate, one in history if one.score and candidate.request.ranges is None]


ALL = [
    FrankWolfeSettings(oracle, mode=mode, direction=direction, per_group=per_group, step=step)  # type: ignore[arg-type]
    for oracle, mode, direction, per_group, step in [
        ("slopes", "hard", "pairwise", False, "line_search"),
        ("slopes", "hard", "away", True, "open_loop"),
        ("slopes", "soft", "pairwise", True, "line_search"),
        ("slopes", "soft", "pairwise", False, "fixed"),
        ("probes", "hard", "pairwise", True, "line_search"),
        ("probes", "hard", "frank_wolfe", False, "open_loop"),
        ("probes", "hard", "away", False, "line_search"),
        ("probes", "soft", "pairwise", False, "line_search"),
    ]
]


@pytest.mark.parametrize("settings", ALL)
def test_everything_proposed_is_a_mixture_and_the_loss_falls(settings: FrankWolfeSettings) -> None:
    landscape = Landscape(8)
    state, history, _ = drive(settings, landscape)
    for candidate, _ in history:
        weights = landscape.weights(candidate.recipe)
        assert (weights >= 0.0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
        if not settings.per_group:
            assert (weights[0] == weights[1]).all()
    start, best = whole(history)[0], min(whole(history))
    least = landscape.least(whole=not settings.per_group)
    assert best - least < 0.25 * (start - least)
    finalists = FrankWolfe(settings, landscape.problem).finalists(state)
    assert history[finalists[0]][1].score["loss"] == best  # type: ignore[index]


@pytest.mark.parametrize("direction", ["pairwise", "away"])
def test_pairwise_and_away_steps_come_close_to_the_minimum(direction: Any) -> None:
    landscape = Landscape(8, seed=2)
    _, history, states = drive(FrankWolfeSettings("slopes", direction=direction, iterations=60), landscape)
    least, best = landscape.least(), min(whole(history))
    assert best - least < 1e-3
    for state in states:  # the gap bounds the error of a convex loss
        if state.slopes is not None and state.phase == "step":
            assert state.gap >= state.losses.mean() - least - 1e-9


def test_a_line_search_accepts_only_lower_losses() -> None:
    _, _, states = drive(FrankWolfeSettings("probes", iterations=8), Landscape(8, seed=3))
    detours = {state.iteration + 1 for state in states if state.phase == "detour"}
    means: dict[int, float] = {}
    for state in states:
        if state.centre >= 0:
            means.setdefault(state.iteration, float(state.losses.mean()))
    steps = [at for at in means if at > 0 and at not in detours]
    assert steps
    assert all(means[at] < means[at - 1] for at in steps)


def test_probes_choose_and_stop_as_gradients_do_and_cost_less_than_all_items() -> None:
    landscape = Landscape(15, seed=4)
    _, probed, _ = drive(FrankWolfeSettings("probes"), landscape)
    _, steep, _ = drive(FrankWolfeSettings("slopes"), landscape)
    assert min(whole(probed)) < min(whole(steep)) + 0.05 * (whole(steep)[0] - min(whole(steep)))
    probes = [candidate.request.size or ITEMS for candidate, _ in probed if candidate.origin == "probe"]
    assert np.mean(probes) < ITEMS / 2


def test_slopes_of_probes_tend_to_the_gradients() -> None:
    landscape = Landscape(5, parts=False, slopes=False)
    errors = []
    for epsilon in (0.3, 0.03, 0.003):
        settings = FrankWolfeSettings(epsilon=epsilon, errors=0.0, start="uniform", iterations=1)
        _, _, states = drive(settings, landscape)
        found = next(state for state in states if state.slopes is not None)
        exact = landscape.slopes(np.broadcast_to(found.weights, (2, 6))).sum(axis=0)
        errors.append(np.abs(found.slopes[0] - exact).max())  # type: ignore[index]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


@pytest.mark.parametrize("oracle", ["slopes", "probes"])
def test_one_group_is_the_whole_model(oracle: Any) -> None:
    """The same weights, step by step, where there is one group only."""
    landscape = Landscape(5)
    found = []
    for per_group in (False, True):
        one = Landscape(5)
        one.problem = replace(one.problem, groups=(Group("all", 6),))
        one.weights = lambda recipe, of=landscape: of.weights(  # type: ignore[method-assign]
            replace(recipe, segments=recipe.segments * 2)
        )
        original = one.slopes
        one.slopes = lambda weights, of=original: of(weights).sum(axis=0, keepdims=True)  # type: ignore[method-assign]
        state, _, _ = drive(FrankWolfeSettings(oracle, per_group=per_group), one)
        found.append(state.weights)
    np.testing.assert_array_equal(*found)


def test_it_stops_where_no_model_helps() -> None:
    landscape = Landscape(6, noise=0.0)
    best = landscape.models[0].copy()
    landscape.y = landscape.x @ best
    for oracle in ("slopes", "probes"):
        settings = FrankWolfeSettings(oracle, direction="frank_wolfe", tolerance=1e-9, iterations=50)  # type: ignore[arg-type]
        state, _, _ = drive(settings, landscape)
        assert state.weights[0, 0] == 1.0
        assert "no model of the pool helps" in str(state.over)


def test_the_base_is_a_vertex_only_where_it_is_no_member() -> None:
    landscape = Landscape(3)
    for base, models in (("base", 4), ("m1", 3), (None, 3)):
        strategy = FrankWolfe(FrankWolfeSettings(), replace(landscape.problem, base=base))
        assert strategy.start().weights.shape == (1, models)


def test_the_best_of_an_earlier_stage_is_where_it_starts() -> None:
    def recipe(operator: str, sources: tuple[str, ...], values: tuple[float, ...]) -> Recipe:
        return Recipe(operator, sources, (Segment("first", 0, 3, values), Segment("second", 0, 3, values)))

    outside = recipe("task_arithmetic", ("pool:base", "pool:m0", "pool:m1"), (0.9, 0.9))
    inside = recipe("task_arithmetic", ("pool:base", "pool:m0", "pool:m1"), (0.2, 0.5))
    strategy = FrankWolfe(FrankWolfeSettings(), Landscape(3, seeds=(outside, inside)).problem)
    np.testing.assert_allclose(strategy.start().weights, [[0.2, 0.5, 0.0, 0.3]])
    _, (first,) = strategy.ask(strategy.start(), 1)
    assert first.parents == (-2,)


@pytest.mark.parametrize("oracle", ["slopes", "probes"])
@pytest.mark.parametrize("every", [2, 3, 1])
def test_failures_end_nothing_in_a_crash(oracle: Any, every: int) -> None:
    landscape, count = Landscape(4), iter(range(10**6))

    def judge(candidate: Candidate) -> Evaluated:
        return Evaluated(candidate, failure="no") if next(count) % every == 0 else landscape.judge(candidate)

    state, history, _ = drive(FrankWolfeSettings(oracle), landscape, judge)
    finalists = FrankWolfe(FrankWolfeSettings(oracle), landscape.problem).finalists(state)
    assert all(history[number][1].score is not None for number in finalists)
    if every == 1:
        assert "no place to start from" in str(state.over)


def test_constant_losses_end_at_once() -> None:
    landscape = Landscape(4)
    landscape.losses = lambda weights: np.ones(ITEMS)  # type: ignore[method-assign]
    state, _, _ = drive(FrankWolfeSettings("probes"), landscape)
    assert "gap is 0" in str(state.over)


def test_weights_go_to_an_operator() -> None:
    declared = Ties.declaration("ties")
    landscape = Landscape(3, operators=(declared,))
    space = OperatorSpace("operator", "ties", fixed={"density": 0.4})
    strategy = FrankWolfe(FrankWolfeSettings(start="uniform", merge=space), landscape.problem)
    state, (first,) = strategy.ask(strategy.start(), 1)
    assert first.recipe.operator == "ties"
    assert first.recipe.sources == ("pool:base", "pool:m0", "pool:m1", "pool:m2")
    third = 1 / 3
    lam = next(one.default for one in declared.parameters if one.name == "lambda")
    assert first.recipe.segments[0].values == pytest.approx((third, third, third, 0.4, 0.4, 0.4, lam))
    losses = np.arange(ITEMS, dtype=float)
    state = strategy.tell(state, Evaluated(first, Score((("loss", 1.0),), losses < 1, losses)))
    _, probes = strategy.ask(state, 5)
    assert [probe.origin for probe in probes] == ["probe"] * 5  # oracle: auto takes no gradients of another merge


@pytest.mark.parametrize(
    ("settings", "problem", "message"),
    [
        ({}, {"losses": False}, "needs losses of single items"),
        ({}, {"items": 0}, "needs losses of single items"),
        ({"signal": "items"}, {"items": 0}, "needs scores of single items"),
        ({"oracle": "slopes"}, {"slopes": False}, "needs a fitness with gradients"),
        ({"start": "base"}, {"base": None}, "start: base needs a base"),
        ({}, {"members": ()}, "needs at least 1 pool members"),
        ({"merge": OperatorSpace("operator", "plain")}, {}, "leaves none to search"),
        ({"merge": OperatorSpace("operator", "ties", search={"density": (0.1, 0.9)})}, {}, "give 'density' a value"),
        ({"merge": OperatorSpace("operator", "ties", shared=("weight",))}, {}, "leaves none to search"),
    ],
)
def test_what_cannot_be_done_is_refused(settings: Any, problem: Any, message: str) -> None:
    from evomerge.parameter import Declaration

    operators = (Ties.declaration("ties"), Declaration("plain"))
    known = replace(Landscape(3).problem, operators=operators, **problem)
    with pytest.raises(StrategyError, match=message):
        FrankWolfe(FrankWolfeSettings(**settings), known)
