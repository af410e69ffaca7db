import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.candidate import Noise, Recipe, Segment
from evomerge.errors import PoolError, RecipeError
from evomerge.merge import dense, gram, table, vectors
from evomerge.merge.build import Builder, Mode, UnknownAncestors
from evomerge.merge.dense import Dense
from evomerge.merge.pool import ModelPool
from evomerge.merge.table import Table
from evomerge.testing.checkpoints import save_checkpoint

MakePool = Callable[..., ModelPool]
GROUPS = {"rest": ("norm", "embed"), "blocks": ("layers.*",)}
Vector = NDArray[np.float64]


def values(builder: Builder, recipe: Recipe, ancestors: Sequence[Recipe] = ()) -> NDArray[np.float32]:
    vector = builder.resolve(recipe, ancestors)
    pieces = [piece for slot in builder.pool.layout.slots for _, piece in builder.chunks(vector, slot)]
    return np.concatenate(pieces)


def child(
    pool: ModelPool,
    sources: tuple[str, str],
    draws: Sequence[tuple[int, float]],
    angle: str = "global",
    noise: Noise | None = None,
) -> Recipe:
    """A split-point child; one (split, weight) per group."""
    segments: list[Segment] = []
    for group, (split, w) in zip(pool.groups, draws, strict=True):
        if split:
            segments.append(Segment(group.name, 0, split, (w,)))
        segments.append(Segment(group.name, split, group.size, (1 - w,)))
    return Recipe("slerp", sources, tuple(segments), (("angle", angle),), noise)


def nested(pool: ModelPool, count: int, seed: int, angle: str, scale: float = 0.0) -> list[Recipe]:
    """``count`` merges of merges, parents from the last fifteen models."""
    random = np.random.default_rng(seed)
    alive = [f"pool:{member}" for member in pool.members]
    recipes = []
    for number in range(count):
        one, two = (alive[int(at)] for at in random.integers(len(alive), size=2))
        draws = [(int(random.integers(group.size)), float(random.random())) for group in pool.groups]
        noise = Noise(scale, seed, number) if scale else None
        recipes.append(child(pool, (one, two), draws, angle, noise))
        alive = [*alive, f"recipe:{recipes[-1].digest}"][-15:]
    return recipes


def plain(pool: ModelPool, recipes: Sequence[Recipe]) -> dict[str, Vector]:
    """The same merges on whole float64 vectors, written as M2N2's equations."""
    known = {f"pool:{name}": pool.vector(name).astype(np.float64) for name in pool.sources}
    for recipe in recipes:
        one, two = (known[source] for source in recipe.sources)
        made = np.empty_like(one)
        for segment in recipe.segments:
            at = pool.layout.starts[segment.group]
            part = slice(at + segment.start, at + segment.stop)
            seen = slice(None) if dict(recipe.options)["angle"] == "global" else part
            norms = math.sqrt((one[seen] @ one[seen]) * (two[seen] @ two[seen]))
            omega = math.acos(max(-1.0, min(1.0, one[seen] @ two[seen] / norms)))
            (t,) = segment.values
            if math.sin(omega) <= 1e-6:
                made[part] = (1 - t) * one[part] + t * two[part]
            else:
                weights = math.sin((1 - t) * omega), math.sin(t * omega)
                made[part] = (weights[0] * one[part] + weights[1] * two[part]) / math.sin(omega)
        known[f"recipe:{recipe.digest}"] = made
    return known


class Test300NestedMerges:
    @pytest.mark.parametrize("angle", ["global", "per_segment"])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_tables_equal_float64_vectors(self, make_pool: MakePool, seed: int, angle: str) -> None:
        pool = make_pool(groups=GROUPS, seed=seed, shapes={"norm": (1,), "embed": (30, 40), "layers.1": (90, 10)})
        recipes = nested(pool, 300, seed, angle)
        builder = Builder(pool, "table")
        members = np.stack([pool.vector(name).astype(np.float64) for name in pool.sources])
        expected = plain(pool, recipes)
        for at, recipe in enumerate(recipes):
            vector = builder.resolve(recipe, recipes[:at])
            assert isinstance(vector, Table)
        made = np.concatenate(
            [
                np.repeat(rows, np.diff(bounds), axis=0).T
                for bounds, rows in (vector.parts[group.name] for group in pool.groups)
            ],
            axis=1,
        )
        model = (made * members).sum(axis=0)
        last = expected[f"recipe:{recipes[-1].digest}"]
        assert np.abs(model - last).max() / np.abs(last).max() < 1e-12

    @pytest.mark.parametrize("angle", ["global", "per_segment"])
    def test_production_paths_agree_to_float32_rounding(self, make_pool: MakePool, angle: str) -> None:
        pool = make_pool(groups=GROUPS, shapes={"norm": (1,), "embed": (30, 40), "layers.1": (90, 10)})
        recipes = nested(pool, 300, 5, angle)
        made = [values(Builder(pool, mode), recipes[-1], recipes[:-1]) for mode in ("table", "dense")]
        expected = plain(pool, recipes)[f"recipe:{recipes[-1].digest}"]
        for one in made:
            assert np.abs(one - expected).max() / np.abs(expected).max() < 2e-5

    def test_order_of_resolving_changes_no_byte(self, make_pool: MakePool) -> None:
        pool = make_pool(groups=GROUPS)
        recipes = nested(pool, 40, 6, "global", scale=0.01)
        whole = values(Builder(pool, "dense"), recipes[-1], recipes[:-1])
        stepwise = Builder(pool, "dense", cache_bytes=1)
        for at, recipe in enumerate(recipes):
            last = values(stepwise, recipe, recipes[:at])
        assert last.tobytes() == whole.tobytes()


class TestM2N2Invariants:
    weights = st.floats(0, 1)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
    @given(weights, st.sampled_from(["dense", "table"]))
    def test_split_at_the_start_is_plain_slerp_and_angles_agree(
        self, make_pool: MakePool, w: float, mode: Mode
    ) -> None:
        pool = make_pool()
        builder = Builder(pool, mode)
        split = [
            values(builder, child(pool, ("pool:m0", "pool:m1"), [(0, w)], angle)) for angle in ("global", "per_segment")
        ]
        assert split[0].tobytes() == split[1].tobytes()

    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_half_weight_makes_the_split_irrelevant(self, make_pool: MakePool, mode: Mode) -> None:
        pool = make_pool()
        builder = Builder(pool, mode)
        made = {values(builder, child(pool, ("pool:m0", "pool:m1"), [(s, 0.5)])).tobytes() for s in range(95)}
        assert len(made) == 1

    @pytest.mark.parametrize("mode", ["dense", "table"])
    @pytest.mark.parametrize("angle", ["global", "per_segment"])
    def test_zero_weight_is_one_point_crossover(self, make_pool: MakePool, mode: Mode, angle: str) -> None:
        pool = make_pool()
        made = values(Builder(pool, mode), child(pool, ("pool:m0", "pool:m1"), [(60, 0.0)], angle))
        crossed = np.concatenate([pool.vector("m0")[:60], pool.vector("m1")[60:]])
        assert made.tobytes() == crossed.tobytes()

    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_parallel_parents_are_interpolated(self, make_pool: MakePool, mode: Mode) -> None:
        pool = make_pool()
        made = values(Builder(pool, mode), child(pool, ("pool:m0", "pool:m0"), [(40, 0.3)]))
        np.testing.assert_allclose(made, pool.vector("m0"), rtol=1e-6)


@pytest.mark.parametrize("mode", ["dense", "table"])
@pytest.mark.parametrize(("operator", "count"), [("linear", 3), ("task_arithmetic", 2)])
def test_one_hot_returns_the_parent_bit_for_bit(make_pool: MakePool, mode: Mode, operator: str, count: int) -> None:
    pool = make_pool()
    for at, member in enumerate(pool.members):
        hot = tuple(1.0 if at == other else 0.0 for other in range(3))[3 - count :]
        recipe = Recipe(operator, tuple(f"pool:{m}" for m in pool.members), (Segment("all", 0, 95, hot),))
        assert values(Builder(pool, mode), recipe).tobytes() == pool.vector(member).tobytes()


def test_joined_neighbours_keep_tables_short(make_pool: MakePool) -> None:
    pool = make_pool()
    builder = Builder(pool, "table")
    segments = tuple(Segment("all", at, at + 5, (0.25, 0.75)) for at in range(0, 95, 5))
    made = builder.resolve(Recipe("linear", ("pool:m0", "pool:m1"), segments))
    assert isinstance(made, Table)
    assert made.parts["all"][0].tolist() == [0, 95]
    assert made.parts["all"][1].tolist() == [[0.25, 0.75, 0.0]]


class TestBlocks:
    """Sizes of blocks are fixed in production; here small ones run the code that small models never reach."""

    def test_long_vectors_are_built_block_by_block(self, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = make_pool(groups=GROUPS)
        recipes = nested(pool, 10, 2, "per_segment", scale=0.5)
        whole = values(Builder(pool, "dense"), recipes[-1], recipes[:-1])
        for module in (dense, vectors):
            monkeypatch.setattr(module, "BLOCK", 16)
        blocked = values(Builder(pool, "dense"), recipes[-1], recipes[:-1])
        np.testing.assert_allclose(blocked, whole, rtol=1e-6, atol=1e-6)

    def test_tables_stream_in_chunks_through_gram_blocks(
        self, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = make_pool(groups=GROUPS)
        recipes = nested(pool, 10, 3, "per_segment")
        whole = values(Builder(pool, "table"), recipes[-1], recipes[:-1])
        monkeypatch.setattr(gram, "BLOCK", 8)
        monkeypatch.setattr(table, "CHUNK", 3)
        chunked = values(Builder(pool, "table"), recipes[-1], recipes[:-1])
        np.testing.assert_allclose(chunked, whole, rtol=1e-6, atol=1e-7)


class TestNoise:
    def test_is_added_after_the_merge(self, make_pool: MakePool) -> None:
        pool = make_pool(groups=GROUPS)
        clean = child(pool, ("pool:m0", "pool:m1"), [(3, 0.2), (9, 0.4)])
        noisy = child(pool, ("pool:m0", "pool:m1"), [(3, 0.2), (9, 0.4)], noise=Noise(0.5, 1, 2))
        difference = values(Builder(pool), noisy) - values(Builder(pool), clean)
        assert 0.3 < difference.std() < 0.7

    def test_alone_is_a_random_model(self, make_pool: MakePool) -> None:
        pool = make_pool(members=1)
        segments = (Segment("all", 0, 95, ()),)
        made = values(Builder(pool), Recipe("linear", (), segments, (), Noise(0.01, 1, 2)))
        assert 0.005 < made.std() < 0.015
        with pytest.raises(RecipeError, match="needs noise"):
            Builder(pool).resolve(Recipe("linear", (), segments))

    def test_has_no_table(self, make_pool: MakePool) -> None:
        pool = make_pool()
        with pytest.raises(RecipeError, match="'dense' or 'auto'"):
            Builder(pool, "table").resolve(child(pool, ("pool:m0", "pool:m1"), [(3, 0.2)], noise=Noise(1.0, 0, 0)))

    def test_auto_goes_dense_from_the_first_noise_on(self, make_pool: MakePool) -> None:
        pool = make_pool()
        builder = Builder(pool, "auto", cache_bytes=64 * 4 * 95 - 1)
        first = child(pool, ("pool:m0", "pool:m1"), [(3, 0.2)])
        second = child(pool, (f"recipe:{first.digest}", "pool:m2"), [(50, 0.2)], noise=Noise(0.1, 0, 0))
        third = child(pool, (f"recipe:{second.digest}", f"recipe:{first.digest}"), [(20, 0.7)])
        kinds = [type(builder.resolve(recipe)) for recipe in (first, second, third)]
        assert kinds == [Table, Dense, Dense]
        expected = values(Builder(pool, "dense"), third, (first, second))
        np.testing.assert_allclose(values(builder, third), expected, rtol=1e-5, atol=1e-6)


def test_auto_is_dense_where_the_cache_holds_an_archive(make_pool: MakePool) -> None:
    assert Builder(make_pool(), "auto", cache_bytes=64 * 4 * 95).mode == "dense"
    assert Builder(make_pool(), "auto", cache_bytes=64 * 4 * 95 - 1).mode == "auto"


class TestAncestors:
    @pytest.mark.parametrize("mode", ["dense", "table"])
    def test_unknown_ones_are_asked_for(self, make_pool: MakePool, mode: Mode) -> None:
        pool = make_pool()
        recipes = nested(pool, 30, 1, "global")
        builder = Builder(pool, mode)
        builder.resolve(recipes[3], recipes[:3])
        with pytest.raises(UnknownAncestors) as caught:
            builder.resolve(recipes[-1])
        assert recipes[3].digest in caught.value.cached
        assert caught.value.missing == set(recipes[-1].ancestors) - caught.value.cached
        known = caught.value.cached
        builder.resolve(recipes[-1], [one for one in recipes[:-1] if one.digest not in known])

    def test_a_tiny_cache_still_builds(self, make_pool: MakePool) -> None:
        pool = make_pool()
        recipes = nested(pool, 60, 1, "global")
        tiny = Builder(pool, "dense", cache_bytes=1)
        expected = values(Builder(pool, "dense"), recipes[-1], recipes[:-1])
        assert values(tiny, recipes[-1], recipes[:-1]).tobytes() == expected.tobytes()

    def test_a_lineage_of_ten_thousand_needs_no_recursion(self, make_pool: MakePool) -> None:
        pool = make_pool(shapes={"a": (4,)}, members=2)
        recipes: list[Recipe] = []
        parent = "pool:m0"
        for number in range(10_000):
            recipes.append(child(pool, (parent, "pool:m1"), [(number % 4, 0.001)]))
            parent = f"recipe:{recipes[-1].digest}"
        builder = Builder(pool, "dense", cache_bytes=200)
        assert np.isfinite(values(builder, recipes[-1], recipes[:-1])).all()

    def test_must_come_oldest_first(self, make_pool: MakePool) -> None:
        pool = make_pool()
        recipes = nested(pool, 20, 1, "global")
        with pytest.raises(RecipeError, match="oldest first"):
            Builder(pool, "dense").resolve(recipes[-1], recipes[-2::-1])


def test_incompatible_pools_are_refused(make_pool: MakePool) -> None:
    make_pool()
    folder = make_pool().reference_folder
    (folder / "1.safetensors").unlink()
    save_checkpoint(folder / "1.safetensors", {"embed": np.zeros((1, 1), dtype=np.float32)})
    with pytest.raises(PoolError, match="do not fit together"):
        Builder(make_pool())
