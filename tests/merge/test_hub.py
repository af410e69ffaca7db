import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors

from evomerge.errors import PoolError
from evomerge.merge import hub
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

COMMIT, OLDER = "a" * 40, "b" * 40


def cached(cache: Path, name: str, commit: str, value: float, revision: str = "main") -> Path:
    """A model as the hub's library keeps it: content under ``blobs``, names under ``snapshots``."""
    home = cache / f"models--{name.replace('/', '--')}"
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True)
    blob = save_checkpoint(home / "blobs" / f"{commit[0]}{value}", {"a": np.full(4, value, dtype=np.float32)})
    (folder / "model.safetensors").symlink_to(os.path.relpath(blob, folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "x"}))
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / revision).write_text(commit)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub library's cache, and no way to the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def open_pool(root: Path, *members: str, **settings: str) -> ModelPool:
    named = {f"m{at}": text for at, text in enumerate(members)}
    return ModelPool.open(PoolSettings(members=named, **settings), root)  # type: ignore[arg-type]


def test_what_is_cached_is_opened_without_the_hub(tmp_path: Path, cache: Path) -> None:
    cached(cache, "org/name", COMMIT, 1.0)
    cached(cache, "org/name", OLDER, 2.0, revision="v1")
    save_checkpoint(tmp_path / "here" / "model.safetensors", {"a": np.zeros(4, dtype=np.float32)})
    pool = open_pool(tmp_path, "hf:org/name", "hf:org/name@v1", f"hf:org/name@{OLDER}", "here")
    pool.check()
    assert [pool.checkpoints[name].floats("a")[0] for name in pool.members] == [1.0, 2.0, 2.0, 0.0]
    assert pool.reference_folder == cache / "models--org--name" / "snapshots" / COMMIT


def test_other_workers_open_the_commit_that_was_found(tmp_path: Path, cache: Path) -> None:
    cached(cache, "org/name", COMMIT, 1.0)
    pool = open_pool(tmp_path, "hf:org/name", base="hf:org/name@main")
    assert pool.settings.members == {"m0": f"hf:org/name@{COMMIT}"}
    assert pool.settings.base == f"hf:org/name@{COMMIT}"
    cached(cache, "org/name", OLDER, 2.0)  # main moves on
    again = ModelPool.open(pool.settings, tmp_path)
    assert again.digests() == pool.digests()
    assert again.settings == pool.settings
    assert open_pool(tmp_path, "hf:org/name").digests() != pool.digests()


def test_settings_without_the_hub_stay_as_they_are(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "here" / "model.safetensors", {"a": np.zeros(4, dtype=np.float32)})
    assert open_pool(tmp_path, "here", base="here").settings == PoolSettings({"m0": "here"}, "here")


def test_an_adapter_on_the_hub_lies_over_a_model_there(tmp_path: Path, cache: Path) -> None:
    base = cached(cache, "org/base", COMMIT, 1.0)
    (base / "model.safetensors").unlink()
    save_checkpoint(base / "model.safetensors", {"q.weight": np.zeros((2, 3), dtype=np.float32)})
    folder = cached(cache, "org/lora", OLDER, 0.0)
    (folder / "model.safetensors").unlink()
    factors = {
        "q.lora_A.weight": np.ones((1, 3), dtype=np.float32),
        "q.lora_B.weight": np.ones((2, 1), dtype=np.float32),
    }
    save_checkpoint(folder / "adapter_model.safetensors", factors)
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 3, "base_model_name_or_path": "org/base"})
    )
    pool = open_pool(tmp_path, "hf:org/lora", "hf:org/base+hf:org/lora@main", base="hf:org/base")
    pool.check()
    assert pool.report().warnings == ()
    for name in pool.members:
        assert np.array_equal(pool.checkpoints[name].floats("q.weight"), [3] * 6)
    assert pool.settings.members["m1"] == f"hf:org/base@{COMMIT}+hf:org/lora@{OLDER}"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("hf:org/absent", "pool member m0: hf:org/absent is not in the local cache, and the hub cannot be reached; "),
        ("hf:org/name@gone", "hf:org/name@gone is not in the local cache"),
        ("hf:a/b/c", "hf:a/b/c is no name of a model on the hub; write hf:org/name"),
        ("hf:", "hf: is no name of a model"),
        ("hf:org/pickles", "hf:org/pickles has no safetensors files; name a revision that has"),
        ("hf:org/name+hf:org/absent", "hf:org/absent is not in the local cache"),
    ],
)
def test_what_cannot_be_had_is_named(tmp_path: Path, cache: Path, reference: str, words: str) -> None:
    cached(cache, "org/name", COMMIT, 1.0)
    (cached(cache, "org/pickles", COMMIT, 1.0) / "model.safetensors").unlink()
    with pytest.raises(PoolError) as caught:
        open_pool(tmp_path, reference)
    assert words in str(caught.value)


def answer(status: int, **headers: str) -> httpx2.Response:
    request = httpx2.Request("GET", "https://huggingface.co/api/models/org/name")
    return httpx2.Response(status, request=request, headers=headers)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            errors.GatedRepoError("", response=answer(403)),
            "is gated: accept its terms at https://huggingface.co/org/name",
        ),
        (
            errors.RepositoryNotFoundError("", response=answer(401)),
            "there is no model org/name on the hub, or it is private",
        ),
        (errors.RevisionNotFoundError("", response=answer(404)), "org/name has no revision 'v9'"),
        (
            errors.HfHubHTTPError("the hub is down", response=answer(503)),
            "cannot download hf:org/name@v9: the hub is down",
        ),
        (httpx2.ProxyError("no proxy"), "cannot download hf:org/name@v9: no proxy; try again"),
        (OSError(28, "No space left on device"), "No space left on device; try again, or give a local folder"),
    ],
)
def test_what_the_hub_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(PoolError) as caught:
        hub.model("hf:org/name@v9")
    assert words in str(caught.value)


def test_only_weights_configs_and_tokenizers_are_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    listed = [
        *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"),
        *("vocab.json", "merges.txt", "adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"),
        *("pytorch_model.bin", "modeling_x.py", "consolidated.safetensors", "onnx/model.safetensors"),
        *("model.fp16.safetensors", "README.md", "tf_model.h5"),
    ]
    fetched: list[str] = []

    def download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str], revision: str | None) -> str:
        kept = filter_repo_objects(listed, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        fetched.extend(kept)
        (tmp_path / "x.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    hub.model("hf:org/name")
    assert fetched == listed[:9]
    fetched.clear()
    hub.tokenizer("hf:org/name")
    assert fetched == ["tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja"]


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PoolError, match=r"huggingface_hub is not installed: pip install \"evomerge\[hub\]\""):
        hub.model("hf:org/name")


def test_the_librarys_own_environment_counts(tmp_path: Path) -> None:
    cached(tmp_path / "hub", "org/name", COMMIT, 7.0)
    script = (
        "from pathlib import Path\nfrom evomerge.merge.pool import ModelPool\n"
        "from evomerge.settings import PoolSettings\n"
        "print(ModelPool.open(PoolSettings({'x': 'hf:org/name'}), Path()).checkpoints['x'].floats('a')[0])"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7.0"
