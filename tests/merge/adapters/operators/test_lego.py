from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.errors import RecipeError
from evomerge.merge.adapters.operators.clusters import k_means
from evomerge.merge.operators.port import Values, operator
from evomerge.merge.pool import ModelPool
from evomerge.testing.adapters import MEMBERS, Adapters, Dense, FactorContract


class TestLoraLego(FactorContract):
    name = "lora_lego"

    def direct(self, adapters: Sequence[Dense | None], values: Values) -> NDArray[np.float64] | float:
        """Unit by unit, from the operator's own clusters (of which `test_clusters.py` is the judge)."""
        there = [one for one in adapters if one is not None]
        pairs = [(a, one.scale * b) for one in there for a, b in zip(one.A, one.B.T, strict=True)]
        pairs.sort(key=lambda pair: -np.linalg.norm(pair[0]) * np.linalg.norm(pair[1]))
        parts = []
        for a, b in pairs:
            c = np.sqrt(np.linalg.norm(b) / np.linalg.norm(a))
            parts.append((c * a, b / c))
        directions = np.array([np.concatenate([a, b]) / np.linalg.norm(a) for a, b in parts])
        means = k_means(directions @ directions.T, int(values.one("k")), 0).means
        delta = np.zeros((len(pairs[0][1]), len(pairs[0][0])))
        for row in means:
            members = np.flatnonzero(row)
            a = np.mean([np.sign(row[at]) * parts[at][0] for at in members], axis=0)
            b = np.mean([np.sign(row[at]) * parts[at][1] for at in members], axis=0)
            wanted = np.mean([np.linalg.norm(np.concatenate(parts[at])) for at in members])
            delta += np.outer(b, a) * (wanted / np.linalg.norm(np.concatenate([a, b]))) ** 2
        rank = np.mean([len(one.A) for one in there])
        return np.asarray(values.one("lambda") * np.sqrt(rank / len(means)) * delta)

    def values(self, seed: int = 0) -> tuple[float, ...]:
        return float(1 + seed % 8), super().values(seed)[1]

    def test_one_cluster_for_each_unit_is_the_sum(self, pool: ModelPool) -> None:
        plain = PlainLego()
        built = plain.build(pool, plain.recipe((7.0, 1.0)))
        base = pool.vector("base")
        summed = base + sum(pool.vector(member) - base for member in MEMBERS)
        np.testing.assert_allclose(built, summed, rtol=1e-5, atol=1e-5)

    def test_order_of_ranks_changes_no_byte(self, tmp_path: Path) -> None:
        adapters = self.adapters(5)
        draw = np.random.default_rng(0)
        recipe = self.recipe(self.values(2))
        pool = self.make_pool(tmp_path / "a", adapters)
        turned = self.make_pool(tmp_path / "b", {m: shuffled(mods, draw) for m, mods in adapters.items()})
        assert self.build(pool, recipe).tobytes() == self.build(turned, recipe).tobytes()

    def test_how_units_are_split_into_halves_changes_rounding_only(self, tmp_path: Path) -> None:
        """``(a, b)`` and ``(c a, b / c)``, sign included, are one unit."""
        adapters = self.adapters(6)
        turned: Adapters = {}
        for at, (member, modules) in enumerate(adapters.items()):
            c = (-4.0, 0.5, 2.0)[at]  # powers of two, which round nothing
            turned[member] = {name: one._replace(A=c * one.A, B=one.B / c) for name, one in modules.items()}
        for seed in range(5):
            recipe = self.recipe(self.values(seed))
            one = self.build(self.make_pool(tmp_path / f"a{seed}", adapters), recipe)
            other = self.build(self.make_pool(tmp_path / f"b{seed}", turned), recipe)
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("norm", ["none", "two", "max"])
    def test_equal_adapters_clustered_to_their_rank_give_themselves(self, tmp_path: Path, norm: str) -> None:
        adapters = self.adapters(7)
        pool = self.make_pool(tmp_path, dict.fromkeys(MEMBERS, adapters["two"]))
        plain = PlainLego()
        plain.options = (("norm", norm), ("output", True))  # type: ignore[misc] # of this instance only
        built = plain.build(pool, plain.recipe((float(self.ranks["two"]), 1.0)))
        np.testing.assert_allclose(built, pool.vector("two"), rtol=1e-4, atol=1e-5)

    def test_lambda_scales_the_difference(self, pool: ModelPool) -> None:
        base = pool.vector("base")
        one, half = (self.build(pool, self.recipe((3.0, gain))) - base for gain in (1.0, 0.5))
        np.testing.assert_allclose(half, 0.5 * one, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("option", "value"), [("norm", "one"), ("seed", -1), ("seed", 0.5)])
    def test_impossible_options_are_refused(self, option: str, value: str | float) -> None:
        with pytest.raises(RecipeError, match=f"{option}.*{value}"):
            operator("lora_lego", ((option, value),))


class PlainLego(TestLoraLego):
    """Without any reweighting; not collected, as its name does not begin with Test."""

    options = (("norm", "none"), ("output", False))


def shuffled(modules: dict[str, Dense], draw: np.random.Generator) -> dict[str, Dense]:
    found = {}
    for name, one in modules.items():
        order = draw.permutation(len(one.A))
        found[name] = one._replace(A=one.A[order], B=one.B[:, order])
    return found
