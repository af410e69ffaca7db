import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.errors import PoolError
from evomerge.merge import source
from evomerge.merge.checkpoint import INDEX, Checkpoint
from evomerge.testing.checkpoints import save_checkpoint

ONE = {"a": np.arange(4, dtype=np.float32)}
TWO = {"b": np.arange(3, dtype=np.float32).reshape(3, 1)}


def shard(folder: Path, weights: dict[str, str]) -> Path:
    save_checkpoint(folder / "1.safetensors", ONE)
    save_checkpoint(folder / "2.safetensors", TWO)
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}))
    return folder


def test_single_file_folder_and_shards_hold_the_same(tmp_path: Path) -> None:
    whole = save_checkpoint(tmp_path / "whole" / "model.safetensors", ONE | TWO)
    parts = shard(tmp_path / "parts", {"a": "1.safetensors", "b": "2.safetensors"})
    opened = [Checkpoint(whole), Checkpoint(whole.parent), Checkpoint(parts)]
    assert opened[0].folder == opened[1].folder == whole.parent
    for one in opened:
        assert np.array_equal(one.floats("a", 1, 3), [1, 2])
        assert one.entries["b"].shape == (3, 1)
    assert len({one.digest() for one in opened}) == 1


def test_digest_sees_names_shapes_dtypes_and_values(tmp_path: Path) -> None:
    base = np.arange(4, dtype=np.float32)
    changed = base.copy()
    changed[3] = 9
    arrays = [{"a": base}, {"b": base}, {"a": base.reshape(2, 2)}, {"a": changed}, {"a": base.view(np.int32)}]
    files = [save_checkpoint(tmp_path / f"{n}.safetensors", array) for n, array in enumerate(arrays)]
    assert len({Checkpoint(path).digest() for path in files}) == len(files)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a": "1.safetensors", "b": "3.safetensors"}, "missing: 3.safetensors"),
        ({"a": "1.safetensors", "b": "../x.safetensors"}, "outside its folder"),
        ({"a": "1.safetensors", "b": "1.safetensors"}, "holds tensor 'b', but it does not"),
        ({"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}, "holds tensor 'c', but"),
        ({"a": "1.safetensors", "b": 7}, "no weight_map"),
    ],
)
def test_wrong_indexes_are_named(tmp_path: Path, weights: dict[str, str], words: str) -> None:
    with pytest.raises(PoolError, match=words):
        Checkpoint(shard(tmp_path, weights))


def test_shards_with_unlisted_tensors_are_refused(tmp_path: Path) -> None:
    folder = shard(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    (folder / "2.safetensors").unlink()
    save_checkpoint(folder / "2.safetensors", TWO | {"stray": np.zeros(2)})
    with pytest.raises(PoolError, match="'stray', which"):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_pickles_are_refused_with_the_cure(tmp_path: Path, name: str, whole_folder: bool) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(PoolError, match=f"{name} is a pickle.*weights_only=True"):
        Checkpoint(tmp_path if whole_folder else tmp_path / name)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"no checkpoint at .*nowhere"):
        Checkpoint(tmp_path / "nowhere")
    with pytest.raises(PoolError, match="has neither"):
        Checkpoint(tmp_path)
    save_checkpoint(tmp_path / "other.safetensors", ONE)
    with pytest.raises(PoolError, match=r"instead: other\.safetensors"):
        Checkpoint(tmp_path)
    save_checkpoint(tmp_path / "adapter_model.safetensors", ONE)
    with pytest.raises(PoolError, match="adapter"):
        Checkpoint(tmp_path)
    with pytest.raises(PoolError, match="holds no tensors"):
        Checkpoint(save_checkpoint(tmp_path / "empty.safetensors", {}))


def test_broken_config_is_named(tmp_path: Path) -> None:
    one = Checkpoint(save_checkpoint(tmp_path / "model.safetensors", ONE))
    assert one.config() == {}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(PoolError, match=r"config\.json"):
        one.config()
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(PoolError, match="no JSON object"):
        one.config()


@pytest.mark.parametrize("bfloat16", [True, False])
def test_the_first_value_that_is_not_finite_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    values = np.zeros(40, dtype=np.float32)
    values[[17, 30]] = -np.inf, np.nan
    monkeypatch.setattr(source, "CHUNK", 8)
    one = Checkpoint(save_checkpoint(tmp_path / "x.safetensors", {"a": values}, bfloat16))
    assert one.first_not_finite("a") == (17, -np.inf)


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "x.safetensors", ONE)
    before = Checkpoint(path).identity()
    assert Checkpoint(path).identity() == before
    path.unlink()
    assert Checkpoint(save_checkpoint(path, {"a": ONE["a"] + 1})).identity() != before
