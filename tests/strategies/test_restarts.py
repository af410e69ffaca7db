"""Which run follows which: IPOP's and BIPOP's rules, and how BIPOP shares out evaluations."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evomerge_strategies.restarts import AtStop, Run, following

lengths = st.lists(st.integers(20, 4000), min_size=1, max_size=12)


def runs(rule: AtStop, spent: list[int], seed: int = 0) -> list[tuple[Run, int]]:
    """The first run, of 8 candidates, and those after it; each spends what it is given, or its limit."""
    random = np.random.default_rng(seed)
    over = [(Run(8), spent[0])]
    for evaluations in spent[1:]:
        run = following(rule, over, random)
        over.append((run, evaluations if math.isinf(run.limit) else min(evaluations, math.ceil(run.limit))))
    return over


@given(lengths)
def test_ipop_doubles_the_population_and_again_never_does(spent: list[int]) -> None:
    assert [run.popsize for run, _ in runs("ipop", spent)] == [8 * 2**k for k in range(len(spent))]
    assert {run.popsize for run, _ in runs("again", spent)} == {8}


@given(lengths, st.integers(0, 5))
def test_bipop_gives_both_regimes_the_same_and_keeps_small_runs_small(spent: list[int], seed: int) -> None:
    found = runs("bipop", spent, seed)
    large = [run for run, _ in found if run.regime == "large"]
    assert [run.popsize for run in large] == [8 * 2**k for k in range(1, len(large) + 1)]
    for at, (run, _) in enumerate(found[1:], 1):
        shares = {regime: sum(n for one, n in found[:at] if one.regime == regime) for regime in ("large", "small")}
        assert (run.regime == "small") == (shares["small"] < shares["large"])
        if run.regime == "small":
            last, evaluations = next((one, n) for one, n in found[at - 1 :: -1] if one.regime == "large")
            assert 8 <= run.popsize <= last.popsize / 2
            assert 0.01 <= run.sigma <= 1.0
            assert run.limit == max(evaluations / 2, run.popsize)
