import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.candidate import Recipe, Segment
from evomerge.errors import PoolError
from evomerge.merge.build import Builder
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.export import export
from evomerge.merge.pool import ModelPool
from evomerge.merge.views.layers import Stacked, depth_of
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "layer_types": ["a", "b", "c", "d"],
    "vocab_size": 4,
    "other": [1, 2, 3, 4],
}


def save(folder: Path, seed: int = 0, layers: int = 4, **config: Any) -> Path:
    random = np.random.default_rng(seed)
    names = ["embed.weight", "norm.weight", *(f"model.layers.{i}.{k}" for i in range(layers) for k in ("q", "up.w"))]
    save_checkpoint(
        folder / "model.safetensors", {name: random.standard_normal((4, 3)).astype(np.float32) for name in names}
    )
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return folder


@pytest.fixture
def origin(tmp_path: Path) -> Checkpoint:
    return Checkpoint(save(tmp_path / "x"))


def layer(source: Any, at: int) -> list[bytes]:
    return [source.stored(f"model.layers.{at}.{name}").tobytes() for name in ("q", "up.w")]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)).filter(lambda pair: pair[0] < pair[1]), min_size=1))
def test_output_layers_are_the_listed_ones_in_order(origin: Checkpoint, ranges: list[tuple[int, int]]) -> None:
    stacked = Stacked(origin, [f"{start}:{stop}" for start, stop in ranges])
    listed = [one for start, stop in ranges for one in range(start, stop)]
    assert depth_of(stacked) == len(listed) == stacked.config()["num_hidden_layers"]
    for at, one in enumerate(listed):
        assert layer(stacked, at) == layer(origin, one)
    assert stacked.entries.keys() - origin.entries.keys() == {
        f"model.layers.{at}.{name}" for at in range(4, len(listed)) for name in ("q", "up.w")
    }
    for name in ("embed.weight", "norm.weight"):
        assert stacked.stored(name).tobytes() == origin.stored(name).tobytes()
        assert stacked.fingerprint(name) == origin.fingerprint(name)


def test_all_layers_once_is_the_model_itself(origin: Checkpoint) -> None:
    stacked = Stacked(origin, ["0:4"])
    assert stacked.entries == origin.entries
    assert stacked.config() == origin.config()
    assert [stacked.floats(name).tolist() for name in origin.entries] == [
        origin.floats(name).tolist() for name in origin.entries
    ]


def test_lists_with_an_item_per_layer_follow(origin: Checkpoint) -> None:
    config = Stacked(origin, ["2:4", "0:1"]).config()
    assert config == CONFIG | {"num_hidden_layers": 3, "layer_types": ["c", "d", "a"]}


def test_a_text_model_within_another_is_stacked(tmp_path: Path) -> None:
    names = [f"language.layers.{i}.q" for i in range(3)] + [f"vision.blocks.{i}.q" for i in range(2)]
    arrays = {name: np.full((2, 2), at, dtype=np.float32) for at, name in enumerate(names)}
    path = save_checkpoint(tmp_path / "model.safetensors", arrays)
    config = {"text_config": {"num_hidden_layers": 3}, "vision_config": {"depth": 2}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    stacked = Stacked(Checkpoint(path), ["1:3", "1:3"])
    assert stacked.config() == config | {"text_config": {"num_hidden_layers": 4}}
    assert [stacked.floats(f"language.layers.{at}.q")[0] for at in range(4)] == [1, 2, 1, 2]
    assert stacked.floats("vision.blocks.1.q")[0] == 4


@pytest.mark.parametrize(
    "text", ["4:5", "0:9", "2:2", "3:1", "1", ":2", "-1:2", "a:b", "0:99999999999", "\u0660:2", ""]
)
def test_ranges_beyond_the_model_are_named(origin: Checkpoint, text: str) -> None:
    with pytest.raises(PoolError, match=r"is no range of the 4 layers of .*x; give ranges such as '0:4'"):
        Stacked(origin, ["0:1", text])
    with pytest.raises(PoolError, match=r"gives .* no layers"):
        Stacked(origin, [])


def test_layers_numbered_in_two_places_are_refused(tmp_path: Path) -> None:
    names = [f"{part}.{at}.w" for part in ("encoder.block", "decoder.block") for at in range(2)]
    arrays = {name: np.zeros(2, dtype=np.float32) for name in names}
    path = save_checkpoint(tmp_path / "model.safetensors", arrays)
    with pytest.raises(PoolError, match=r"in one place \(decoder\.block\.\* has 2, encoder\.block\.\* has 2\)"):
        Stacked(Checkpoint(path), ["0:1"])
    with pytest.raises(PoolError, match="none is numbered"):
        Stacked(Checkpoint(save_checkpoint(tmp_path / "y.safetensors", {"a": arrays[names[0]]})), ["0:1"])


def test_kinds_that_follow_the_number_are_worth_a_note(tmp_path: Path) -> None:
    folder = save(tmp_path / "x", sliding_window_pattern=2)
    assert Stacked(Checkpoint(folder), ["0:1"]).notes == ()  # layer_types says each layer's kind
    told = json.loads((folder / "config.json").read_text())
    del told["layer_types"]
    (folder / "config.json").write_text(json.dumps(told))
    assert "sliding_window_pattern" in Stacked(Checkpoint(folder), ["0:1"]).notes[0]


class TestPool:
    def open(self, folder: Path, **settings: Any) -> ModelPool:
        for seed, name in enumerate(("x", "y")):
            if not (folder / name).exists():
                save(folder / name, seed)
        return ModelPool.open(PoolSettings(members={"x": "x", "y": "y"}, **settings), folder)

    def test_two_stacks_of_one_depth_merge(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        pool = self.open(tmp_path, layers={"x": ("0:3", "1:4"), "y": ("0:2", "0:4")})
        (tmp_path / "x" / "tokenizer.json").write_text("{}")
        recipe = Recipe("linear", ("pool:x", "pool:y"), (Segment("all", 0, pool.size, (0.25, 0.75)),))
        export(Builder(pool), recipe, (), tmp_path / "out", card="")
        out = Checkpoint(tmp_path / "out")
        x, y = Checkpoint(tmp_path / "x"), Checkpoint(tmp_path / "y")
        for at, (one, two) in enumerate(zip((0, 1, 2, 1, 2, 3), (0, 1, 0, 1, 2, 3), strict=True)):
            expected = 0.25 * x.floats(f"model.layers.{one}.q") + 0.75 * y.floats(f"model.layers.{two}.q")
            np.testing.assert_allclose(out.floats(f"model.layers.{at}.q"), expected, rtol=1e-6)
        assert out.config()["num_hidden_layers"] == 6
        assert out.config()["layer_types"] == ["a", "b", "c", "b", "c", "d"]
        assert (tmp_path / "out" / "tokenizer.json").is_file()

    def test_stacks_of_other_depths_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PoolError, match=r"y: has 4 layers instead of 3; .*pool\.layers"):
            self.open(tmp_path, layers={"x": ("0:3",)}).check()

    def test_who_is_not_in_the_pool_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(PoolError, match=r"pool\.layers names 'z', but the pool has x, y"):
            self.open(tmp_path, layers={"z": ("0:3",)})

    def test_the_base_may_be_stacked_apart_from_the_member_that_it_is(self, tmp_path: Path) -> None:
        pool = self.open(tmp_path, base="x", layers={"base": ("0:4", "0:1"), "x": ("0:1", "0:4")})
        assert pool.sources == ("x", "y", "base")
        assert layer(pool.checkpoints["base"], 4) == layer(pool.checkpoints["x"], 0)
        pool = self.open(tmp_path, base="x", layers={"x": ("0:2",), "y": ("1:3",)})
        assert (pool.base, pool.sources) == ("x", ("x", "y"))
        pool.check()

    def test_identity_and_digest_follow_the_ranges(self, tmp_path: Path) -> None:
        one, two = (self.open(tmp_path, layers={"x": ranges, "y": ("0:4",)}) for ranges in (("0:4",), ("0:2", "2:4")))
        assert one.digests()["y"] == two.digests()["y"] != one.digests()["x"]
        assert one.checkpoints["x"].identity() != two.checkpoints["x"].identity()

    def test_an_unwritable_cache_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        pool = self.open(tmp_path, layers={"x": ("0:3",), "y": ("1:4",)})
        with pytest.raises(PoolError, match=r"cannot write .*set XDG_CACHE_HOME"):
            _ = pool.reference_folder

    def test_the_made_folder_is_made_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        layers = {"x": ("0:3",), "y": ("1:4",)}
        one, two = (self.open(tmp_path, layers=layers).reference_folder for _ in range(2))
        assert one == two
        assert list(one.parent.iterdir()) == [one]
        assert self.open(tmp_path).reference_folder == tmp_path / "x"
