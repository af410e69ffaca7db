"""M2N2: its invariants, and a replay of the reference implementation's first thousand steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from evomerge.candidate import Candidate, Evaluated, Recipe, Score
from evomerge.errors import StrategyError
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.competition import Competition, Rules, coverage, entropy, least, pick
from evomerge_strategies.m2n2 import M2N2, Draws, M2N2Settings, M2N2State

DATA = Path(__file__).parents[1] / "data"
PLAIN = Rules(alpha=1.0, capacity="best", subtract_minimum=False)
PROBLEM = Problem(3, ("a", "b"), (Group("all", 100),), (Objective("accuracy"),), items=6)
SOLVED = arrays.arrays(np.bool_, st.tuples(st.integers(2, 6), st.integers(1, 12)))
GRADED = arrays.arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 12)), elements=st.floats(0, 1))


# --- competition and attraction -----------------------------------------------------------------------------------


@given(SOLVED)
def test_binary_payouts_sum_to_the_items_that_somebody_solves(scores: NDArray[np.bool_]) -> None:
    assert Competition.of(scores, PLAIN).payout.sum() == pytest.approx(scores.any(axis=0).sum())


@given(GRADED, st.floats(0, 2))
def test_payouts_sum_to_capacity_times_crowding(scores: NDArray[np.float64], alpha: float) -> None:
    scores = np.where(scores < 1e-3, 0.0, scores)  # z^-alpha of a denormal number overflows
    crowd, capacity = scores.sum(axis=0), scores.max(axis=0)
    paid = crowd > 0
    expected = (capacity[paid] * crowd[paid] ** (1 - alpha)).sum()
    assert Competition.of(scores, Rules(alpha, "best", False)).payout.sum() == pytest.approx(expected)


@given(SOLVED)
def test_alpha_zero_pays_the_plain_score(scores: NDArray[np.bool_]) -> None:
    assert Competition.of(scores, Rules(0.0, "one", False)).payout == pytest.approx(scores.sum(axis=1))


@given(GRADED, st.randoms(use_true_random=False))
def test_the_order_of_items_is_irrelevant(scores: NDArray[np.float64], random: Any) -> None:
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    assert Competition.of(scores, PLAIN).payout == pytest.approx(Competition.of(scores[:, order], PLAIN).payout)


def test_a_twin_halves_what_private_items_pay() -> None:
    scores = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
    twins = np.vstack((scores, scores[:1]))
    assert Competition.of(scores, PLAIN).payout[0] == 2.0
    assert Competition.of(twins, PLAIN).payout[0] == 1.0


@given(SOLVED)
def test_nobody_is_attracted_to_itself_or_to_a_subset(scores: NDArray[np.bool_]) -> None:
    gains = Competition.of(scores, PLAIN).attraction(0)
    assert gains[0] == 0.0
    for other in range(len(scores)):
        assert (gains[other] > 0) == bool((scores[other] & ~scores[0]).any())


@given(SOLVED)
def test_right_or_wrong_attracts_as_numbers_do(scores: NDArray[np.bool_]) -> None:
    graded = Competition(scores.astype(np.float64), PLAIN, binary=False)
    assert Competition.of(scores, PLAIN).attraction(0) == pytest.approx(graded.attraction(0))


def test_the_lowest_of_all_item_scores_is_taken_off_first_when_asked() -> None:
    scores = np.array([[0.5, 0.9], [0.5, 0.4]])
    assert Competition.of(scores, Rules(1.0, "best", True)).payout == pytest.approx([0.5, 0.0])


def test_equal_payouts_evict_the_lowest_index_whatever_the_rounding() -> None:
    third = 1.0 / 3.0
    assert least(np.array([1.0, third + third + third - 1e-16, 1.0])) == 0


def test_roulette_never_lands_on_a_zero() -> None:
    weights = np.array([0.0, 2.0, 0.0, 1.0, 0.0])
    assert {pick(weights, u) for u in np.linspace(0, 1, 50, endpoint=False)} == {1, 3}


def test_coverage_and_entropy_of_known_archives() -> None:
    half = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert coverage(half) == 0.5
    assert entropy(half) == 0.5
    assert entropy(np.ones((3, 4))) == 0.0


# --- the steady state ---------------------------------------------------------------------------------------------


def told(strategy: M2N2, state: M2N2State, candidate: Candidate, items: list[int]) -> M2N2State:
    row = np.array(items, dtype=bool)
    return strategy.tell(state, Evaluated(candidate, Score((("accuracy", float(row.mean())),), row)))


def with_seeds(strategy: M2N2, *rows: list[int]) -> M2N2State:
    state, seeds = strategy.ask(strategy.start(), len(rows))
    for seed, row in zip(seeds, rows, strict=True):
        state = told(strategy, state, seed, row)
    return state


def test_children_wait_for_all_seeds() -> None:
    strategy = M2N2(M2N2Settings(), PROBLEM)
    state, seeds = strategy.ask(strategy.start(), 8)
    assert [seed.origin for seed in seeds] == ["seed", "seed"]
    assert strategy.ask(told(strategy, state, seeds[0], [1, 0, 0, 0, 0, 0]), 8)[1] == ()


def test_empty_slots_fill_first_and_are_never_parents() -> None:
    strategy = M2N2(M2N2Settings(population=4), PROBLEM)
    state = with_seeds(strategy, [1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0])
    assert strategy.population(state) == (0, 1, None, None)
    _, children = strategy.ask(state, 30)
    assert {parent for child in children for parent in child.parents} == {0, 1}
    assert all(child.parents[0] != child.parents[1] for child in children)


def test_the_least_paid_makes_room_and_a_useless_child_is_discarded() -> None:
    strategy = M2N2(M2N2Settings(population=2), PROBLEM)
    state = with_seeds(strategy, [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0])
    state, (first,) = strategy.ask(state, 1)
    state = told(strategy, state, first, [0, 0, 0, 1, 1, 0])
    assert strategy.population(state) == (0, first.number)
    state, (second,) = strategy.ask(state, 1)
    state = told(strategy, state, second, [0, 0, 0, 0, 0, 0])
    assert strategy.population(state) == (0, first.number)


def test_the_hall_of_fame_remembers_whom_the_archive_lost() -> None:
    strategy = M2N2(M2N2Settings(population=2, hall_of_fame=2), PROBLEM)
    state = with_seeds(strategy, [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0])
    state, (child,) = strategy.ask(state, 1)
    state = told(strategy, state, child, [0, 0, 0, 0, 1, 1])
    assert 0 not in strategy.population(state)
    assert strategy.finalists(state) == (0, 1)


def test_no_mate_with_anything_to_offer_falls_back_to_payout_among_the_others_and_is_counted() -> None:
    strategy = M2N2(M2N2Settings(), PROBLEM)
    state = with_seeds(strategy, [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0])
    state, children = strategy.ask(state, 10)
    assert all(child.parents[0] != child.parents[1] for child in children)
    assert state.no_attraction == 10


def test_without_attraction_parents_are_independent() -> None:
    strategy = M2N2(M2N2Settings(attraction=False), PROBLEM)
    _, children = strategy.ask(with_seeds(strategy, [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]), 60)
    assert any(child.parents[0] == child.parents[1] for child in children)


def test_every_group_has_its_own_split_and_weight() -> None:
    groups = (Group("attention", 40), Group("rest", 60))
    strategy = M2N2(M2N2Settings(), Problem(3, ("a", "b"), groups, PROBLEM.objectives, items=6))
    state = with_seeds(strategy, [1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0])
    _, children = strategy.ask(state, 20)
    for child in children:
        for group in groups:
            mine = [s for s in child.recipe.segments if s.group == group.name]
            assert mine[0].start == 0
            assert mine[-1].stop == group.size
            assert len(mine) == 1 or mine[0].values[0] == pytest.approx(1 - mine[1].values[0])
    weights = {child.recipe.segments[-1].values for child in children} | {
        child.recipe.segments[0].values for child in children
    }
    assert len(weights) == 40


@pytest.mark.parametrize(
    ("settings", "operator", "sources", "noisy"),
    [
        (M2N2Settings(split_point=False), "slerp", 2, False),
        (M2N2Settings(crossover=False, mutation=0.1), "linear", 1, True),
        (M2N2Settings(mutation=0.1), "slerp", 2, True),
    ],
)
def test_switches_shape_the_recipe(settings: M2N2Settings, operator: str, sources: int, noisy: bool) -> None:
    strategy = M2N2(settings, PROBLEM)
    _, (child,) = strategy.ask(with_seeds(strategy, [1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]), 1)
    assert child.recipe.operator == operator
    assert len(child.recipe.sources) == sources
    assert (child.recipe.noise is not None) == noisy
    assert settings.split_point or len(child.recipe.segments) == 1


def test_a_search_whose_seeds_fail_says_so() -> None:
    strategy = M2N2(M2N2Settings(), PROBLEM)
    state, seeds = strategy.ask(strategy.start(), 2)
    state = told(strategy, state, seeds[0], [1, 0, 0, 0, 0, 0])
    state = strategy.tell(state, Evaluated(seeds[1], failure="broken"))
    assert strategy.ask(state, 1)[1] == ()
    assert "1 of 2 starting models" in (strategy.exhausted(state) or "")


def test_a_fitness_without_item_scores_is_refused() -> None:
    with pytest.raises(StrategyError, match="score for each item"):
        M2N2(M2N2Settings(), Problem(0, ("a", "b"), PROBLEM.groups, PROBLEM.objectives))


# --- the reference, replayed --------------------------------------------------------------------------------------


@pytest.fixture
def trace() -> dict[str, NDArray[Any]]:
    with np.load(DATA / "m2n2_digits_replay.npz") as file:
        return {name: file[name] for name in file.files}


class Digits:
    """The digits experiment in plain numpy: builds a recipe's vector and says which training items it gets right."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        self.images, self.labels = data.data.astype(np.float32), data.target
        with np.load(DATA / "m2n2_digits_seeds.npz") as file:
            self.pool = {"pool:low": file["seed_1"], "pool:high": file["seed_2"]}
        self.built: dict[str, NDArray[np.float32]] = {}

    def build(self, recipe: Recipe) -> NDArray[np.float32]:
        if recipe.operator == "linear":
            vector = self.pool[recipe.sources[0]]
        else:
            one, two = (self.built[source.removeprefix("recipe:")] for source in recipe.sources)
            vector = self._slerp(one, two, recipe)
        self.built[recipe.digest] = vector
        return vector

    def _slerp(self, one: NDArray[np.float32], two: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
        a, b = one.astype(np.float64), two.astype(np.float64)
        angle = np.arccos(np.clip((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()), -1, 1))
        out = np.empty_like(one)
        for segment in recipe.segments:
            (t,), where = segment.values, slice(segment.start, segment.stop)
            if np.sin(angle) > 1e-6:
                first, second = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
            else:
                first, second = 1 - t, t
            out[where] = np.float32(first) * one[where] + np.float32(second) * two[where]
        return out

    def solved(self, vector: NDArray[np.float32], items: slice) -> NDArray[np.bool_]:
        w1, b1, w2, b2 = np.split(vector, np.cumsum([64 * 256, 256, 2560]))
        hidden = np.maximum(self.images[items] @ w1.reshape(64, 256) + b1, 0)
        return np.asarray((hidden @ w2.reshape(256, 10) + b2).argmax(axis=1) == self.labels[items])


def replay(trace: dict[str, NDArray[Any]], steps: int) -> Iterator[tuple[int, M2N2State, M2N2State, Candidate, Any]]:
    """Our M2N2 with the reference's random numbers: step, state before, state after, child, its row of items."""

    def draws(number: int) -> Draws:
        at = number - 2
        u_a, u_b, w = (float(trace[name][at]) for name in ("u_a", "u_b", "w"))
        return Draws(u_a, u_b, (int(trace["split"][at]),), (w,))

    problem = Problem(42, ("low", "high"), (Group("all", 19_210),), (Objective("accuracy"),), items=1437)
    strategy, digits = M2N2(M2N2Settings(), problem, draws), Digits()
    state = strategy.start()
    for number in range(steps + 2):
        before, (child,) = strategy.ask(state, 1)
        row = digits.solved(digits.build(child.recipe), slice(0, 1437))
        state = strategy.tell(before, Evaluated(child, Score((("accuracy", float(row.mean())),), row)))
        yield number - 2, before, state, child, row


def test_a_thousand_steps_of_the_reference_are_repeated_exactly(trace: dict[str, NDArray[Any]]) -> None:
    strategy = M2N2(M2N2Settings(), PROBLEM)
    for step, before, after, child, row in replay(trace, 1000):
        if step < 0:
            continue
        slots = [strategy.population(before).index(parent) for parent in child.parents]
        assert slots == [trace["parent_a"][step], trace["parent_b"][step]], f"parents at step {step}"
        assert (np.packbits(row) == trace["rows"][step]).all(), f"items at step {step}"
        changed = [
            slot
            for slot, (old, new) in enumerate(zip(strategy.population(before), strategy.population(after), strict=True))
            if old != new
        ]
        assert changed == ([] if trace["replaced"][step] < 0 else [trace["replaced"][step]]), f"slot at step {step}"
    best = int(after.scores.sum(axis=1).max())
    assert best == trace["best_correct"][999] == 1097
