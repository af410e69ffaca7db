import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.candidate import Recipe, Segment
from evomerge.errors import PoolError, RecipeError
from evomerge.merge.build import Builder, Mode
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import Source
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint
from tests.merge.mergekit.cases import POOLS, cases

Arrays = Mapping[str, np.ndarray[Any, Any]]
SaveAdapter = Callable[..., Path]

CASES = sorted(path.parent for path in (Path(__file__).parent / "peft").glob("*/adapter_config.json"))


def adapted(folder: Path, base: Path) -> Adapted:
    return Adapted(Adapter(folder, Checkpoint(base)))


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def built(pool: ModelPool, recipe: Recipe, mode: Mode) -> bytes:
    builder = Builder(pool, mode)
    vector = builder.resolve(recipe)
    return b"".join(piece.tobytes() for slot in pool.layout.slots for _, piece in builder.chunks(vector, slot))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_merges_as_peft_does(case: Path) -> None:
    found = adapted(case, case / "base.safetensors")
    expected = Checkpoint(case / "merged.safetensors")
    assert found.entries.keys() == expected.entries.keys()
    assert found.adapter.changes
    for name, entry in expected.entries.items():
        assert found.entries[name].shape == entry.shape
        np.testing.assert_allclose(found.floats(name), expected.floats(name), rtol=2e-5, atol=2e-6, err_msg=name)


def test_what_the_adapter_leaves_alone_keeps_its_own_values() -> None:
    case = next(case for case in CASES if case.name == "linear")
    found, base = adapted(case, case / "base.safetensors"), Checkpoint(case / "base.safetensors")
    alone = base.entries.keys() - found.adapter.changes.keys()
    assert alone
    for name in alone:
        assert found.entries[name] == base.entries[name]
        assert found.fingerprint(name) == base.fingerprint(name)
        assert np.array_equal(found.stored(name), base.stored(name))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(CASES), st.data())
def test_values_do_not_depend_on_how_tensors_are_cut(case: Path, data: st.DataObject) -> None:
    found = adapted(case, case / "base.safetensors")
    name = data.draw(st.sampled_from(sorted(found.adapter.changes)))
    size = found.entries[name].size
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=5))})
    pieces = [found.floats(name, start, stop) for start, stop in pairwise(cuts)]
    whole = adapted(case, case / "base.safetensors").floats(name)
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


def test_values_do_not_depend_on_threads() -> None:
    case = next(case for case in CASES if case.name == "dora_transposed")
    found, alone = (adapted(case, case / "base.safetensors") for _ in range(2))
    pieces = [(name, at, at + 5) for _ in range(20) for name in found.entries for at in (0, 5)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda piece: found.floats(*piece).tobytes(), pieces))
    assert together == [alone.floats(*piece).tobytes() for piece in pieces]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9)),
    alpha=st.sampled_from([-2.0, 0.0, 0.5, 16.0]),
    rslora=st.booleans(),
    bfloat16=st.booleans(),
)
def test_is_the_base_and_a_scaled_product(
    save_adapter: SaveAdapter, sizes: tuple[int, int, int], alpha: float, rslora: bool, bfloat16: bool
) -> None:
    rows, columns, rank = sizes
    w, a, b = normal(rows, columns), normal(rank, columns, seed=1), normal(rows, rank, seed=2)
    factors = {"m.lora_A.weight": a, "m.lora_B.weight": b}
    folder = save_adapter("x", factors, r=rank, lora_alpha=alpha, use_rslora=rslora)
    base = save_checkpoint(folder / "base.safetensors", {"m.weight": w}, bfloat16)
    found = adapted(folder, base)
    theta = Checkpoint(base).floats("m.weight").reshape(rows, columns).astype(np.float64)
    expected = theta + alpha / (rank**0.5 if rslora else rank) * b.astype(np.float64) @ a.astype(np.float64)
    assert found.entries["m.weight"].dtype == "F32"
    assert found.export_dtype("m.weight") == ("BF16" if bfloat16 else "F32")
    np.testing.assert_allclose(found.floats("m.weight").reshape(rows, columns), expected, rtol=1e-5, atol=1e-4)
    shutil.rmtree(folder)


def test_long_dora_norms_do_not_depend_on_chunks(save_adapter: SaveAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    w = normal(300, 50)
    tensors = {
        "m.lora_A.weight": normal(2, 50),
        "m.lora_B.weight": normal(300, 2),
        "m.lora_magnitude_vector": np.ones(300, dtype=np.float32),
    }
    folder = save_adapter("x", tensors, use_dora=True)
    base = save_checkpoint(folder / "base.safetensors", {"m.weight": w})
    whole = adapted(folder, base).floats("m.weight").reshape(300, 50)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-6)
    monkeypatch.setattr("evomerge.merge.views.adapted.CHUNK", 7)
    assert np.array_equal(adapted(folder, base).floats("m.weight").reshape(300, 50), whole)


class TestNames:
    def test_a_base_may_name_the_body_without_its_head_or_with_it(self, save_adapter: SaveAdapter) -> None:
        """Checkpoints of bodies lack the prefix that models with a head give them, and the other way round."""
        factors = {"q.lora_A.weight": normal(2, 3), "q.lora_B.weight": normal(4, 2)}
        for inside, outside in (("model.h.0", "h.0"), ("h.0", "model.h.0")):
            folder = save_adapter(f"{inside}-adapter", {f"{inside}.{key}": one for key, one in factors.items()})
            base = save_checkpoint(folder / "base.safetensors", {f"{outside}.q.weight": normal(4, 3)})
            assert adapted(folder, base).adapter.modules.keys() == {f"{outside}.q.weight"}

    def test_the_name_of_the_adapter_may_be_left_in(self, save_adapter: SaveAdapter) -> None:
        tensors = {"q.lora_A.default.weight": normal(2, 3), "q.lora_B.default.weight": normal(4, 2)}
        folder = save_adapter("x", tensors)
        base = save_checkpoint(folder / "base.safetensors", {"q.weight": normal(4, 3)})
        assert adapted(folder, base).adapter.modules.keys() == {"q.weight"}

    def test_an_embedding_may_bring_its_base_layer(self, save_adapter: SaveAdapter) -> None:
        whole = normal(5, 3, seed=9)
        tensors = {
            "embed.base_layer.weight": whole,
            "embed.lora_embedding_A": normal(2, 5),
            "embed.lora_embedding_B": normal(3, 2),
        }
        folder = save_adapter("x", tensors)
        base = save_checkpoint(folder / "base.safetensors", {"embed.weight": normal(4, 3)})
        found = adapted(folder, base)
        expected = whole + 2 * (normal(3, 2) @ normal(2, 5)).T
        assert found.entries["embed.weight"].shape == (5, 3)
        np.testing.assert_allclose(found.floats("embed.weight").reshape(5, 3), expected, rtol=1e-5)

    def test_factors_are_in_the_orientation_of_the_tensor(self) -> None:
        for case in CASES:
            found = adapted(case, case / "base.safetensors")
            assert found.adapter.rank == (max(one.rank for one in found.adapter.modules.values()))
            for name, factors in found.adapter.modules.items():
                rows, *rest = found.entries[name].shape
                assert factors.B.shape == (rows, factors.rank)
                assert factors.A.shape == (factors.rank, int(np.prod(rest)))


W, A, B = normal(4, 3), normal(2, 3), normal(4, 2)
GOOD: dict[str, Any] = {"q.lora_A.weight": A, "q.lora_B.weight": B}

BAD: dict[str, tuple[Arrays, dict[str, Any], str]] = {
    "no A": ({"q.lora_B.weight": B}, {}, r"'base_model\.model\.q\.lora_B\.weight' has no partner.* lacks A"),
    "no B": ({"q.lora_A.weight": A}, {}, "has no partner.* lacks B"),
    "only a magnitude": ({"q.lora_magnitude_vector": A[0]}, {"use_dora": True}, "has no partner"),
    "another module": ({"v.lora_A.weight": A, "v.lora_B.weight": B}, {}, "does not have .it has q.weight.*BASE"),
    "another base": ({"q.lora_A.weight": normal(2, 5), "q.lora_B.weight": B}, {}, r"\[2, 5\].*fit 'q.weight' \[4, 3\]"),
    "B of another base": ({"q.lora_A.weight": A, "q.lora_B.weight": normal(6, 2)}, {}, r"does not fit"),
    "B of another rank": ({"q.lora_A.weight": A, "q.lora_B.weight": normal(4, 3)}, {}, r"does not fit"),
    "rank": (GOOD, {"r": 4}, "has rank 2 instead of 4, as adapter_config.json says"),
    "pattern's rank": (GOOD, {"rank_pattern": {"q": 8}}, "rank 2 instead of 8"),
    "no factors": ({"q.lora_A.weight": np.float32(1).reshape(()), "q.lora_B.weight": B}, {}, "rank 0 instead of 2"),
    "whole numbers": (
        {"q.lora_A.weight": A.astype(np.int32), "q.lora_B.weight": B},
        {},
        "stored as I32, which quantised",
    ),
    "magnitude unasked": (GOOD | {"q.lora_magnitude_vector": W[:, 0]}, {}, "use_dora: false"),
    "magnitude missing": (GOOD, {"use_dora": True}, "has no magnitude beside it, but .* use_dora: true"),
    "magnitude too long": (GOOD | {"q.lora_magnitude_vector": normal(5)}, {"use_dora": True}, "does not fit"),
    "replaced by another shape": (GOOD | {"n.weight": normal(4, 4)}, {}, r"does not fit 'n\.weight'"),
    "replaces nothing": (GOOD | {"score.weight": normal(4, 4)}, {}, "'score.weight', which the base"),
    "bias of nothing": (GOOD | {"q.lora_B.bias": B[:, 0]}, {}, "'q.bias', which the base"),
    "unknown kind": (GOOD | {"q.lora_diag.weight": B}, {}, "of an unknown kind"),
    "twice": (GOOD | {"q.lora_A.default.weight": A}, {}, "is there twice"),
    "LoHa": (GOOD, {"peft_type": "LOHA"}, "peft_type is 'LOHA', and only LORA"),
    "no kind": (GOOD, {"peft_type": None}, "peft_type is None"),
    "PiSSA": (GOOD, {"init_lora_weights": "pissa_niter_4"}, "changes the base's own weights"),
    "aLoRA": (GOOD, {"alora_invocation_tokens": [1]}, "alora_invocation_tokens is not supported"),
    "rank 0": (GOOD, {"r": 0}, "r is 0 instead of a whole number"),
    "rank true": (GOOD, {"r": True}, "r is True"),
    "alpha": (GOOD, {"lora_alpha": "16"}, "lora_alpha is '16' instead of a finite number"),
    "infinite alpha": (GOOD, {"lora_alpha": float("inf")}, "lora_alpha is inf"),
    "flag": (GOOD, {"use_rslora": 1}, "use_rslora is 1 instead of true or false"),
    "base name": (GOOD, {"base_model_name_or_path": 7}, "base_model_name_or_path is 7"),
    "pattern": (GOOD, {"rank_pattern": {"(": 2}}, "a regular expression"),
    "patterns": (GOOD, {"alpha_pattern": [1]}, "a mapping of module names"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(save_adapter: SaveAdapter, case: str) -> None:
    tensors, said, words = BAD[case]
    folder = save_adapter("x", tensors, **said)
    base = save_checkpoint(folder / "base.safetensors", {"q.weight": W, "n.weight": W})
    with pytest.raises(PoolError, match=words) as caught:
        adapted(folder, base)
    assert str(folder) in str(caught.value)
    assert ";" in str(caught.value)


def test_a_zero_row_cannot_be_given_a_norm(save_adapter: SaveAdapter) -> None:
    tensors = {"q.lora_A.weight": A, "q.lora_B.weight": B * 0, "q.lora_magnitude_vector": np.ones(4, dtype=np.float32)}
    folder = save_adapter("x", tensors, use_dora=True)
    w = W.copy()
    w[2] = 0
    found = adapted(folder, save_checkpoint(folder / "base.safetensors", {"q.weight": w}))
    with pytest.raises(PoolError, match=r"scales 'q\.weight', but row or column 2 of that is zero"):
        found.floats("q.weight")


def test_pickled_and_missing_weights_are_named(save_adapter: SaveAdapter) -> None:
    folder = save_adapter("x", GOOD)
    base = save_checkpoint(folder / "base.safetensors", {"q.weight": W})
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(PoolError, match=r"adapter_model\.bin is a pickle"):
        adapted(folder, base)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(PoolError, match=r"there is no checkpoint at .*adapter_model\.safetensors"):
        adapted(folder, base)


class TestPool:
    @pytest.fixture
    def folder(self, tmp_path: Path, save_adapter: SaveAdapter) -> Path:
        shapes = {
            "embed.weight": (9, 6),
            "layers.0.q.weight": (6, 6),
            "layers.1.q.weight": (6, 6),
            "head.weight": (9, 6),
        }
        for seed, name in enumerate(("base", "other")):
            arrays = {key: normal(*shape, seed=seed) for key, shape in shapes.items()}
            save_checkpoint(tmp_path / name / "model.safetensors", arrays, bfloat16=True)
        save_adapter("one", {f"layers.{i}.q.lora_{x}.weight": normal(*s, seed=i) for i in (0, 1) for x, s in _AB(2)})
        save_adapter("two", {f"layers.1.q.lora_{x}.weight": normal(*s, seed=7) for x, s in _AB(5)}, r=5)
        return tmp_path

    def pool(self, folder: Path, **members: str) -> ModelPool:
        return ModelPool.open(PoolSettings(members=members, base="base"), folder)

    def test_adapters_merge_like_the_checkpoints_that_they_stand_for(self, folder: Path) -> None:
        adapters = self.pool(folder, one="one", two="two")
        adapters.check()
        for name in ("one", "two"):
            view = adapters.checkpoints[name]
            arrays = {key: view.floats(key).reshape(entry.shape) for key, entry in view.entries.items()}
            save_checkpoint(folder / f"whole-{name}" / "model.safetensors", arrays)
        whole = self.pool(folder, one="whole-one", two="whole-two")
        for operator, values in (("linear", (0.4, 0.6, -0.3)), ("task_arithmetic", (0.5, 0.7))):
            segments = (Segment("all", 0, adapters.size, values),)
            recipe = Recipe(operator, ("pool:base", "pool:one", "pool:two"), segments)
            assert built(adapters, recipe, "dense") == built(whole, recipe, "dense")
            assert built(adapters, recipe, "table") == built(whole, recipe, "table")

    def test_an_adapter_may_bring_a_base_of_its_own(self, folder: Path) -> None:
        pool = self.pool(folder, one="one", far="other+one")
        base, far = pool.checkpoints["base"], pool.checkpoints["far"]
        other = Checkpoint(folder / "other")
        assert np.array_equal(far.floats("embed.weight"), other.floats("embed.weight"))
        change = pool.checkpoints["one"].floats("layers.0.q.weight") - base.floats("layers.0.q.weight")
        np.testing.assert_allclose(
            far.floats("layers.0.q.weight"), other.floats("layers.0.q.weight") + change, rtol=1e-5, atol=1e-5
        )

    def test_its_factors_are_at_hand_only_over_the_base(self, folder: Path) -> None:
        pool = self.pool(folder, one="one", two="two", far="other+one")
        assert pool.adapter("two").modules["layers.1.q.weight"].B.shape == (6, 5)
        for name in ("far", "base"):
            with pytest.raises(RecipeError, match=rf"{name} is no adapter over pool\.base"):
                pool.adapter(name)

    def test_the_base_may_itself_be_adapted(self, folder: Path) -> None:
        pool = ModelPool.open(PoolSettings(members={"two": "two"}, base="base+one"), folder)
        once, twice = pool.checkpoints["base"], pool.checkpoints["two"]
        assert not np.array_equal(once.floats("layers.1.q.weight"), twice.floats("layers.1.q.weight"))
        assert np.array_equal(once.floats("layers.0.q.weight"), twice.floats("layers.0.q.weight"))

    def test_a_member_may_be_the_base_itself(self, folder: Path) -> None:
        pool = self.pool(folder, origin="./base", one="one")
        assert (pool.base, pool.sources) == ("origin", ("origin", "one"))
        assert pool.adapter("one").rank == 2

    def test_without_a_base_it_is_refused(self, folder: Path) -> None:
        for path in ("one", "one/adapter_model.safetensors"):
            with pytest.raises(PoolError, match=r"pool member x: .*pool\.base, or write BASE\+ADAPTER"):
                ModelPool.open(PoolSettings(members={"x": path}), folder)
        with pytest.raises(PoolError, match=r"holds an adapter; name"):
            ModelPool.open(PoolSettings(members={"x": "base"}, base="one"), folder)

    def test_a_folder_with_a_plus_in_its_name_is_no_pair(self, folder: Path) -> None:
        shutil.copytree(folder / "other", folder / "base+other")
        pool = self.pool(folder, x="base+other")
        assert np.array_equal(
            pool.checkpoints["x"].floats("embed.weight"), Checkpoint(folder / "other").floats("embed.weight")
        )

    def test_a_base_of_another_name_is_worth_a_note(self, folder: Path) -> None:
        config = folder / "one" / "adapter_config.json"
        told = json.loads(config.read_text())
        for name, noted in (("org/BASE", False), (str(folder / "base"), False), ("org/llama", True)):
            config.write_text(json.dumps(told | {"base_model_name_or_path": name}))
            pool = self.pool(folder, one="one")
            pool.check()
            assert any("was trained on org/llama" in text for text in pool.report().warnings) == noted

    def test_the_report_counts_its_own_bytes(self, folder: Path) -> None:
        report = {one.name: one for one in self.pool(folder, one="one").report().sources}
        assert report["one"].bytes == 4 * 4 * 12
        assert report["one"].dtypes == (("F32", 4),)
        assert report["one"].parameters == report["base"].parameters

    @pytest.mark.parametrize("changed", ["base", "factors", "alpha"])
    def test_identity_and_digest_follow_all_that_it_depends_on(self, folder: Path, changed: str) -> None:
        before = self.pool(folder, one="one", two="two")
        told = {name: (view.digest(), view.identity()) for name, view in before.checkpoints.items()}
        prints = _fingerprints(before.checkpoints["one"])
        if changed == "base":
            path = folder / "base" / "model.safetensors"
            arrays = {key: normal(*entry.shape, seed=5) for key, entry in Checkpoint(path).entries.items()}
            path.unlink()
            save_checkpoint(path, arrays, bfloat16=True)
        elif changed == "factors":
            path = folder / "one" / "adapter_model.safetensors"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        else:
            path = folder / "one" / "adapter_config.json"
            path.write_text(path.read_text().replace('"lora_alpha": 4', '"lora_alpha": 5'))
        after = self.pool(folder, one="one", two="two")
        now = {name: (view.digest(), view.identity()) for name, view in after.checkpoints.items()}
        same = {name for name in told if told[name][0] == now[name][0]}
        assert same == {name for name in told if told[name][1] == now[name][1]}
        assert same == (set() if changed == "base" else {"base", "two"})
        assert _fingerprints(after.checkpoints["one"]) != prints

    def test_as_mergekit_merges_an_adapter_first(self) -> None:
        members = {"tuned": "float32/base+lora/adapter", "math": "float32/math"}
        pool = ModelPool.open(PoolSettings(members=members), POOLS)
        pool.check()
        segments = (Segment("all", 0, pool.size, (0.6, 0.4)),)
        builder = Builder(pool)
        vector = builder.resolve(Recipe("linear", ("pool:tuned", "pool:math"), segments))
        expected = next(case for case in cases() if case.name == "linear_lora").tensors
        assert pool.checkpoints["tuned"].adapter.modules  # type: ignore[attr-defined]
        for slot in pool.layout.slots:
            found = builder.read(vector, slot, 0, slot.size).reshape(slot.shape)
            np.testing.assert_allclose(found, expected[slot.name], rtol=1e-5, atol=1e-6)

    def test_adapters_of_image_models_are_refused(self, shared: Path) -> None:
        for path in sorted((shared / "lora_sd15").glob("*.safetensors")):
            with pytest.raises(PoolError, match=r"no adapter_config\.json tells their scale; convert it"):
                ModelPool.open(PoolSettings(members={"x": str(path)}), shared)

    def test_a_lora_file_without_settings_is_refused(self, tmp_path: Path) -> None:
        for name in ("text_encoder:0:down", "lora_unet_x.lora_down.weight", "x.lora_A.weight"):
            path = save_checkpoint(tmp_path / f"{len(name)}.safetensors", {name: A})
            with pytest.raises(PoolError, match=r"no adapter_config\.json tells their scale; convert it"):
                ModelPool.open(PoolSettings(members={"x": str(path)}), tmp_path)


def _AB(rank: int) -> list[tuple[str, tuple[int, int]]]:
    return [("A", (rank, 6)), ("B", (6, rank))]


def _fingerprints(source: Source) -> dict[str, str]:
    return {name: source.fingerprint(name) for name in source.entries}


class TestMutations:
    """Nothing that happens to an adapter's files gives anything but a `PoolError` or a valid read."""

    @pytest.fixture(scope="class")
    @staticmethod
    def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("mutated")
        case = next(case for case in CASES if case.name == "patterns")
        for path in case.iterdir():
            shutil.copy(path, folder / f"good-{path.name}")
        return folder

    @staticmethod
    def attempt(home: Path, config: bytes, weights: bytes) -> None:
        folder = home / "x"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_bytes(config)
        (folder / "adapter_model.safetensors").write_bytes(weights)
        try:
            found = adapted(folder, home / "good-base.safetensors")
        except PoolError as error:
            str(error).encode()  # can be printed
            return
        for name, entry in found.entries.items():
            assert found.stored(name).size == entry.size

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_of_its_bytes(self, home: Path, data: st.DataObject) -> None:
        content = {
            name: bytearray((home / f"good-{name}").read_bytes())
            for name in ("adapter_config.json", "adapter_model.safetensors")
        }
        for _ in range(data.draw(st.integers(1, 4))):
            one = content[data.draw(st.sampled_from(sorted(content)))]
            at = data.draw(st.integers(0, max(0, min(len(one), 1200) - 1)))
            how = data.draw(st.sampled_from(["set", "cut", "drop", "insert"]))
            if how == "set" and one:
                one[at] = data.draw(st.integers(0, 255))
            elif how == "cut":
                del one[at:]
            elif how == "drop":
                del one[at : at + 1]
            else:
                one.insert(at, data.draw(st.integers(0, 255)))
        self.attempt(home, *map(bytes, content.values()))

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_of_its_settings(self, home: Path, data: st.DataObject) -> None:
        told = json.loads((home / "good-adapter_config.json").read_text())
        values = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=6,
        )
        for _ in range(data.draw(st.integers(1, 4))):
            told[data.draw(st.sampled_from(sorted(told)))] = data.draw(values)
        self.attempt(home, json.dumps(told).encode(), (home / "good-adapter_model.safetensors").read_bytes())
