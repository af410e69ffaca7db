from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.merge.operators.port import Values
from evomerge.testing.operator import OperatorContract, Whole, whole
from tests.merge.operators.test_ties import Options, merged


def crumbs(tau: Any, density: float, gamma: float) -> Any:
    """By sorting; no two magnitudes are equal."""
    kept = max(1, round(density * tau.size))
    dropped = min(round(gamma * tau.size), tau.size - kept)
    order = np.argsort(-np.abs(tau), axis=None)
    found = np.zeros(tau.size)
    found[order[dropped : dropped + kept]] = tau.reshape(-1)[order[dropped : dropped + kept]]
    return found.reshape(tau.shape)


class TestBreadcrumbs(OperatorContract):
    name = "breadcrumbs"

    def equal_values(self) -> tuple[float, ...]:
        return (0.5, 0.5, 1.0, 1.0, 0.01, 0.01, 1.0)

    def direct(self, theta: Whole, values: Values) -> Whole:
        weights = values.each("weight")
        each = list(zip(values.each("density"), values.each("gamma"), strict=True))
        found = {}
        for name, (base, *experts) in theta.items():
            kept = [crumbs(expert - base, *given) for expert, given in zip(experts, each, strict=True)]
            says = np.stack([w * self.scaled(k, e - base) for w, k, e in zip(weights, kept, experts, strict=True)])
            found[name] = base + values.one("lambda") * self.together(says, weights)
        return found

    def scaled(self, kept: Any, tau: Any) -> Any:
        return kept

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return says.sum(axis=0)


class TestBreadcrumbsRescaled(TestBreadcrumbs):
    options: Options = (("rescale", "l1"),)

    def scaled(self, kept: Any, tau: Any) -> Any:
        return kept * np.abs(tau).sum() / np.abs(kept).sum()


class TestBreadcrumbsTies(TestBreadcrumbs):
    name = "breadcrumbs_ties"

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return merged(says, weights, "sum", "sum", 1.0)


class TestBreadcrumbsTiesMean(TestBreadcrumbs):
    name = "breadcrumbs_ties"
    options: Options = (("aggregate", "mean"),)

    def together(self, says: Any, weights: tuple[float, ...]) -> Any:
        return merged(says, weights, "sum", "mean", 1.0)


@pytest.fixture
def vectors() -> Any:
    return TestBreadcrumbs().vectors(3).astype(np.float32)


def survivors(folder: Path, vectors: Any, density: float, gamma: float) -> dict[str, Any]:
    """Of the first expert."""
    contract = TestBreadcrumbs()
    recipe = contract.recipe((1.0, 0.0, density, 1.0, gamma, 0.0, 1.0))
    return whole(contract.build(contract.make_pool(folder, vectors), recipe, "table") != vectors[0])


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_small_tensors_and_no_gamma_lose_nothing_at_the_top(vectors: Any, tmp_path: Path, gamma: float) -> None:
    """mergekit before 0.1.5 wiped them out."""
    deltas = whole(np.abs(vectors[1] - vectors[0]))
    for name, kept in survivors(tmp_path, vectors, 0.5, gamma).items():
        at = np.unravel_index(np.argmax(deltas[name]), kept.shape)
        assert kept[at] or deltas[name].size >= 50


def test_the_density_is_kept_where_gamma_would_drop_too_much(vectors: Any, tmp_path: Path) -> None:
    for kept in survivors(tmp_path, vectors, 0.9, 1.0).values():
        assert kept.sum() == max(1, round(0.9 * kept.size))


def test_density_one_keeps_everything_whatever_gamma(vectors: Any, tmp_path: Path) -> None:
    assert all(kept.all() for kept in survivors(tmp_path, vectors, 1.0, 1.0).values())


def test_all_that_equal_the_largest_survivor_survive(tmp_path: Path) -> None:
    vectors = np.zeros((3, 105), dtype=np.float32)
    vectors[1] = 0.5
    assert all(kept.all() for kept in survivors(tmp_path, vectors, 0.5, 0.05).values())
